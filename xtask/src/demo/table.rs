//! The table of attempts, made row by row while they go on.

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
    /// A table wide enough for these columns.
    pub(crate) fn new<'a>(
        tried: impl IntoIterator<Item = &'a String>,
        expected: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = &String>, heading: &str| {
            texts
                .map(|text| text.chars().count())
                .fold(heading.len(), usize::max)
        };
        Self {
            tried: widest(&mut tried.into_iter(), TRIED),
            expected: widest(&mut expected.into_iter(), EXPECTED),
            attempts: 0,
            differences: 0,
        }
    }

    /// The line above the rows.
    pub(crate) fn heading(&self) -> String {
        self.line("", TRIED, "IP", EXPECTED, "what happened")
    }

    /// An attempt over IPv4 and IPv6: one line where the two say the same.
    pub(crate) fn row(&mut self, tried: &str, halves: [&Half; 2]) -> String {
        for half in halves {
            self.attempts += 1;
            self.differences += usize::from(!half.agrees);
        }
        let [ipv4, ipv6] = halves;
        if ipv4 == ipv6 {
            return self.half(tried, "4 6", ipv4);
        }
        let first = self.half(tried, "4", ipv4);
        format!("{first}\n{}", self.half(tried, "  6", ipv6))
    }

    /// Attempts, and how many of them went otherwise than the definition says.
    pub(crate) fn totals(&self) -> (usize, usize) {
        (self.attempts, self.differences)
    }

    fn half(&self, tried: &str, families: &str, half: &Half) -> String {
        let mark = if half.agrees { "ok" } else { "DIFFERS" };
        self.line(mark, tried, families, &half.expected, &half.observed)
    }

    fn line(
        &self,
        mark: &str,
        tried: &str,
        families: &str,
        expected: &str,
        observed: &str,
    ) -> String {
        let (first, second) = (self.tried, self.expected);
        format!("{mark:7}  {tried:first$}  {families:3}  {expected:second$}  {observed}")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn half(observed: &str, agrees: bool) -> Half {
        Half {
            expected: "pass (alb, the web)".to_owned(),
            observed: observed.to_owned(),
            agrees,
        }
    }

    #[test]
    fn families_share_a_line_only_where_they_say_the_same() {
        let tried = "client -> lb tcp 443".to_owned();
        let (right, wrong) = (half("connected", true), half("timed out", false));
        let mut table = Table::new([&tried], [&right.expected]);
        assert_eq!(
            table.heading(),
            "         what was tried        IP   the definition says  what happened"
        );
        assert_eq!(
            table.row(&tried, [&right, &right]),
            "ok       client -> lb tcp 443  4 6  pass (alb, the web)  connected"
        );
        assert_eq!(
            table.row(&tried, [&right, &wrong]),
            "ok       client -> lb tcp 443  4    pass (alb, the web)  connected\n\
             DIFFERS  client -> lb tcp 443    6  pass (alb, the web)  timed out"
        );
        assert_eq!(table.totals(), (4, 1));
    }

    #[test]
    fn what_differs_in_both_families_counts_twice() {
        let wrong = half("timed out", false);
        let mut table = Table::new([], []);
        assert!(table.row("x", [&wrong, &wrong]).starts_with("DIFFERS  x"));
        assert_eq!(table.totals(), (2, 2));
    }
}
