//! A definition as commands that enforce it need it: read, checked, complained about.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use sg_userspace::{
    definition::{self, Severity, render},
    model::Model,
};

/// Reads the files that together are the whole definition, and prints what is wrong with them.
///
/// # Errors
/// A file that cannot be read, or a definition with errors.
pub(crate) fn load(files: &[PathBuf]) -> anyhow::Result<Model> {
    let checked = definition::load(files)?;
    write!(io::stderr().lock(), "{}", render(&checked.diagnostics))
        .context("cannot print what is wrong")?;
    let errors = checked
        .diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .count();
    match checked.model {
        Some(model) => Ok(model),
        None if errors == 1 => bail!("the definition has an error; nothing was changed"),
        None => bail!("the definition has {errors} errors; nothing was changed"),
    }
}
