//! `sgctl apply`: a definition into force.

use std::{mem::ManuallyDrop, process::ExitCode};

use sg_userspace::{history::Origin, session::Context};

use super::{change::Change, definition};

/// Enforce a definition and return.
///
/// The files together are the whole definition of this host. It comes into force as a whole or not
/// at all: no packet is judged by a mixture of old and new rules. Enforcement lasts until `sgctl
/// detach` or a reboot; no process needs to run.
///
/// Connections that are tracked stay open, but for those that no rule allows any more where a group
/// says `on_revoke = "reevaluate"`. One that was untracked before the change is taken over by its
/// first packet after it, if a rule still lets its opener open it. One that stays silent until the
/// next change is not: its TCP is dropped as `mid_stream`.
///
/// What would cut the connection that the command is given over, or keep it from being opened again,
/// is asked about first, and refused where nobody can be asked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl apply sg.toml                   enforce one file
  sgctl apply /etc/sgctl/               every definition file in a directory
  sgctl --netns blue apply blue.toml    interfaces of namespace blue
  sgctl apply --detach-missing sg.toml  stop enforcing on interfaces the file dropped
  sgctl apply sg.toml --confirm-within 60s
                                        back to what was before, unless `sgctl confirm` comes

While a generation waits to be confirmed, everything else that would change something is refused.
When it is taken back, what was in force before it is in force again, as a new generation; on an
interface that was not enforced before, everything passes again, counted as `unconfirmed`.

Exit status: 0 in force as written; 2 not in force, or in force while an interface that the
definition no longer names keeps its last policy.")]
pub(crate) struct Apply {
    #[command(flatten)]
    files: definition::Files,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    trust: definition::TrustFiles,
}

impl Apply {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        definition::keep_memory();
        let sources = self.files.read_trusted(&self.trust.trust())?;
        // The process ends after this: taking a large definition apart again would be for nobody.
        let model = ManuallyDrop::new(definition::checked(definition::check(&sources, context))?);
        let origin = Origin {
            sources: &sources,
            how: "apply",
            netns: context.netns.as_deref(),
        };
        self.change.make(context, &model, &origin)
    }
}
