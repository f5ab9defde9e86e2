//! What is wrong, where, and what to do: as data, as text in the compiler manner, as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::escape::{escape, push};
use super::source::Source;

/// Characters of a source line that are shown before and after the caret.
const WINDOW: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// Applied, but probably not what was meant.
    Warning,
    /// Worth a thought; looked for by `check` only.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing that is wrong.
///
/// Strings hold what the file holds, control characters included; [`render`] escapes them, and so
/// does JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// AWS's error code where it has one (fact 1.44), else a short name of ours.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where; `None` for what concerns the definition as a whole.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Another place that plays a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
    /// Findings that it stands for: 1, or all those that are not shown.
    #[serde(skip)]
    pub stands_for: usize,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// File as it was named to us.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters concerned: at least 1, not beyond the line, and no more than are shown.
    pub width: usize,
    /// The line, cut around the place if it is long.
    pub source_line: String,
    /// Characters of `source_line` before the place.
    #[serde(skip)]
    indent: usize,
}

/// A second place and its part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Its part.
    pub message: String,
}

impl Place {
    /// The place of a byte range.
    pub fn new(source: &Source, start: usize, end: usize) -> Self {
        Locator::default().place(0, source, start, end)
    }
}

/// Finds places; those of one line in ascending order cost no more than one walk along it, however
/// long it is.
#[derive(Default)]
pub(super) struct Locator {
    file: u32,
    line: usize,
    offset: usize,
    /// Characters before `offset`.
    before: usize,
}

impl Locator {
    /// The place of a byte range in the source of a number.
    pub(super) fn place(&mut self, file: u32, source: &Source, start: usize, end: usize) -> Place {
        let position = source.position(start);
        let text = position.text;
        let offset = position.offset.min(text.len());
        let known = (self.file, self.line) == (file, position.line) && self.offset <= offset;
        let (from, before) = if known {
            (self.offset, self.before)
        } else {
            (0, 0)
        };
        let before = before + text[from..offset].chars().count();
        *self = Self {
            file,
            line: position.line,
            offset,
            before,
        };
        let (head, rest) = text.split_at(offset);
        let shown_before = head.char_indices().rev().take(WINDOW);
        let first = shown_before.last().map_or(offset, |(byte, _)| byte);
        let (shown_after, cut) = match rest.char_indices().nth(WINDOW) {
            Some((byte, _)) => (&rest[..byte], "…"),
            None => (rest, ""),
        };
        let concerned = end.saturating_sub(start).min(shown_after.len());
        let concerned = &shown_after[..shown_after.floor_char_boundary(concerned)];
        let more = if first > 0 { "…" } else { "" };
        let head = format!("{more}{}", &head[first..]);
        Place {
            file: source.name.to_string(),
            line: position.line,
            column: before + 1,
            width: concerned.chars().count().max(1),
            indent: head.chars().count(),
            source_line: format!("{head}{shown_after}{cut}"),
        }
    }
}

/// Diagnostics as text, each followed by an empty line.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        diagnostic
            .write(&mut text)
            .expect("a String takes any text");
    }
    text
}

/// Errors, or warnings, among diagnostics, with those that are not shown.
pub fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    let of_it = diagnostics
        .iter()
        .filter(|found| found.severity == severity);
    of_it.map(|found| found.stands_for).sum()
}

impl Diagnostic {
    /// What stands behind the last one that is shown.
    pub(super) fn not_shown(severity: Severity, more: usize) -> Self {
        let name = severity.name();
        let s = if more == 1 { "" } else { "s" };
        Self {
            severity,
            code: "not-shown",
            message: format!("{more} more {name}{s} not shown"),
            help: None,
            place: None,
            related: None,
            stands_for: more,
        }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let severity = self.severity.name();
        writeln!(out, "{severity}[{}]: {}", self.code, escape(&self.message))?;
        let number = |place: &Place| place.line.to_string().len();
        let margin = self
            .place
            .iter()
            .chain(self.related.as_ref().map(|related| &related.place))
            .map(number)
            .max()
            .unwrap_or(1);
        if let Some(place) = &self.place {
            place.write(out, margin, "-->", "")?;
        }
        if let Some(related) = &self.related {
            related.place.write(out, margin, ":::", &related.message)?;
        }
        if let Some(help) = &self.help {
            writeln!(out, "{:margin$} = help: {}", "", escape(help))?;
        }
        writeln!(out)
    }
}

