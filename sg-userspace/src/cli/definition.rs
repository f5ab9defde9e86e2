//! A definition as commands that enforce it need it: read, checked, complained about.

use std::path::PathBuf;

use anyhow::bail;
use sg_userspace::{
    definition::{self, Severity, render},
    model::Model,
};

use super::text::remark;

/// Reads the files that together are the whole definition, and prints what is wrong with them.
///
/// # Errors
/// A file that cannot be read, or a definition with errors.
pub(crate) fn load(files: &[PathBuf]) -> anyhow::Result<Model> {
    let checked = definition::load(files)?;
    remark(&render(&checked.diagnostics));
    let errors = definition::count(&checked.diagnostics, Severity::Error);
    match checked.model {
        Some(model) => Ok(model),
        None if errors == 1 => bail!("the definition has an error; nothing was changed"),
        None => bail!("the definition has {errors} errors; nothing was changed"),
    }
}
