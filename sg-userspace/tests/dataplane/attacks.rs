//! `docs/attacks.md` against the tests: every attack has a row, and every row names the tests that
//! are called after it, or says why there is none.
//!
//! A test is called after an attack if the attack's id leads its name: `A2 …` a case of the table,
//! `a2_…` a function; several ids may lead it. `SG_BLESS=1` writes the last column anew.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use crate::cases;

/// Groups of attacks, and how many each has.
const GROUPS: [(char, u8); 14] = [
    ('A', 8),
    ('B', 8),
    ('C', 7),
    ('D', 10),
    ('E', 12),
    ('F', 5),
    ('G', 11),
    ('H', 17),
    ('I', 7),
    ('J', 13),
    ('K', 12),
    ('L', 16),
    ('M', 14),
    ('N', 9),
];

/// What a row without a test must say, and go on to say why.
const NO_TEST: &str = "No test: ";

fn ids() -> Vec<String> {
    let numbers = |(group, last): (char, u8)| (1..=last).map(move |number| (group, number));
    let all = GROUPS.into_iter().flat_map(numbers);
    all.map(|(group, number)| format!("{group}{number}"))
        .collect()
}

/// The ids that lead a name.
fn leading<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let known = ids();
    words
        .map(str::to_uppercase)
        .take_while(|word| known.contains(word))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Rust sources below a directory, with their texts.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                found.push((path, text));
            }
        }
    }
    found.sort_unstable();
    found
}

/// Names of the functions of a source that libtest runs.
fn test_functions(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if is_test {
                names.extend(rest.split('(').next());
            }
            is_test = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            is_test = false;
        }
    }
    names
}

/// By id, the tests called after it: where they are, and their names.
fn tests() -> BTreeMap<String, Vec<(String, String)>> {
    let root = root();
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut add = |ids: Vec<String>, path: &Path, name: &str| {
        let path = path.strip_prefix(&root).expect("below the root");
        let path = path.display().to_string();
        for id in ids {
            let tests = found.entry(id).or_default();
            tests.push((path.clone(), name.to_owned()));
        }
    };
    let tables = sources(&root.join("sg-userspace/tests/dataplane/cases"));
    for world in cases::worlds() {
        for case in world.cases {
            let literal = format!("\"{}\"", case.name);
            let mut files = tables.iter().filter(|(_, text)| text.contains(&literal));
            let (path, _) = files.next().expect("a case is written down");
            assert!(files.next().is_none(), "two cases are called {literal}");
            add(leading(case.name.split(' ')), path, case.name);
        }
    }
    for folder in ["sg-common", "sg-userspace"] {
        for part in ["src", "tests"] {
            for (path, text) in sources(&root.join(folder).join(part)) {
                for name in test_functions(&text) {
                    add(leading(name.split('_')), &path, name);
                }
            }
        }
    }
    for tests in found.values_mut() {
        tests.sort_unstable();
    }
    found
}

/// The last cell of a row: file by file, the tests.
fn proof(tests: &[(String, String)]) -> String {
    let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, name) in tests {
        let path = path.strip_prefix("sg-userspace/tests/").unwrap_or(path);
        files.entry(path).or_default().push(format!("`{name}`"));
    }
    let files = files
        .into_iter()
        .map(|(path, names)| format!("{path}: {}", names.join(", ")));
    files.collect::<Vec<_>>().join("; ")
}

#[test]
fn every_attack_has_a_row_and_every_row_its_tests() {
    let page = root().join("docs/attacks.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let tests = tests();
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &["", id, attack, ours, _, ""] = &cells[..] else {
            lines.push(line.to_owned());
            continue;
        };
        if id == "id" || id.starts_with('-') {
            lines.push(line.to_owned());
            continue;
        }
        assert!(!attack.is_empty() && !ours.is_empty(), "{line}");
        rows.push(id.to_owned());
        let tests = tests.get(id).map_or(&[][..], Vec::as_slice);
        assert!(
            tests.is_empty() == ours.contains(NO_TEST),
            "{id}: a row says {NO_TEST:?} and why if, and only if, no test is called after it"
        );
        lines.push(format!("| {id} | {attack} | {ours} | {} |", proof(tests)));
    }
    assert_eq!(rows, ids(), "rows, in order");
    let expected = lines.join("\n") + "\n";
    if env::var_os("SG_BLESS").is_some() {
        fs::write(&page, expected).expect("the page can be written");
    } else {
        assert!(
            text == expected,
            "docs/attacks.md names other tests than there are: SG_BLESS=1 writes it anew"
        );
    }
}
