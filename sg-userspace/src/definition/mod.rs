//! From files to a [`Model`]: parse, check everything, report everything.
//!
//! Files are read into [`Source`]s, parsed by kind ([`Format`]) into a typed [`tree::Definition`] whose values know
//! where they stand, and linked into a [`Model`]. No step stops at the first error: what is wrong in all
//! files is reported together, by position, as [`Diagnostic`]s.

use std::path::PathBuf;

use crate::{model::Model, trust::Trust};

pub mod codes;
pub mod diagnostic;
pub mod source;
pub mod tree;

mod aws;
mod bind;
mod cloudformation;
mod document;
mod escape;
mod expectation;
mod findings;
mod format;
mod link;
mod lint;
mod names;
mod openstack;
mod parse;
mod permission;
mod read;
mod terraform;
mod text;

pub use bind::{Device, Devices};
pub use diagnostic::{Diagnostic, Severity, count, render};
pub use escape::{escape, escape_json};
pub use expectation::Outcome;
pub use format::Format;
pub use lint::Lints;
pub use source::{Source, SourceError};
pub use text::is_name;

/// What became of a definition.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The model; `None` if there are errors.
    pub model: Option<Model>,
    /// Errors and warnings by file and position.
    pub diagnostics: Vec<Diagnostic>,
    /// What became of `tests`; empty if there are other errors.
    pub tests: Vec<Outcome>,
}

/// Reads and checks files that together are one definition. A directory stands for every file
/// directly in it that may be one by the ending of its name, sorted.
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
    Ok(check(&source::read_trusted(paths, trust, None)?))
}

/// Checks sources that together are one definition, without a look at this host: interfaces that a file of a
/// cloud tells of are members of their groups, and enforced if `[interfaces.NAME]` names them by `id`.
pub fn check(sources: &[Source]) -> Checked {
    check_on(sources, &|| Ok(Vec::new()))
}

/// The same with the devices of this host, on which interfaces of other files are found.
pub fn check_on(sources: &[Source], devices: &Devices<'_>) -> Checked {
    examine(sources, devices, None)
}

/// The same, and what is no mistake but perhaps not meant, where `lints` say what to look for.
pub fn examine(sources: &[Source], devices: &Devices<'_>, lints: Option<&Lints>) -> Checked {
    let mut findings = findings::Findings::new(lints.is_some());
    let mut definition = read::read(sources, &mut findings);
    let mut ids = names::settle(&mut definition, &mut findings);
    bind::settle(&mut definition, devices, &mut ids, &mut findings);
    let model = link::link(&definition, ids, sources, &mut findings);
    let tests = match findings.has_errors() {
        true => Vec::new(),
        false => expectation::run(&definition, &model, sources, &mut findings),
    };
    if let Some(lints) = lints.filter(|_| !findings.has_errors()) {
        lints.look(&definition, &model, sources, &mut findings);
    }
    let diagnostics = findings.into_diagnostics(sources);
    let failed = count(&diagnostics, Severity::Error) > 0;
    Checked {
        model: (!failed).then_some(model),
        diagnostics,
        tests,
    }
}

#[cfg(test)]
mod tests;
