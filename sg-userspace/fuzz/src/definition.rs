//! Any bytes as the files of a definition: no panic, every diagnostic within its file, and what is
//! valid compiles or names the limit that it exceeds.

use std::collections::BTreeMap;

use sg_userspace::{
    compile::compile,
    definition::{
        self, Checked, Diagnostic, Severity, Source,
        diagnostic::{Place, render},
        escape_json,
    },
    resolve::{Resolved, resolve},
};

/// Stands between files.
pub(super) const SEPARATOR: u8 = 0xff;

/// Splits the input at [`SEPARATOR`], which is in no UTF-8 text, but for the first two: those it
/// makes text that is none.
pub fn run(input: &[u8]) {
    let sources: Vec<Source> = input
        .split(|byte| *byte == SEPARATOR)
        .take(4)
        .enumerate()
        .map(|(number, bytes)| Source::new(&format!("{number}.toml"), bytes.to_vec()))
        .collect();
    holds(&sources, definition::check(&sources));
}

/// What is true of every definition.
pub(super) fn holds(sources: &[Source], checked: Checked) {
    let failed = |one: &Diagnostic| one.severity == Severity::Error;
    assert_eq!(
        checked.model.is_none(),
        checked.diagnostics.iter().any(failed),
        "a model, or an error that says why not"
    );
    for diagnostic in &checked.diagnostics {
        assert!(!diagnostic.message.is_empty());
        let places = diagnostic.place.iter();
        let related = diagnostic.related.iter().map(|related| &related.place);
        for place in places.chain(related) {
            stands_in_its_file(place, sources);
        }
    }
    is_printable(&render(&checked.diagnostics));
    let json = serde_json::to_string(&checked.diagnostics).expect("diagnostics are data");
    is_printable(&escape_json(&json));
    if let Some(model) = checked.model {
        survives(&resolve(&model, &BTreeMap::new()));
    }
}

fn stands_in_its_file(place: &Place, sources: &[Source]) {
    let source = sources
        .iter()
        .find(|source| *source.name == *place.file)
        .expect("a file of the definition");
    let line = source.text.split('\n').nth(place.line - 1);
    let line = line.expect("a line of the file");
    let length = line.strip_suffix('\r').unwrap_or(line).chars().count();
    assert!(place.column >= 1 && place.width >= 1, "{place:?}");
    assert!(place.column <= length + 1, "{place:?}");
    // At the end of a line the caret stands behind it.
    assert!(place.column + place.width <= length + 2, "{place:?}");
}

/// Nothing moves the cursor of a terminal but the ends of lines.
fn is_printable(text: &str) {
    let moves = |character: &char| character.is_control() && *character != '\n';
    assert_eq!(text.chars().find(moves), None);
}

/// What is valid can be kept in the state file and compiles the same afterwards.
fn survives(resolved: &Resolved) {
    let text = serde_json::to_string(resolved).expect("a policy is data");
    let read: Resolved = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(&read, resolved);
    match (compile(resolved), compile(&read)) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            assert!(!one.to_string().is_empty());
        }
        (one, other) => panic!("{one:?}, then {other:?}"),
    }
}
