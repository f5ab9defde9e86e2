//! `sgctl check` on good and bad definitions: what it prints and answers, compared with a file.
//!
//! Each `*.toml` and each directory in `tests/definition` is one case, as is each file and directory in those
//! there that are named after a kind of file, and the `*.txt` of its name what is expected. `SG_BLESS=1` writes the files anew. A case whose name ends in `-json` is run
//! with `--json`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use sg_userspace::definition::Format;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definition")
}

/// Exit code, standard output and standard error of `sgctl check`.
fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sgctl"))
        .arg("check")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("sgctl starts");
    let text = |bytes| String::from_utf8(bytes).expect("sgctl prints text");
    let code = output.status.code().expect("sgctl ends by itself");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    format!("exit {code}\n--- stdout\n{stdout}--- stderr\n{stderr}")
}

/// The cases, as paths in the directory.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    for path in entries(&directory()) {
        let kind = path.file_name().and_then(|name| name.to_str());
        if Format::ALL.iter().any(|format| kind == Some(format.name())) {
            let is_answer = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "txt");
            names.extend(entries(&path).into_iter().filter(|path| !is_answer(path)));
        } else if path.is_dir() || path.extension().is_some_and(|kind| kind == "toml") {
            names.push(path);
        }
    }
    let name = |path: PathBuf| {
        let path = path.strip_prefix(directory()).expect("cases are in it");
        path.to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = names.into_iter().map(name).collect();
    names.sort_unstable();
    names
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the cases are there");
    let path = |entry: std::io::Result<fs::DirEntry>| entry.expect("cases can be listed").path();
    entries.map(path).collect()
}

/// The name of a case without the ending of its file.
fn stem(name: &str) -> String {
    let path = Path::new(name);
    match directory().join(path).is_dir() {
        true => name.into(),
        false => path.with_extension("").to_string_lossy().into_owned(),
    }
}

#[test]
fn answers_are_as_expected() {
    let bless = env::var_os("SG_BLESS").is_some();
    let mut differing = Vec::new();
    let names = names();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        let stem = stem(&name);
        let mut arguments = vec![name.as_str()];
        if stem.ends_with("-json") {
            arguments.push("--json");
        }
        let found = run(&directory(), &arguments);
        let file = directory().join(format!("{stem}.txt"));
        if bless {
            fs::write(&file, &found).expect("the expected answer can be written");
        } else if fs::read_to_string(&file).unwrap_or_default() != found {
            differing.push(format!("{name}:\n{found}"));
        }
    }
    assert!(
        differing.is_empty(),
        "not as in the *.txt beside it (SG_BLESS=1 takes it over):\n{}",
        differing.join("\n")
    );
}

#[test]
fn every_expected_answer_has_its_case() {
    let mut stems: Vec<String> = names().iter().map(|name| stem(name)).collect();
    let count = stems.len();
    stems.dedup();
    assert_eq!(stems.len(), count, "two cases have one answer: {stems:?}");
    let kinds = Format::ALL.map(|format| directory().join(format.name()));
    let kinds = kinds.iter().filter(|kind| kind.is_dir());
    for path in kinds
        .chain([&directory()])
        .flat_map(|directory| entries(directory))
    {
        if path.extension().is_some_and(|kind| kind == "txt") {
            let path = path.with_extension("");
            let own = path.strip_prefix(directory()).expect("cases are in it");
            let own = own.to_string_lossy();
            assert!(
                stems.iter().any(|stem| *stem == own),
                "{own}.txt belongs to nothing"
            );
        }
    }
}

#[test]
fn examples_are_without_fault() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in fs::read_dir(&examples).expect("examples are there") {
        let path = entry.expect("examples can be listed").path();
        let answer = run(&examples, &[&path.to_string_lossy()]);
        assert!(
            answer.starts_with("exit 0\n"),
            "{}: {answer}",
            path.display()
        );
        // The tutorial has what is warned of, to show it.
        let quiet = path.is_file();
        assert!(
            !quiet || answer.ends_with("--- stderr\n"),
            "{}: {answer}",
            path.display()
        );
    }
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_wrong() {
    let answer = run(&directory(), &["no-such-file.toml"]);
    assert!(answer.starts_with("exit 2\n"), "{answer}");
    assert!(
        answer.contains("no-such-file.toml: No such file or directory"),
        "{answer}"
    );
}

#[test]
fn the_answer_is_the_same_if_nobody_reads_what_is_wrong() {
    for (command, code) in [("check", 1), ("apply", 2)] {
        let (_, unread) = std::io::pipe().unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_sgctl"))
            .args([command, "unknown-keys.toml"])
            .current_dir(directory())
            .stderr(unread)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{command}");
    }
}

