//! Lengths of time as they are written on the command line.

use std::time::Duration;

/// Reads `30s`, `500ms`, `2m`, `1h`, or a number of seconds.
///
/// # Errors
/// What is expected, in words.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let length = number.parse::<u64>().ok();
    let length = length.and_then(|number| number.checked_mul(milliseconds));
    match length {
        Some(length) if milliseconds > 0 => Ok(Duration::from_millis(length)),
        _ => Err("a length of time is a whole number and ms, s, m or h, as 30s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (text, milliseconds) in [
            ("0", 0),
            ("30", 30_000),
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1d",
            "-1s",
            "1.5s",
            "1 s",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
