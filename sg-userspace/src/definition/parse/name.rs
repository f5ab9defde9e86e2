//! Names and descriptions (facts 1.31, 1.32).

use super::super::escape::quote;
use super::super::tree::Located;
use super::value::{Parser, Value};

/// Characters of a name or description.
const MAX: usize = 255;
/// What may stand in a group's name and description beside ASCII letters and digits (fact 1.32).
const OF_GROUPS: &str = " ._-:/()#,@[]+=&;{}!$*";
/// What may stand in a rule's description beside ASCII letters and digits (fact 1.31).
const OF_RULES: &str = " ._-:/()#,@[]+=;{}!$*";

impl Parser<'_> {
    /// Checks the name of a group, list or interface.
    pub(super) fn check_name(&mut self, tables: &str, name: &Located<String>) {
        let text = name.value.as_str();
        let fault = if text.is_empty() {
            Some("is empty".to_string())
        } else if text.trim() != text {
            Some("begins or ends with a space".into())
        } else if text.to_ascii_lowercase().starts_with("sg-") {
            Some("begins with `sg-`, which is for ids".into())
        } else {
            fault_of(text, OF_GROUPS)
        };
        if let Some(fault) = fault {
            let message = format!("the name {} in `{tables}` {fault}", quote(text));
            self.invalid(name.at, message).help(help(OF_GROUPS));
        }
    }

    /// A group's description.
    pub(super) fn group_description(&mut self, value: Value<'_>) -> Option<String> {
        self.description(value, OF_GROUPS)
    }

    /// A rule's description.
    pub(super) fn rule_description(&mut self, value: Value<'_>) -> Option<String> {
        self.description(value, OF_RULES)
    }

    fn description(&mut self, value: Value<'_>, allowed: &str) -> Option<String> {
        let text = self.string(value)?;
        if let Some(fault) = fault_of(text.value, allowed) {
            self.invalid(text.at, format!("the description {fault}"))
                .help(help(allowed));
            return None;
        }
        Some(text.value.into())
    }
}

fn fault_of(text: &str, allowed: &str) -> Option<String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || allowed.contains(c);
    if let Some(character) = text.chars().find(|character| !is_allowed(*character)) {
        return Some(format!("contains `{character}`"));
    }
    let length = text.chars().count();
    (length > MAX).then(|| format!("has {length} characters"))
}

fn help(allowed: &str) -> String {
    format!("up to {MAX} of a-z, A-Z, 0-9, space and {}", allowed.trim())
}
