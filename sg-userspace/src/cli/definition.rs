//! A definition as commands that enforce it need it: read, checked, complained about.

use anyhow::bail;
use sg_userspace::{
    definition::{self, Checked, Severity, render},
    model::Model,
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
