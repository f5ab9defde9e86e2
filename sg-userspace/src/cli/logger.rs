//! The log of the agent: one line each on standard error.

use std::io::{self, Write as _};

use log::{Level, LevelFilter, Log, Metadata, Record};
use sg_userspace::definition::escape;

struct Logger;

/// Where libraries log that we have not written, and how much of it is worth reading.
const FOREIGN: LevelFilter = LevelFilter::Warn;

/// Starts logging up to a level.
pub(crate) fn start(level: LevelFilter) {
    // Fails only if it was started before, and then there is a log already.
    let _ = log::set_logger(&Logger);
    log::set_max_level(level);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("sg");
        metadata.level() <= log::max_level() && (ours || metadata.level() <= FOREIGN)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        let text = record.args().to_string();
        let line = format!("{level}: {}\n", escape(&text));
        // One write keeps the line whole. A log that nobody can read any more is no reason to stop.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
