//! `sgctl check`: what is wrong with a definition, or what it amounts to.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use sg_common::abi::MAX_NODES;
use sg_userspace::compile::{Capacity, CompileError, Compiled, compile};
use sg_userspace::definition::diagnostic::Place;
use sg_userspace::definition::{self, Diagnostic, Lints, Severity, Source, codes, render};
use sg_userspace::model::{Model, Rule};
use sg_userspace::resolve::resolve;

use super::definition::Files;
use super::text::{json_out, out, print_json, remark};

mod sarif;

/// Arguments of `sgctl check`.
#[derive(clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    files: Files,
    /// Print the answer as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Print errors and findings as SARIF 2.1.0 on standard output
    #[arg(long, conflicts_with = "json")]
    sarif: bool,
    /// Make findings of this code errors; docs/findings.md lists the codes
    #[arg(long, value_name = "CODE", value_parser = code)]
    deny: Vec<&'static str>,
    /// Do not report findings of this code; errors are always reported
    #[arg(long, value_name = "CODE", value_parser = code)]
    allow: Vec<&'static str>,
    /// Ports that should not be open to the world [default: 22, 3389]
    #[arg(long = "management-port", value_name = "PORT")]
    management_ports: Vec<u16>,
}

/// A code that there is.
fn code(text: &str) -> Result<&'static str, String> {
    let found = codes::ALL.iter().find(|(code, _)| *code == text);
    found
        .map(|(code, _)| *code)
        .ok_or_else(|| "no such code: docs/findings.md lists them".to_owned())
}

impl Check {
    fn lints(&self) -> Lints {
        match self.management_ports.as_slice() {
            [] => Lints::default(),
            ports => Lints {
                management_ports: ports.to_vec(),
            },
        }
    }

    /// Drops what is allowed, and makes errors of what is denied.
    fn weigh(&self, diagnostics: &mut Vec<Diagnostic>) {
        diagnostics.retain_mut(|found| {
            if found.severity == Severity::Error {
                return true;
            }
            if self.deny.contains(&found.code) {
                found.severity = Severity::Error;
            }
            found.severity == Severity::Error || !self.allow.contains(&found.code)
        });
    }
}

/// Checks a definition without touching the system. Answers 1 if it has errors.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn run(check: &Check, context: &super::Context) -> anyhow::Result<ExitCode> {
    super::definition::keep_memory();
    let sources = check.files.read()?;
    let checked = super::definition::examine(&sources, context, &check.lints());
    let mut diagnostics = checked.diagnostics;
    let mut summary = None;
    if let Some(model) = &checked.model {
        // Addresses that are read from devices do not change what fits.
        match compile(&resolve(model, &BTreeMap::new())) {
            Ok(compiled) => summary = Some(Summary::new(model, &compiled)),
            Err(error) => diagnostics.push(does_not_fit(&error, model, &sources)),
        }
    }
    check.weigh(&mut diagnostics);
    let report = Report::new(summary, diagnostics);
    let shown = if check.sarif {
        print_json(&sarif::Log::new(&report.diagnostics)).map_err(io::Error::other)
    } else if check.json {
        report.print_json()
    } else {
        report.print_text(sources.len())
    };
    shown.context("cannot print the answer")?;
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Prints what is wrong with a definition, which another command then does not take.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn refuse(diagnostics: Vec<Diagnostic>, files: usize, json: bool) -> io::Result<()> {
    let report = Report::new(None, diagnostics);
    if json {
        report.print_json()
    } else {
        report.print_text(files)
    }
}

/// The answer; its shape is that of `--json`.
#[derive(Serialize)]
struct Report {
    ok: bool,
    errors: usize,
    warnings: usize,
    notes: usize,
    summary: Option<Summary>,
    diagnostics: Vec<Diagnostic>,
}

/// What a definition amounts to.
#[derive(Serialize)]
struct Summary {
    groups: usize,
    rules: usize,
    prefix_lists: usize,
    interfaces: usize,
    services: usize,
    allowance: u32,
    capacity: Vec<Used>,
}

