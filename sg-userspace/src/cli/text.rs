//! Words and JSON on standard output, and what is said beside them.

use std::io::{self, Write as _};

use serde::Serialize;

/// Prints a value as JSON.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Says something on standard error. What a command does and answers is the same if nobody reads it.
pub(crate) fn remark(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A number with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}
