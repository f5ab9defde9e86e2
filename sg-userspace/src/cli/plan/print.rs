//! A plan for people: every section short, every line without control characters.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write},
};

use sg_userspace::{
    definition::escape,
    model::OnRevoke,
    plan::{
        Access, Change, Effect, Example, InterfaceChange, InterfaceFate, InterfaceFlows, Peers,
        Plan, Reach, RuleChange, RuleText, Setting,
    },
};

use crate::cli::text::count;

/// Entries of a section; the others are counted.
const ENTRIES: usize = 25;
/// Sets of packets that one interface gains, or loses.
const SETS: usize = 10;
/// Ranges of addresses, or of ports, of a line.
const RANGES: usize = 8;
/// Names of a line.
const NAMES: usize = 5;

/// Lines on their way out.
struct Lines<'a, W: Write> {
    out: &'a mut W,
    section: Option<&'static str>,
}

impl<W: Write> Lines<'_, W> {
    /// Begins a section, which is shown as soon as it has a line.
    fn section(&mut self, title: &'static str) {
        self.section = Some(title);
    }

    fn line(&mut self, text: impl Display) -> io::Result<()> {
        if let Some(title) = self.section.take() {
            writeln!(self.out, "\n{title}")?;
        }
        writeln!(self.out, "{}", escape(&text.to_string()))
    }

    /// Prints the first entries of a section, and says how many more there are.
    fn some<T>(
        &mut self,
        all: &[T],
        noun: &str,
        each: impl FnMut(&mut Self, &T) -> io::Result<()>,
    ) -> io::Result<()> {
        self.first(ENTRIES, all, noun, each)
    }

    /// Prints the first of many, and says how many more there are.
    fn first<T>(
        &mut self,
        limit: usize,
        all: &[T],
        noun: &str,
        mut each: impl FnMut(&mut Self, &T) -> io::Result<()>,
    ) -> io::Result<()> {
        for one in all.iter().take(limit) {
            each(self, one)?;
        }
        match all.len().saturating_sub(limit) {
            0 => Ok(()),
            more => self.line(format!(
                "  … {} more (--json has all)",
                count(more as u64, noun)
            )),
        }
    }
}

/// Prints a plan.
///
/// # Errors
/// It cannot be written.
pub(super) fn print(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let mut lines = Lines { out, section: None };
    let lines = &mut lines;
    match (plan.generation, plan.changes) {
        (None, _) => lines.line("nothing is in force: everything is new")?,
        (Some(generation), true) => {
            lines.line(format!(
                "compared with generation {generation}, which is in force"
            ))?;
        }
        (Some(generation), false) => {
            lines.line(format!("nothing changes: generation {generation}, which is in force, is what the definition says"))?;
        }
    }
    for warning in &plan.warnings {
        lines.line(format!("warning: {warning}"))?;
    }
    definition(lines, plan)?;
    lines.section("access of new flows");
    lines.some(&plan.access, "change", access)?;
    lines.section("flows, when their next packet comes");
    let moving: Vec<String> = plan.flows.interfaces.iter().filter_map(flows).collect();
    lines.some(&moving, "interface", |lines, text| lines.line(text))?;
    if plan.changes {
        capacity(lines, plan)?;
    }
    Ok(())
}

