//! What `cargo test` printed, counted.
//!
//! libtest cannot skip at run time: a test that cannot run prints `skipped: <test>: <why>` past
//! libtest's capture and returns, and libtest counts it as passed. Here it counts as skipped.

use std::fmt;

/// The outcome of all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    suites: Vec<Suite>,
    /// Why the run as a whole failed although no test did.
    broken: Option<&'static str>,
}

/// The outcome of one test program.
#[derive(Debug, Default, PartialEq, Eq)]
struct Suite {
    name: String,
    passed: usize,
    failed: Vec<String>,
    /// Tests and why they did not run.
    skipped: Vec<String>,
    /// libtest's closing line was seen.
    ended: bool,
}

impl Summary {
    /// Reads what cargo and the test programs printed on both channels.
    pub(crate) fn of(output: &str) -> Self {
        let mut summary = Self::default();
        for line in output.lines() {
            if let Some(name) = suite_name(line) {
                summary.suites.push(Suite {
                    name,
                    ..Suite::default()
                });
            } else if let Some(suite) = summary.suites.last_mut() {
                suite.read(line);
            }
        }
        summary
    }

    /// Compares with the exit status of `cargo test`: a run that failed for another reason than a
    /// failed test, or in which nothing ran, is no success.
    pub(crate) fn close(&mut self, success: bool) {
        for suite in self.suites.iter_mut().filter(|suite| !suite.ended) {
            suite
                .failed
                .push("the test program ended before its tests did".to_owned());
        }
        let (passed, failed, skipped) = self.totals();
        if !success && failed == 0 {
            self.broken = Some("`cargo test` failed outside of any test");
        } else if passed + failed + skipped == 0 {
            self.broken = Some("no test has this name");
        }
    }

    /// True if tests ran and none failed.
    pub(crate) fn is_success(&self) -> bool {
        self.broken.is_none() && self.totals().1 == 0
    }

    fn totals(&self) -> (usize, usize, usize) {
        self.suites.iter().fold((0, 0, 0), |sum, suite| {
            (
                sum.0 + suite.passed,
                sum.1 + suite.failed.len(),
                sum.2 + suite.skipped.len(),
            )
        })
    }
}

impl Suite {
    fn read(&mut self, line: &str) {
        if let Some(skip) = line
            .find("skipped: ")
            .filter(|&at| at == 0 || line[..at].ends_with("... "))
        {
            self.skipped
                .push(line[skip + "skipped: ".len()..].to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            // A skipped test returned, which libtest takes for passed.
            let passed = count(result, "passed").unwrap_or(0);
            let ran = passed.saturating_sub(self.skipped.len());
            let ignored = count(result, "ignored").unwrap_or(0);
            self.passed = ran;
            self.skipped
                .extend((0..ignored).map(|_| "a test marked as ignored".to_owned()));
            self.ended = true;
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failed.push(name.to_owned());
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = |suite: &&Suite| suite.passed + suite.failed.len() + suite.skipped.len() > 0;
        let width = self
            .suites
            .iter()
            .filter(ran)
            .map(|suite| suite.name.len())
            .max()
            .unwrap_or(0);
        let width = width.max("total".len());
        writeln!(f, "{:width$}  passed  failed  skipped", "suite")?;
        let mut row = |name: &str, passed: usize, failed: usize, skipped: usize| {
            writeln!(f, "{name:width$}  {passed:>6}  {failed:>6}  {skipped:>7}")
        };
        for suite in self.suites.iter().filter(ran) {
            row(
                &suite.name,
                suite.passed,
                suite.failed.len(),
                suite.skipped.len(),
            )?;
        }
        let (passed, failed, skipped) = self.totals();
        row("total", passed, failed, skipped)?;

        for suite in &self.suites {
            for test in &suite.skipped {
                writeln!(f, "skipped: {}: {test}", suite.name)?;
            }
        }
        for suite in &self.suites {
            for test in &suite.failed {
                writeln!(f, "failed: {}: {test}", suite.name)?;
            }
        }
        if let Some(broken) = self.broken {
            writeln!(f, "failed: {broken}")?;
        }
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The suite that a line of cargo's announces: `Running tests/x.rs (target/debug/deps/x-0123)` or
/// `Doc-tests x`.
fn suite_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{package} (documentation)"));
    }
    let (source, program) = line
        .strip_prefix("Running ")?
        .strip_suffix(')')?
        .split_once(" (")?;
    let file = program.rsplit('/').next()?;
    let package = file.rsplit_once('-').map_or(file, |(name, _)| name);
    match source.strip_prefix("unittests ") {
        Some(source) => Some(format!("{package} ({source})")),
        None => Some(source.to_owned()),
    }
}

/// The number before a word in `ok. 3 passed; 1 failed; …`.
fn count(result: &str, word: &str) -> Option<usize> {
    let mut words = result
        .split([' ', ';', '.'])
        .filter(|part| !part.is_empty());
    let mut previous = words.next()?;
    for next in words {
        if next == word {
            return previous.parse().ok();
        }
        previous = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
    Finished `test` profile [optimized] target(s) in 1.0s
     Running unittests src/lib.rs (target/debug/deps/sg_common-0123abcd)

running 2 tests
test wire::a ... ok
test wire::b ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/dataplane.rs (/t/debug/deps/dataplane-0123abcd)

running 3 tests
skipped: native_xdp: the driver has none
test native_xdp ... ok
test one ... FAILED
test alone ... skipped: alone: no root
ok

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests sg_common

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn suites_are_counted_and_a_skip_is_no_pass() {
        let mut summary = Summary::of(OUTPUT);
        summary.close(false);
        assert!(!summary.is_success());
        let text = summary.to_string();
        let expected = "\
suite                   passed  failed  skipped
sg_common (src/lib.rs)       2       0        0
tests/dataplane.rs           0       1        3
total                        2       1        3
skipped: tests/dataplane.rs: native_xdp: the driver has none
skipped: tests/dataplane.rs: alone: no root
skipped: tests/dataplane.rs: a test marked as ignored
failed: tests/dataplane.rs: one
2 passed, 1 failed, 3 skipped
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let died = OUTPUT.split("test one").next().unwrap();
        let mut summary = Summary::of(died);
        summary.close(false);
        assert_eq!(summary.totals(), (2, 1, 1));
        assert!(!summary.is_success());
    }

    #[test]
    fn a_build_that_fails_is_a_failure() {
        let mut summary = Summary::of("error: could not compile `sg-common`\n");
        summary.close(false);
        assert!(!summary.is_success());
        assert!(
            summary
                .to_string()
                .ends_with("\n0 passed, 0 failed, 0 skipped\n")
        );
    }

    #[test]
    fn a_filter_that_matches_nothing_is_a_failure() {
        let (_, documentation) = OUTPUT.split_once("   Doc-tests").unwrap();
        let mut summary = Summary::of(&format!("   Doc-tests{documentation}"));
        summary.close(true);
        assert!(!summary.is_success());
    }
}
