//! Cases that voices once disagreed about, kept in `cases` as [`text`](super::text).

use std::{fs, path::Path};

use sg_oracle::random::Case;

use super::text;

/// All of them, with the names of their files.
pub(crate) fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/voices/cases");
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut cases: Vec<(String, Case)> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "case"))
        .map(|path| {
            let case = text::read(&fs::read_to_string(&path).unwrap());
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                case,
            )
        })
        .collect();
    cases.sort_by(|one, other| one.0.cmp(&other.0));
    cases
}