/// What changes in words of the definition.
fn definition<W: Write>(lines: &mut Lines<'_, W>, plan: &Plan) -> io::Result<()> {
    lines.section("host");
    lines.some(&plan.host, "setting", |lines, one| {
        lines.line(format!("  ~ {}", setting(one)))
    })?;
    lines.section("interfaces");
    lines.some(&plan.interfaces, "interface", interface)?;
    lines.section("groups");
    lines.some(&plan.groups, "group", |lines, one| {
        let says = |on_revoke: Option<OnRevoke>| match on_revoke {
            Some(OnRevoke::Reevaluate) => "reevaluate",
            _ => "keep",
        };
        let (before, after) = (says(one.on_revoke_before), says(one.on_revoke_after));
        lines.line(match one.change {
            Change::Changed => format!("  ~ {}: on_revoke {before} → {after}", one.group),
            change => format!("  {} {}", sign(change), one.group),
        })
    })?;
    lines.section("rules");
    lines.some(&plan.rules, "rule", rule)?;
    lines.section("prefix lists");
    lines.some(&plan.prefix_lists, "list", |lines, one| {
        for (sign, entries) in [("+", &one.added), ("-", &one.removed)] {
            if !entries.is_empty() {
                let entries = listed(entries.iter(), entries.len(), RANGES);
                lines.line(format!("  {sign} {}: {entries}", one.name))?;
            }
        }
        Ok(())
    })?;
    lines.section("members");
    lines.some(&plan.members, "group", |lines, one| {
        for (sign, [v4, v6], number) in [
            ("+", &one.joined, one.joined_count),
            ("-", &one.left, one.left_count),
        ] {
            if number > 0 {
                let spans = v4.spans().chain(v6.spans());
                let spans = listed(spans, v4.len() + v6.len(), RANGES);
                lines.line(format!(
                    "  {sign} {}: {} ({spans})",
                    one.group,
                    count(number as u64, "member")
                ))?;
            }
        }
        Ok(())
    })
}

fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    }
}

fn setting(setting: &Setting) -> String {
    format!("{} {} → {}", setting.key, setting.before, setting.after)
}

fn interface<W: Write>(lines: &mut Lines<'_, W>, one: &InterfaceChange) -> io::Result<()> {
    let called = format!("{} ({})", one.name, one.device);
    lines.line(match one.change {
        InterfaceFate::Attached => {
            format!("  + {called}: will be enforced; until then everything passes")
        }
        InterfaceFate::Updated => {
            let settings: Vec<String> = one.settings.iter().map(setting).collect();
            format!("  ~ {called}: {}", settings.join(", "))
        }
        InterfaceFate::Orphaned => format!(
            "  ! {called}: the definition does not name it; it keeps its last policy (--detach-missing opens it)"
        ),
        InterfaceFate::Detached => {
            format!("  - {called}: will not be enforced any more; everything passes from then on")
        }
        InterfaceFate::Gone => format!("  - {called}: its device or its links are gone; it is forgotten"),
    })?;
    match &one.absent {
        Some(why) => lines.line(format!("    {why}: planned as what it would get")),
        None => Ok(()),
    }
}

fn rule<W: Write>(lines: &mut Lines<'_, W>, one: &RuleChange) -> io::Result<()> {
    let (sign, place) = (
        sign(one.change),
        format!("{} {} {}", one.id, one.group, one.direction),
    );
    let text = |text: &RuleText| {
        let with = if one.direction == "ingress" {
            "from"
        } else {
            "to"
        };
        let kind = match text.peer {
            "cidr" => "",
            "prefix_list" => "list ",
            _ => "group ",
        };
        format!("{} {with} {kind}{}", text.traffic, text.of)
    };
    let said = match (&one.before, &one.after) {
        (Some(before), Some(after)) if text(before) == text(after) => {
            let words = |text: &RuleText| text.description.clone().unwrap_or_default();
            let (before, after) = (words(before), words(after));
            return lines.line(format!(
                "  ~ {place}: description \"{before}\" → \"{after}\""
            ));
        }
        (Some(before), Some(after)) => format!("{} → {}", text(before), text(after)),
        (Some(only), None) | (None, Some(only)) => text(only),
        (None, None) => String::new(),
    };
    let nobody = if one.change == Change::Added {
        "nobody gains access"
    } else {
        "nobody loses access"
    };
    let effect = match one.effect {
        Effect::Access | Effect::None => String::new(),
        Effect::Covered => format!("; {nobody}: other rules allow all of it"),
        Effect::NoInterface => format!("; {nobody}: no interface that is named carries the group"),
        Effect::NoPeer => format!("; {nobody}: it matches nobody"),
    };
    lines.line(format!("  {sign} {place}: {said}{effect}"))
}

