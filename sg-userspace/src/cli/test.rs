//! `sgctl test`: whether the rules do what the tests beside them expect.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use sg_userspace::definition::{Outcome, Severity, render};
use sg_userspace::session::Context;

use super::definition::{self, Files};
use super::text::{out, print_json, remark};

/// Run the tests of a definition, on the model and not on the kernel.
///
/// A TOML file beside rules of any kind may say who is to reach whom: `tests = [{ from = "group:alb",
/// to = "group:app", protocol = "tcp", port = 8080, expect = "allow" }]`. `apply` and `run` take no
/// definition of which a test fails.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl test sg.toml
  sgctl test main.tf tests.toml        rules of one kind, tests beside them
  sgctl test --json /etc/sgctl | jq '.tests[] | select(.passed | not)'

A side is \"group:NAME\" (every interface that carries the group, and its members elsewhere),
\"interface:NAME\", \"prefix_list:NAME\", an address, a prefix (every address in it), or \"internet\"
(public addresses that nothing in the definition singles out). Both IP families are asked unless
`family` says which one; `expect = \"allow\"` holds if every such packet passes, \"deny\" if none does.

Exit status: 0 all pass; 1 some fail; 2 the definition has other errors.")]
pub(crate) struct Test {
    #[command(flatten)]
    files: Files,
    /// Print the outcomes as JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'o> {
    passed: usize,
    failed: usize,
    tests: &'o [Outcome],
}

impl Test {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        definition::keep_memory();
        let sources = self.files.read()?;
        let mut checked = definition::check(&sources, context);
        checked
            .diagnostics
            .retain(|found| found.severity == Severity::Error && found.code != "test-failed");
        if !checked.diagnostics.is_empty() {
            remark(&render(&checked.diagnostics));
            bail!("the definition has errors; no test was run");
        }
        let failed = checked.tests.iter().filter(|test| !test.passed).count();
        let report = Report {
            passed: checked.tests.len() - failed,
            failed,
            tests: &checked.tests,
        };
        if self.json {
            print_json(&report)?;
        } else {
            report.print()?;
        }
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    }
}

impl Report<'_> {
    fn print(&self) -> std::io::Result<()> {
        let mut out = out();
        for test in self.tests {
            if test.passed {
                writeln!(out, "ok      {}", test.test)?;
            } else {
                writeln!(out, "FAILED  {}", test.test)?;
                writeln!(out, "        {}:{}: {}", test.file, test.line, test.because)?;
            }
        }
        writeln!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}
