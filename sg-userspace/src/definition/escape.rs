//! Text of a file on its way to a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters of a quotation before it is cut.
const QUOTED: usize = 80;

/// Makes control characters, and those that hide or reorder others, visible as `\u{…}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        push(&mut escaped, character);
    }
    Cow::Owned(escaped)
}

/// The same in JSON text, where such characters stand in strings only.
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        // JSON escapes the first 32 itself; those that remain are its line ends.
        if character.is_ascii() && character != '\u{7f}' || !is_hostile(character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut units) {
            write!(escaped, "\\u{unit:04x}").expect("a String takes any text");
        }
    }
    escaped
}

/// Appends a character, escaped if need be.
pub(super) fn push(escaped: &mut String, character: char) {
    if is_hostile(character) {
        write!(escaped, "\\u{{{:x}}}", u32::from(character)).expect("a String takes any text");
    } else {
        escaped.push(character);
    }
}

/// The text in backticks, cut if it is long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", &text[..end]),
    }
}

/// Control characters; line and paragraph separators; zero-width and bidirectional controls.
pub(super) fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_moves_or_hides_text() {
        assert_eq!(escape("plain ü"), "plain ü");
        assert_eq!(
            escape("a\x1b[31m\n\u{202e}b\u{9b}"),
            "a\\u{1b}[31m\\u{a}\\u{202e}b\\u{9b}"
        );
    }

    #[test]
    fn json_stays_the_same_data() {
        let data = "a\n\x1b\x7f\u{9b}\u{202e}\u{e0041}ü";
        let json = escape_json(&serde_json::to_string_pretty(&[data]).unwrap());
        assert!(!json.contains(|c| is_hostile(c) && c != '\n'), "{json}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [data]);
    }

    #[test]
    fn long_quotations_are_cut() {
        assert_eq!(quote("abc"), "`abc`");
        assert_eq!(quote(&"ü".repeat(81)), format!("`{}…`", "ü".repeat(80)));
    }
}