/// How much of a table is used.
#[derive(Serialize)]
struct Used {
    table: &'static str,
    used: usize,
    limit: usize,
}

impl Report {
    fn new(summary: Option<Summary>, diagnostics: Vec<Diagnostic>) -> Self {
        let errors = definition::count(&diagnostics, Severity::Error);
        Self {
            ok: errors == 0,
            errors,
            warnings: definition::count(&diagnostics, Severity::Warning),
            notes: definition::count(&diagnostics, Severity::Note),
            summary: summary.filter(|_| errors == 0),
            diagnostics,
        }
    }

    fn print_json(&self) -> io::Result<()> {
        let mut out = json_out();
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)
    }

    fn print_text(&self, files: usize) -> io::Result<()> {
        remark(&render(&self.diagnostics));
        let files = plural(files, "file");
        let some = |count, noun| match count {
            0 => String::new(),
            count => format!(", {}", plural(count, noun)),
        };
        let warnings = some(self.warnings, "warning") + &some(self.notes, "note");
        match &self.summary {
            Some(summary) => {
                let mut out = out();
                writeln!(out, "{files}: ok{warnings}")?;
                summary.print(&mut out)
            }
            None => {
                let errors = plural(self.errors, "error");
                remark(&format!("{files}: {errors}{warnings}\n"));
                Ok(())
            }
        }
    }
}

impl Summary {
    fn new(model: &Model, compiled: &Compiled) -> Self {
        let used = |table, used, capacity: Capacity| Used {
            table,
            used,
            limit: capacity.limit(),
        };
        Self {
            groups: model.groups.len(),
            rules: model.rule_count(),
            prefix_lists: model.prefix_lists.len(),
            interfaces: model.interfaces.len(),
            services: model.services.len(),
            allowance: model.conntrack.allowance,
            capacity: vec![
                Used {
                    table: "interfaces",
                    used: compiled.interfaces.len(),
                    limit: Capacity::INTERFACES,
                },
                used("classes", compiled.classes.len() - 1, Capacity::Classes),
                used("port ranges", compiled.ranges.len(), Capacity::Ranges),
                Used {
                    table: "tree nodes",
                    used: compiled.nodes.len(),
                    limit: MAX_NODES as usize,
                },
                used("IPv4 tries", compiled.tries4.len(), Capacity::Tries),
                used("IPv6 tries", compiled.tries6.len(), Capacity::Tries),
            ],
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for (name, count) in [
            ("groups", self.groups),
            ("rules", self.rules),
            ("prefix lists", self.prefix_lists),
            ("interfaces", self.interfaces),
            ("services", self.services),
            ("allowance", self.allowance as usize),
        ] {
            writeln!(out, "  {name:<14} {count}")?;
        }
        writeln!(out, "capacity used")?;
        for Used { table, used, limit } in &self.capacity {
            writeln!(out, "  {table:<14} {used} of {limit}")?;
        }
        Ok(())
    }
}

/// A full table, pointed at the rule that did not fit where that is known.
pub(super) fn does_not_fit(error: &CompileError, model: &Model, sources: &[Source]) -> Diagnostic {
    let place = error.rule().and_then(|id| {
        let mut groups = model.groups.values();
        let rule: &Rule = groups.find_map(|group| {
            let mut rules = group.ingress.iter().chain(&group.egress);
            rules.find(|rule| rule.id == id)
        })?;
        let origin = rule.origin.as_ref()?;
        let source = sources.iter().find(|source| source.name == origin.file)?;
        let line = source.line(origin.line as usize)?;
        Some(Place::new(source, line.start, line.end))
    });
    Diagnostic {
        severity: Severity::Error,
        code: "capacity",
        message: error.to_string(),
        help: None,
        place,
        related: None,
        stands_for: 1,
    }
}

fn plural(count: usize, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}
