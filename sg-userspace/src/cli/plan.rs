//! `sgctl plan`: what a definition would change.

use std::{
    io::{self, BufWriter, Write as _},
    mem::ManuallyDrop,
    process::ExitCode,
};

use sg_userspace::{
    definition::render,
    plan::{self, PlanError},
    session::Context,
};

use super::{
    check, is_broken_pipe,
    text::{json_out, out, remark},
};

mod print;

/// Say what applying a definition would change, without changing anything.
///
/// Compares the files, which together are the whole definition of this host, with what is in force: as
/// interfaces, groups, rules and members; as access, interface by interface: exactly which packets of new flows
/// from or to exactly which peers pass that did not, or pass no more; as tracked flows that would be cut, stay
/// without a rule, or be tracked no more; and as maps that fill.
///
/// Access is what the rules of all groups of an interface add up to: a rule that goes while another allows the
/// same changes nothing, and that is said. Every set comes with one packet of it, of which all rules before
/// and after are asked one by one. What passes whatever the rules say is not part of it.
///
/// Interfaces whose devices are not there yet are planned as what they would get. Reads only, and needs no
/// lock: an agent may run meanwhile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl plan sg.toml
  sgctl plan --detailed-exitcode /etc/sgctl/ >/dev/null; echo $?
  sgctl plan --json sg.toml | jq '.access[] | select(.loses != [])'

Exit status: 0 there is a plan, which may be that nothing changes; 2 there is none, because the definition has
errors or does not fit, or what is in force cannot be read. With --detailed-exitcode: 0 nothing changes;
1 there is no plan; 2 something changes.")]
pub(crate) struct Plan {
    #[command(flatten)]
    files: super::definition::Files,
    /// Plan `apply --detach-missing`: attached interfaces that the definition no longer names are opened
    #[arg(long)]
    detach_missing: bool,
    /// Answer by exit status whether anything changes, as Terraform does
    #[arg(long)]
    detailed_exitcode: bool,
    /// Print everything as JSON; else long lists are cut short
    #[arg(long)]
    json: bool,
}

/// What there is to say, and what to answer if nobody wants to read it.
enum Answer {
    Refused,
    Planned { changes: bool },
}

impl Plan {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        match self.answer(context) {
            Ok(answer) => Ok(self.code(&answer)),
            Err(error) if self.detailed_exitcode => {
                remark(&format!("sgctl: {error:#}\n"));
                Ok(self.code(&Answer::Refused))
            }
            Err(error) => Err(error),
        }
    }

    fn code(&self, answer: &Answer) -> ExitCode {
        match (answer, self.detailed_exitcode) {
            (Answer::Refused, false) | (Answer::Planned { changes: true }, true) => {
                ExitCode::from(2)
            }
            (Answer::Refused, true) => ExitCode::from(1),
            (Answer::Planned { .. }, _) => ExitCode::SUCCESS,
        }
    }

    fn answer(&self, context: &Context) -> anyhow::Result<Answer> {
        super::definition::keep_memory();
        let sources = self.files.read()?;
        let checked = super::definition::check(&sources, context);
        let Some(model) = checked.model else {
            return self.refused(check::refuse(checked.diagnostics, sources.len(), self.json));
        };
        // The process ends after this: taking a large definition apart again would be for nobody.
        let model = ManuallyDrop::new(model);
        let plan = match plan::plan(context, &model, self.detach_missing) {
            Err(PlanError::Compile(error)) => {
                let mut diagnostics = checked.diagnostics;
                diagnostics.push(check::does_not_fit(&error, &model, &sources));
                return self.refused(check::refuse(diagnostics, sources.len(), self.json));
            }
            plan => ManuallyDrop::new(plan?),
        };
        remark(&render(&checked.diagnostics));
        let answer = Answer::Planned {
            changes: plan.changes,
        };
        let mut out = BufWriter::new(if self.json { json_out() } else { out() });
        let printed = if self.json {
            serde_json::to_writer_pretty(&mut out, &*plan)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            print::print(&mut out, &plan)
        };
        self.unless_unread(printed.and_then(|()| out.flush()), answer)
    }

    fn refused(&self, printed: io::Result<()>) -> anyhow::Result<Answer> {
        self.unless_unread(printed, Answer::Refused)
    }

    /// The answer is the same if nobody reads what is printed.
    fn unless_unread(&self, printed: io::Result<()>, answer: Answer) -> anyhow::Result<Answer> {
        match printed.map_err(anyhow::Error::from) {
            Err(error) if !is_broken_pipe(&error) => Err(error),
            _ => Ok(answer),
        }
    }
}
