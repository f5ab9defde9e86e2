//! Words and JSON on standard output, and what is said beside them.
//!
//! Whatever is printed goes through here, because names come from everywhere: of files and devices, out of the
//! kernel's answers. What moves the cursor, hides text or turns it round is shown instead of done.

use std::io::{self, StdoutLock, Write as _};

use serde::Serialize;
use sg_userspace::definition::{escape, escape_json};

/// Standard output for people.
pub(crate) fn out() -> Visible<StdoutLock<'static>> {
    Visible::new(io::stdout().lock(), visible)
}

/// Standard output for JSON, which escapes in its own way.
pub(crate) fn json_out() -> Visible<StdoutLock<'static>> {
    Visible::new(io::stdout().lock(), escape_json)
}

/// Prints a value as JSON.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let mut out = json_out();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Says something on standard error. What a command does and answers is the same if nobody reads it.
pub(crate) fn remark(text: &str) {
    let _ = io::stderr().lock().write_all(visible(text).as_bytes());
}

/// The text with everything hostile escaped but the ends of lines.
fn visible(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escape).collect();
    lines.join("\n")
}

/// A writer that lets no character through that a terminal would act on.
pub(crate) struct Visible<W: io::Write> {
    inner: W,
    escape: fn(&str) -> String,
    /// The beginning of a character of which the rest has not come yet.
    begun: Vec<u8>,
}

impl<W: io::Write> Visible<W> {
    fn new(inner: W, escape: fn(&str) -> String) -> Self {
        Self {
            inner,
            escape,
            begun: Vec::new(),
        }
    }
}

impl<W: io::Write> io::Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let harmless = |byte: &u8| matches!(byte, b'\n' | b' '..=b'~');
        if self.begun.is_empty() && bytes.iter().all(harmless) {
            self.inner.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut text = std::mem::take(&mut self.begun);
        text.extend(bytes);
        for chunk in text.utf8_chunks() {
            self.inner
                .write_all((self.escape)(chunk.valid()).as_bytes())?;
            let rest = chunk.invalid();
            let ends_here = text.as_ptr_range().end == rest.as_ptr_range().end;
            if ends_here
                && std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none())
            {
                self.begun = rest.to_vec();
            } else if !rest.is_empty() {
                self.inner.write_all("\u{fffd}".as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A number with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(escape: fn(&str) -> String, parts: &[&[u8]]) -> String {
        let mut out = Visible::new(Vec::new(), escape);
        for part in parts {
            out.write_all(part).unwrap();
        }
        String::from_utf8(out.inner).unwrap()
    }

    #[test]
    fn what_a_terminal_would_act_on_is_shown() {
        let text = "plain \u{fc} \x1b[2J\r\u{9b}1m\u{202e}\x07\n\tnext";
        let shown = "plain \u{fc} \\u{1b}[2J\\u{d}\\u{9b}1m\\u{202e}\\u{7}\n\\u{9}next";
        assert_eq!(through(visible, &[text.as_bytes()]), shown);
        // However it is cut.
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(through(visible, &bytes), shown);
        assert_eq!(visible(text), shown);
        assert_eq!(
            through(visible, &[b"a\xffb\xe2\x82", b"c"]),
            "a\u{fffd}b\u{fffd}c"
        );
    }

    #[test]
    fn json_stays_the_same_data() {
        let data = ["\u{9b}\u{202e}\u{7f}\u{fc}\n"];
        let json = serde_json::to_string_pretty(&data).unwrap();
        let bytes: Vec<&[u8]> = json.as_bytes().chunks(1).collect();
        let shown = through(escape_json, &bytes);
        assert!(!shown.contains(['\u{9b}', '\u{202e}', '\u{7f}']), "{shown}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), data);
    }
}