impl Place {
    fn write(&self, out: &mut String, margin: usize, arrow: &str, label: &str) -> std::fmt::Result {
        let Self { line, column, .. } = self;
        writeln!(
            out,
            "{:margin$}{arrow} {}:{line}:{column}",
            "",
            escape(&self.file)
        )?;
        let (text, indent, width) = self.excerpt();
        writeln!(out, "{:margin$} |", "")?;
        writeln!(out, "{line:margin$} | {text}")?;
        let carets = "^".repeat(width);
        let label = escape(label);
        let marked = format!("{:indent$}{carets} {label}", "");
        writeln!(out, "{:margin$} | {}", "", marked.trim_end())
    }

    /// The line as it is shown; the caret's indent and width in it.
    fn excerpt(&self) -> (String, usize, usize) {
        let mut shown = String::new();
        let (mut indent, mut end) = (None, None);
        for (index, character) in self.source_line.chars().enumerate() {
            // Escaped, a character is as long as its escape.
            if index == self.indent {
                indent = Some(shown.chars().count());
            }
            if index == self.indent + self.width {
                end = Some(shown.chars().count());
            }
            match character {
                '\t' => shown.push(' '),
                other => push(&mut shown, other),
            }
        }
        let length = shown.chars().count();
        let indent = indent.unwrap_or(length);
        let width = end.unwrap_or(length).saturating_sub(indent).max(1);
        (shown, indent, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, start: usize, end: usize) -> Place {
        Place::new(&Source::new("f.toml", text.into()), start, end)
    }

    fn shown(place: Place, related: Option<Place>) -> String {
        let related = related.map(|place| Related {
            place,
            message: "there".into(),
        });
        render(&[Diagnostic {
            severity: Severity::Error,
            code: "code",
            message: "bad \x07".into(),
            help: Some("do it".into()),
            place: Some(place),
            related,
            stands_for: 1,
        }])
    }

    #[test]
    fn text_is_in_the_compiler_manner() {
        let text = "a = 1\nb\t= \"\x1b\"";
        assert_eq!(
            shown(at(text, 10, 13), Some(at(text, 0, 1))),
            r#"error[code]: bad \u{7}
 --> f.toml:2:5
  |
2 | b = "\u{1b}"
  |     ^^^^^^^^
 ::: f.toml:1:1
  |
1 | a = 1
  | ^ there
  = help: do it

"#
        );
    }

    #[test]
    fn the_caret_may_stand_behind_the_line() {
        assert!(shown(at("ab", 2, 2), None).contains("1 | ab\n  |   ^\n"));
        assert!(shown(at("", 0, 0), None).contains("1 | \n  | ^\n"));
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let text = format!("{}!{}", "x".repeat(500), "y".repeat(500));
        let shown = shown(at(&text, 500, 501), None);
        let line = format!("1 | …{}!{}…\n", "x".repeat(100), "y".repeat(99));
        assert!(shown.contains(&line), "{shown}");
        assert!(
            shown.contains(&format!("\n  | {}^\n", " ".repeat(101))),
            "{shown}"
        );
    }

    #[test]
    fn columns_are_right_in_any_order() {
        let text = format!("ü{}\nüz", "y".repeat(50));
        let source = Source::new("f.toml", text.clone().into());
        let mut locator = Locator::default();
        for start in [0, 2, 30, 31, 12, 54, 56, 2] {
            let place = locator.place(0, &source, start, start + 1);
            assert_eq!(place, at(&text, start, start + 1), "{start}");
        }
        assert_eq!(at(&text, 30, 31).column, 30);
    }

    #[test]
    fn json_is_flat() {
        let diagnostic = Diagnostic {
            severity: Severity::Warning,
            code: "code",
            message: "m".into(),
            help: None,
            place: Some(at("ab", 1, 2)),
            related: None,
            stands_for: 1,
        };
        let json = serde_json::to_value(diagnostic).unwrap();
        let expected = serde_json::json!({
            "severity": "warning", "code": "code", "message": "m",
            "file": "f.toml", "line": 1, "column": 2, "width": 1, "source_line": "ab",
        });
        assert_eq!(json, expected);
    }
}
