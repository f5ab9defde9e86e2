//! Names and descriptions (facts 1.31, 1.32).

use super::super::text;
use super::super::tree::Located;
use super::value::{Parser, Value};

impl Parser<'_> {
    /// Checks the name of a group, list or interface.
    pub(super) fn check_name(&mut self, tables: &str, name: &Located<String>) {
        text::check_name(self.findings, tables, name);
    }

    /// A group's description.
    pub(super) fn group_description(&mut self, value: Value<'_>) -> Option<String> {
        let text = self.string(value)?;
        text::group_description(self.findings, text)
    }

    /// A rule's description.
    pub(super) fn rule_description(&mut self, value: Value<'_>) -> Option<String> {
        let text = self.string(value)?;
        text::rule_description(self.findings, text)
    }

    /// The id that AWS or another gave the thing; references may use it in place of the name.
    pub(super) fn id(&mut self, value: Value<'_>, prefix: &str) -> Option<Located<String>> {
        let text = self.string(value)?;
        text::id(self.findings, text, prefix)
    }
}
