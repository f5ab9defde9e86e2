//! From TOML files to a [`Model`]: parse, check everything, report everything.
//!
//! Files are read into [`Source`]s, parsed into a typed [`tree::Definition`] whose values know where
//! they stand, and linked into a [`Model`]. No step stops at the first error: what is wrong in all
//! files is reported together, by position, as [`Diagnostic`]s.

use std::path::PathBuf;

use crate::{model::Model, trust::Trust};

pub mod diagnostic;
pub mod source;
pub mod tree;

mod escape;
mod findings;
mod link;
mod parse;

pub use diagnostic::{Diagnostic, Severity, count, render};
pub use escape::{escape, escape_json};
pub use source::{Source, SourceError};

/// What became of a definition.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The model; `None` if there are errors.
    pub model: Option<Model>,
    /// Errors and warnings by file and position.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads and checks files that together are one definition. A directory stands for every `*.toml`
/// directly in it, sorted.
///
/// # Errors
/// A file that cannot be read. What is wrong inside a file is a diagnostic.
pub fn load(paths: &[PathBuf]) -> Result<Checked, SourceError> {
    Ok(check(&source::read(paths)?))
}

/// The same of files that are trusted.
///
/// # Errors
/// A file that cannot be read, or that others could have written.
pub fn load_trusted(paths: &[PathBuf], trust: &Trust) -> Result<Checked, SourceError> {
    Ok(check(&source::read_trusted(paths, trust)?))
}

/// Checks sources that together are one definition.
pub fn check(sources: &[Source]) -> Checked {
    let mut findings = findings::Findings::default();
    let definition = parse::parse(sources, &mut findings);
    let model = link::link(&definition, sources, &mut findings);
    let diagnostics = findings.into_diagnostics(sources);
    let failed = count(&diagnostics, Severity::Error) > 0;
    Checked {
        model: (!failed).then_some(model),
        diagnostics,
    }
}

#[cfg(test)]
mod tests;