#[test]
fn l9_what_does_not_fit_is_pointed_at() {
    let rule = |host: u32| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + host);
        format!("  {{ protocol = \"tcp\", ports = 80, cidr = \"{address}/32\" }},\n")
    };
    let rules: String = (0..131_072).map(rule).collect();
    let text = format!(
        "[groups.g]\negress = []\ningress = [\n{rules}]\n[interfaces.i]\ngroups = [\"g\"]\n"
    );
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::write(directory.join("capacity.toml"), text).expect("the case can be written");
    let answer = run(directory, &["capacity.toml"]);
    assert!(answer.starts_with("exit 1\n"), "{answer}");
    assert!(
        answer.contains("error[capacity]: IPv4 ingress of interface `i` does not fit at rule sgr-"),
        "{answer}"
    );
    assert!(answer.contains(": more than 131071 classes"), "{answer}");
    assert!(answer.contains("--> capacity.toml:131075:3\n"), "{answer}");
}

/// Writes a case and answers with what `sgctl check` says of it, which takes no longer than `seconds`.
fn answer_within(seconds: u64, name: &str, content: &[u8]) -> String {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::write(directory.join(name), content).expect("the case can be written");
    let start = Instant::now();
    let answer = run(directory, &[name]);
    let took = start.elapsed();
    fs::remove_file(directory.join(name)).expect("the case can be removed");
    assert!(took < Duration::from_secs(seconds), "{name}: {took:?}");
    assert!(answer.len() < 1 << 20, "{name}: {} bytes", answer.len());
    answer
}

#[test]
fn a_million_errors_are_counted_and_a_thousand_shown() {
    let text: String = (0..1_000_000).map(|n| format!("k{n} = =\n")).collect();
    let answer = answer_within(60, "errors.toml", text.as_bytes());
    assert!(answer.starts_with("exit 1\n"));
    assert_eq!(answer.matches("error[syntax]").count(), 1000);
    assert!(
        answer.ends_with(
            "error[not-shown]: 999000 more errors not shown\n\n1 file: 1000000 errors\n"
        )
    );
}

#[test]
fn warnings_do_not_hide_an_error() {
    let same = "{ protocol = \"tcp\", ports = 80, cidr = \"10.0.0.0/8\" },\n".repeat(3000);
    let text = format!("[groups.g]\negress = []\ningress = [\n{same}{{ protocol = \"all\" }}]\n");
    let answer = answer_within(60, "warnings.toml", text.as_bytes());
    assert_eq!(answer.matches("warning[").count(), 1001);
    assert!(answer.contains("warning[not-shown]: 2000 more warnings not shown"));
    assert!(answer.contains("error[missing-key]: the rule has no peer\n"));
    assert!(answer.contains("--> warnings.toml:3004:1\n"));
    assert!(answer.ends_with("1 file: 1 error, 3000 warnings\n"));
}

#[test]
fn unknown_names_are_not_compared_without_end() {
    let groups: String = (0..100_000)
        .map(|n| format!("[groups.group{n}]\negress = []\ningress = [{{ protocol = \"all\", group = \"group-{n}\" }}]\n"))
        .collect();
    let answer = answer_within(120, "unknown.toml", groups.as_bytes());
    assert!(answer.contains("1 file: ok, 100001 warnings"));
    assert!(answer.contains("did you mean"));
}

#[test]
fn l13_nesting_without_end_is_an_error() {
    for (name, text) in [
        ("arrays.toml", format!("x = {}", "[".repeat(1_000_000))),
        ("tables.toml", format!("x = {}", "{ a = ".repeat(1_000_000))),
        ("keys.toml", format!("{}b = 1", "a.".repeat(1_000_000))),
    ] {
        let answer = answer_within(60, name, text.as_bytes());
        assert!(answer.starts_with("exit 1\n"), "{name}: {answer}");
        assert!(answer.contains("error[syntax]"), "{name}: {answer}");
    }
}

#[test]
fn documents_without_end_are_an_error() {
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (name, text, found) in [
        ("open.json", "[{\"Entries\":".repeat(200_000), "EOF"),
        ("nested.json", nested, "nested deeper"),
        (
            "values.json",
            format!("[{}0]", "0,".repeat(4_000_000)),
            "more than 4000000 values",
        ),
    ] {
        let answer = answer_within(120, name, text.as_bytes());
        assert!(answer.starts_with("exit 1\n"), "{name}: {answer}");
        assert!(
            answer.contains("error[syntax]") && answer.contains(found),
            "{name}: {answer}"
        );
    }
}

#[test]
fn more_bytes_than_are_read_are_refused() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).expect("a directory can be made");
    for name in ["a.toml", "b.toml"] {
        let file = fs::File::create(directory.join(name)).expect("a file can be made");
        file.set_len(40 << 20).expect("a file can have a hole");
    }
    let answer = run(&directory, &["."]);
    assert!(answer.starts_with("exit 2\n"), "{answer}");
    assert!(answer.contains("b.toml does not fit"), "{answer}");
    assert!(answer.contains("67108864 bytes together"), "{answer}");
}

#[test]
fn what_may_never_end_is_not_read() {
    let fifo = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fifo.toml");
    let _ = fs::remove_file(&fifo);
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo starts").success());
    for (path, kind) in [
        (&*fifo.to_string_lossy(), "a FIFO"),
        ("/dev/zero", "a device"),
    ] {
        let answer = run(&directory(), &[path]);
        assert!(answer.starts_with("exit 2\n"), "{answer}");
        assert!(answer.contains(&format!("is {kind}")), "{answer}");
    }
}
