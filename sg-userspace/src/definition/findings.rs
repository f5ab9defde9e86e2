//! Diagnostics as they are found, before their places are looked up.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::codes;
use super::diagnostic::{Diagnostic, Locator, Related, Severity};
use super::source::Source;
use super::tree::At;

/// Errors that are kept, and warnings: nobody reads more, and a file can hold millions.
pub(super) const KEPT: usize = 1000;

/// All that was found so far.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    /// Whether notes are wanted.
    notes: bool,
    /// Errors and warnings that were found.
    found: [usize; 3],
    /// What was found last, if it is not kept.
    surplus: Option<Finding>,
    /// Where that and its like stand.
    not_kept: Vec<(Severity, &'static str, At)>,
    /// Lines that are not TOML: what else they seem to say is not to be trusted.
    broken: Vec<Broken>,
}

/// Lines of a file.
struct Broken {
    file: u32,
    lines: RangeInclusive<usize>,
}

/// One thing found.
pub(super) struct Finding {
    severity: Severity,
    code: &'static str,
    at: At,
    message: String,
    help: Option<String>,
    related: Option<(At, String)>,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, at: At, message: String) -> Self {
        Self {
            severity,
            code,
            at,
            message,
            help: None,
            related: None,
        }
    }

    /// Says what to do.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Names a second place.
    pub(super) fn related(&mut self, at: At, message: impl Into<String>) -> &mut Self {
        self.related = Some((at, message.into()));
        self
    }
}

impl Findings {
    /// With notes, or without.
    pub(super) fn new(notes: bool) -> Self {
        Self {
            notes,
            ..Self::default()
        }
    }

    /// Adds an error.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        at: At,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(Severity::Error, code, at, message.into())
    }

    /// Adds a warning.
    pub(super) fn warning(
        &mut self,
        code: &'static str,
        at: At,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(Severity::Warning, code, at, message.into())
    }

    /// Adds a note, where somebody asked for such.
    pub(super) fn note(
        &mut self,
        code: &'static str,
        at: At,
        message: impl Into<String>,
    ) -> &mut Finding {
        if self.notes {
            return self.add(Severity::Note, code, at, message.into());
        }
        self.surplus
            .insert(Finding::new(Severity::Note, code, at, message.into()))
    }

    /// Adds an error, a warning or a note.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: At,
        message: String,
    ) -> &mut Finding {
        debug_assert!(codes::meaning(code).is_some(), "{code} is not listed");
        let finding = Finding::new(severity, code, at, message);
        let found = &mut self.found[severity as usize];
        *found += 1;
        if *found > KEPT {
            self.not_kept.push((severity, code, at));
            return self.surplus.insert(finding);
        }
        self.list.push(finding);
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Whether anything is wrong.
    pub(super) fn has_errors(&self) -> bool {
        self.found[Severity::Error as usize] > 0
    }

    /// How much was found so far, for [`Self::help_since`].
    pub(super) fn mark(&self) -> usize {
        self.list.len()
    }

    /// Says what to do about all of a code that was found since, where it has not been said.
    pub(super) fn help_since(&mut self, mark: usize, code: &str, help: &str) {
        let since = self.list[mark..].iter_mut().chain(&mut self.surplus);
        for finding in since.filter(|finding| finding.code == code) {
            finding.help.get_or_insert_with(|| help.to_owned());
        }
    }

    /// Takes errors of a code back that were found since, if they name `said` or stand for what another says of the
    /// same place.
    pub(super) fn thin_since(&mut self, mark: usize, code: &str, said: &str) {
        let mut seen = HashSet::new();
        let since = self.list.split_off(mark);
        let before = since.len();
        let kept = since.into_iter().filter(|finding| {
            let place = (finding.at.file, finding.at.start, finding.message.clone());
            finding.code != code || !finding.message.contains(said) && seen.insert(place)
        });
        self.list.extend(kept);
        self.found[Severity::Error as usize] -= mark + before - self.list.len();
    }

    /// Notes that lines are not TOML.
    pub(super) fn lines_are_broken(&mut self, file: u32, lines: RangeInclusive<usize>) {
        self.broken.push(Broken { file, lines });
    }

    /// Whether any file is not TOML, so that things may be missing that are there.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// The diagnostics, by position; behind them, what was found beyond [`KEPT`].
    pub(super) fn into_diagnostics(mut self, sources: &[Source]) -> Vec<Diagnostic> {
        let broken = BrokenLines::new(self.broken);
        // Stable: what was found first at a place comes first.
        self.list
            .sort_by_key(|finding| (finding.at.file, finding.at.start));
        let place = |locator: &mut Locator, at: At| {
            let source = &sources[at.file as usize];
            locator.place(at.file, source, at.start as usize, at.end as usize)
        };
        let (mut places, mut related_places) = (Locator::default(), Locator::default());
        let mut diagnostics = Vec::with_capacity(self.list.len());
        for finding in self.list {
            let at = finding.at;
            if broken.distrusts(finding.code, at, sources) {
                continue;
            }
            diagnostics.push(Diagnostic {
                severity: finding.severity,
                code: finding.code,
                message: finding.message,
                help: finding.help,
                place: Some(place(&mut places, at)),
                related: finding.related.map(|(at, message)| Related {
                    place: place(&mut related_places, at),
                    message,
                }),
                stands_for: 1,
            });
        }
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let of_it = self.not_kept.iter().filter(|(own, code, at)| {
                *own == severity && !broken.distrusts(code, *at, sources)
            });
            let more = of_it.count();
            diagnostics.extend((more > 0).then(|| Diagnostic::not_shown(severity, more)));
        }
        diagnostics
    }
}

/// Lines that are not TOML, sorted; those of a file do not overlap.
struct BrokenLines(Vec<Broken>);

impl BrokenLines {
    fn new(mut broken: Vec<Broken>) -> Self {
        broken.sort_unstable_by_key(|broken| (broken.file, *broken.lines.start()));
        Self(broken)
    }

    fn distrusts(&self, code: &str, at: At, sources: &[Source]) -> bool {
        if code == SYNTAX {
            return false;
        }
        let line = sources[at.file as usize].position(at.start as usize).line;
        // What the parser made up to go on stands nowhere: take it for the end of the file.
        let made_up = at.end == 0;
        let line = if made_up { usize::MAX } else { line };
        let until = self
            .0
            .partition_point(|broken| (broken.file, *broken.lines.start()) <= (at.file, line));
        let last = until.checked_sub(1).map(|index| &self.0[index]);
        last.is_some_and(|broken| {
            broken.file == at.file && (made_up || broken.lines.contains(&line))
        })
    }
}

/// Code of what is not TOML.
pub(super) const SYNTAX: &str = "syntax";