fn access<W: Write>(lines: &mut Lines<'_, W>, one: &Access) -> io::Result<()> {
    let names = listed(one.interfaces.iter(), one.interfaces.len(), NAMES);
    lines.line(format!(
        "  {names}: {}, IPv{}",
        one.direction.name(),
        one.family
    ))?;
    let with = if one.direction.name() == "ingress" {
        "from"
    } else {
        "to"
    };
    for (sign, reaches) in [('+', &one.gains), ('-', &one.loses)] {
        lines.first(SETS, reaches, "set", |lines, reach| {
            lines.line(format!("    {sign} {}", reach_text(reach, with)))?;
            lines.line(format!("        {}", example(&reach.example, with)))
        })?;
    }
    Ok(())
}

fn reach_text(reach: &Reach, with: &str) -> String {
    let terms = reach.traffic.terms();
    let terms = listed(terms.iter(), terms.len(), RANGES);
    format!("{terms} {with} {}", peers(&reach.peers))
}

/// Ranges of addresses, or a prefix without what is missing of it, whichever is shorter.
fn peers(peers: &Peers) -> String {
    // A prefix is shorter than first and last address.
    let length = |peers: &Peers| -> usize {
        peers
            .spans()
            .map(|span| if span.is_prefix() { 1 } else { 2 })
            .sum()
    };
    if let Some((around, holes)) = peers.within()
        && !holes.is_empty()
        && 1 + length(&holes) < length(peers)
    {
        return format!(
            "{around} except {}",
            listed(holes.spans(), holes.len(), RANGES)
        );
    }
    listed(peers.spans(), peers.len(), RANGES)
}

fn example(example: &Example, with: &str) -> String {
    let rule = |id: Option<_>| id.map_or_else(|| "no rule".to_owned(), |id| format!("{id}"));
    let (before, after) = (rule(example.before), rule(example.after));
    format!(
        "for example {} {with} {}: {before} now, {after} then",
        example.traffic(),
        example.peer
    )
}

/// The first of many, separated by commas.
fn listed<T: Display>(all: impl Iterator<Item = T>, number: usize, limit: usize) -> String {
    let mut text = String::new();
    for (place, one) in all.take(limit).enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        write!(text, "{comma}{one}").expect("a String takes any text");
    }
    if let more @ 1.. = number.saturating_sub(limit) {
        write!(text, " and {more} more").expect("a String takes any text");
    }
    text
}

/// What becomes of an interface's flows, if anything does.
fn flows(one: &InterfaceFlows) -> Option<String> {
    let mut parts = Vec::new();
    let mut part = |number: u64, what: &str| {
        if number > 0 {
            parts.push(format!("{what}: {number}"));
        }
    };
    part(one.cut, "cut (on_revoke = \"reevaluate\")");
    part(
        one.stay_without_rule_newly,
        "staying though no rule allows them any more (on_revoke = \"keep\")",
    );
    part(
        one.stay_without_rule - one.stay_without_rule_newly,
        "staying though no rule allows them, as now",
    );
    part(one.become_untracked, "tracked no more");
    part(one.forgotten, "forgotten with the interface");
    if let Some(untracked) = one.untracked {
        part(untracked.become_tracked, "untracked now, tracked then");
        part(
            untracked.cut,
            "untracked now, ended then (no rule allows them)",
        );
    }
    part(
        one.adopted.unwrap_or_default(),
        "open connections adopted (unless --no-adopt)",
    );
    if parts.is_empty() && one.tracked == 0 {
        return None;
    }
    if parts.is_empty() {
        parts.push("all stay, by rule".into());
    }
    Some(format!(
        "  {}: {} tracked; {}",
        one.name,
        one.tracked,
        parts.join(", ")
    ))
}

fn capacity<W: Write>(lines: &mut Lines<'_, W>, plan: &Plan) -> io::Result<()> {
    lines.section("capacity");
    lines.line(format!(
        "  {:<12} {:<37} {:>9} {:>9} {:>9}",
        "map", "of", "now", "then", "limit"
    ))?;
    for used in &plan.capacity {
        let limit = used
            .limit
            .map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        lines.line(format!(
            "  {:<12} {:<37} {:>9} {:>9} {limit:>9}",
            used.map, used.what, used.before, used.after
        ))?;
    }
    Ok(())
}
