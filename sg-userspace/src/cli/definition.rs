//! A definition as commands that enforce it need it: read, checked, complained about.

use std::path::PathBuf;

use anyhow::bail;
use sg_userspace::{
    definition::{self, Checked, Format, Lints, Severity, Source, SourceError, render, source},
    devices::devices,
    model::Model,
    session::Context,
    trust::{Owners, Trust},
};

use super::text::remark;

/// Prints what is wrong with a definition.
///
/// # Errors
/// A definition with errors.
pub(crate) fn checked(checked: Checked) -> anyhow::Result<Model> {
    remark(&render(&checked.diagnostics));
    let errors = definition::count(&checked.diagnostics, Severity::Error);
    match checked.model {
        Some(model) => Ok(model),
        None if errors == 1 => bail!("the definition has an error; nothing was changed"),
        None => bail!("the definition has {errors} errors; nothing was changed"),
    }
}

/// The files of a definition.
#[derive(clap::Args)]
pub(crate) struct Files {
    /// Definition files, or directories of them; all together are one definition. TOML, and what other
    /// tools write: JSON of the AWS CLI, Terraform files and `terraform show -json`, templates of
    /// CloudFormation, JSON of OpenStack
    #[arg(required = true, value_name = "FILE")]
    pub(crate) paths: Vec<PathBuf>,
    /// What the files are written in [default: each by its content]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub(crate) format: Option<Format>,
}

impl Files {
    /// Reads them, whoever could have written them.
    pub(crate) fn read(&self) -> Result<Vec<Source>, SourceError> {
        self.read_trusted(&Trust::Everybody)
    }

    pub(crate) fn read_trusted(&self, trust: &Trust) -> Result<Vec<Source>, SourceError> {
        source::read_trusted(&self.paths, trust, self.format)
    }
}

fn format(name: &str) -> Result<Format, String> {
    let found = Format::ALL.into_iter().find(|format| format.name() == name);
    found.ok_or_else(|| {
        let names = Format::ALL.map(Format::name);
        format!("known are {}", names.join(", "))
    })
}

/// Checks sources with the devices of the namespace that interfaces are in by default.
pub(crate) fn check(sources: &[Source], context: &Context) -> Checked {
    definition::check_on(sources, &|| devices(context.netns.as_deref()))
}

/// The same, and what is no mistake but perhaps not meant.
pub(crate) fn examine(sources: &[Source], context: &Context, lints: &Lints) -> Checked {
    definition::examine(sources, &|| devices(context.netns.as_deref()), Some(lints))
}

/// Which files may say what is enforced.
#[derive(clap::Args)]
pub(crate) struct TrustFiles {
    /// Take definition files that others than root, or the user behind sudo, could have written or put
    /// there: whoever can decides what is enforced
    #[arg(long = "trust-files")]
    everybody: bool,
}

impl TrustFiles {
    pub(crate) fn trust(&self) -> Trust {
        if self.everybody {
            return Trust::Everybody;
        }
        Trust::Owners(Owners::of_this_process().with_user_behind_sudo())
    }
}

/// Has memory that is freed stay with the process, for commands that read a definition and end: what one
/// step over a large one frees the next one takes, and to give it back and fetch it again costs a page
/// fault per page.
pub(super) fn keep_memory() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: sets a number of the allocator's, and no other thread runs.
        unsafe { libc::mallopt(parameter, i32::MAX) };
    }
}
