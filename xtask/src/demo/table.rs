//! The table of attempts, printed row by row.

use std::fmt::Display;

use super::attempt::Attempt;
use super::outcome::{Expected, Observed};

/// Headings of the first columns; the last one is as wide as it gets.
const TRIED: &str = "what was tried";
const EXPECTED: &str = "the definition says";

/// Widths and what was counted.
pub(crate) struct Table {
    tried: usize,
    expected: usize,
    attempts: usize,
    differences: usize,
}

/// One family's half of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    /// What the definition says.
    pub(crate) expected: String,
    /// What happened.
    pub(crate) observed: String,
    /// Whether the two agree.
    pub(crate) agrees: bool,
}

impl Table {
    /// A table wide enough for these columns, its heading printed.
    pub(crate) fn new<'a>(
        tried: impl IntoIterator<Item = &'a String>,
        expected: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = &String>, heading: &str| {
            texts.map(|text| text.chars().count()).fold(heading.len(), usize::max)
        };
        let table = Self {
            tried: widest(&mut tried.into_iter(), TRIED),
            expected: widest(&mut expected.into_iter(), EXPECTED),
            attempts: 0,
            differences: 0,
        };
        println!("{}", table.line("", TRIED, "IP", EXPECTED, "what happened"));
        table
    }

    /// Prints an attempt over IPv4 and IPv6: one line where the two say the same.
    pub(crate) fn row(&mut self, tried: &str, [ipv4, ipv6]: [&Half; 2]) {
        if ipv4 == ipv6 {
            self.print(tried, "4 6", ipv4);
        } else {
            self.print(tried, "4", ipv4);
            self.print(tried, "  6", ipv6);
        }
        for half in [ipv4, ipv6] {
            self.attempts += 1;
            self.differences += usize::from(!half.agrees);
        }
    }

    /// Attempts, and how many of them went otherwise than the definition says.
    pub(crate) fn totals(&self) -> (usize, usize) {
        (self.attempts, self.differences)
    }

    fn print(&self, tried: &str, families: &str, half: &Half) {
        let mark = if half.agrees { "ok" } else { "DIFFERS" };
        println!(
            "{}",
            self.line(mark, tried, families, &half.expected, &half.observed)
        );
    }

    fn line(
        &self,
        mark: &str,
        tried: &str,
        families: &str,
        expected: &str,
        observed: impl Display,
    ) -> String {
        format!(
            "{mark:7}  {tried:1$}  {families:3}  {expected:2$}  {observed}",
            (),
            self.tried,
            self.expected
        )
    }
}

impl Half {
    /// Compares.
    pub(crate) fn new(expected: &Expected, observed: &Observed) -> Self {
        Self {
            expected: expected.to_string(),
            observed: observed.to_string(),
            agrees: expected.agrees(observed),
        }
    }
}

/// The first column of an attempt.
pub(crate) fn tried(attempt: &Attempt) -> String {
    attempt.to_string()
}
