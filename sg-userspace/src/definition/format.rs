//! Kinds of files that hold a definition, and how they are told apart.

use std::path::Path;

use super::document::{self, Node};
use super::source::Source;

/// What a file is written in.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Our own.
    Toml,
    /// What `aws ec2 describe-…` prints (facts 7.1–7.6).
    Aws,
    /// Terraform's language and its variable files (facts 7.10–7.20).
    Terraform,
    /// What `terraform show -json` prints, of a state or a plan (fact 7.21).
    TerraformShow,
    /// A template of CloudFormation, YAML or JSON (facts 7.30–7.32).
    CloudFormation,
    /// What OpenStack's Neutron answers (facts 7.40–7.44).
    OpenStack,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Toml,
        Self::Aws,
        Self::Terraform,
        Self::TerraformShow,
        Self::CloudFormation,
        Self::OpenStack,
    ];

    /// The name by which `--format` forces it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Aws => "aws",
            Self::Terraform => "terraform",
            Self::TerraformShow => "terraform-show",
            Self::CloudFormation => "cloudformation",
            Self::OpenStack => "openstack",
        }
    }
}

/// Endings of file names that a directory is searched for.
pub(super) const EXTENSIONS: [&str; 7] =
    ["toml", "json", "tf", "tfvars", "yaml", "yml", "template"];

/// Keys at the top of a JSON document that tell its kind.
const KEYS: [(&str, Format); 25] = [
    ("SecurityGroups", Format::Aws),
    ("SecurityGroupRules", Format::Aws),
    ("NetworkInterfaces", Format::Aws),
    ("PrefixLists", Format::Aws),
    ("PrefixListId", Format::Aws),
    ("Entries", Format::Aws),
    ("format_version", Format::TerraformShow),
    // A state file, which is refused with a word on what to give instead.
    ("lineage", Format::TerraformShow),
    ("AWSTemplateFormatVersion", Format::CloudFormation),
    ("Resources", Format::CloudFormation),
    ("security_groups", Format::OpenStack),
    ("security_group", Format::OpenStack),
    ("security_group_rules", Format::OpenStack),
    ("security_group_rule", Format::OpenStack),
    ("address_groups", Format::OpenStack),
    ("address_group", Format::OpenStack),
    ("ports", Format::OpenStack),
    ("port", Format::OpenStack),
    ("networks", Format::OpenStack),
    ("subnets", Format::OpenStack),
    // What `openstack … show -f json` prints has no name around it.
    ("stateful", Format::OpenStack),
    ("ether_type", Format::OpenStack),
    ("ethertype", Format::OpenStack),
    ("fixed_ips", Format::OpenStack),
    ("addresses", Format::OpenStack),
];

/// Keys of the entries of a list without a name around it, such as `--query SecurityGroups` leaves.
const ENTRY_KEYS: [(&str, Format); 12] = [
    ("SecurityGroupRuleId", Format::Aws),
    ("IpPermissions", Format::Aws),
    ("NetworkInterfaceId", Format::Aws),
    ("PrefixListId", Format::Aws),
    ("Cidr", Format::Aws),
    ("security_group_rules", Format::OpenStack),
    ("IP Protocol", Format::OpenStack),
    ("ethertype", Format::OpenStack),
    ("fixed_ips", Format::OpenStack),
    ("Fixed IP Addresses", Format::OpenStack),
    ("Addresses", Format::OpenStack),
    ("Project", Format::OpenStack),
];

/// What a file is, by its content; where that does not say it, by the ending of its name. `document` is its
/// content if it is JSON. `None`: it is none of the kinds.
pub(super) fn recognise(source: &Source, document: Option<&Node<'_>>) -> Option<Format> {
    if [".tfvars.json", ".tf.json"]
        .iter()
        .any(|end| source.name.ends_with(end))
    {
        return Some(Format::Terraform);
    }
    if let Some(document) = document {
        return of_document(document);
    }
    let path = Path::new(&*source.name);
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("toml") => return Some(Format::Toml),
        Some("tf" | "tfvars" | "hcl") => return Some(Format::Terraform),
        Some("json") => return None,
        _ => {}
    }
    if let Some(format) = of_lines(&source.text) {
        return Some(format);
    }
    match extension {
        Some("yaml" | "yml" | "template") => None,
        _ => Some(Format::Toml),
    }
}

/// Whether the text is meant to be JSON.
pub(super) fn is_json(source: &Source) -> bool {
    let text = source.text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('{') {
        return true;
    }
    // A table of TOML begins as a list does.
    let of_list = text.strip_prefix('[').map(str::trim_start);
    of_list.is_some_and(|rest| rest.starts_with(['{', ']']))
        || Path::new(&*source.name)
            .extension()
            .is_some_and(|extension| extension == "json")
}

fn of_document(document: &Node<'_>) -> Option<Format> {
    // What is null is there.
    let has = |node: &Node<'_>, key: &str| {
        let mut keys = node.map().unwrap_or_default().iter();
        keys.any(|(own, _)| own.value == key)
    };
    let Some(entries) = document.list() else {
        let whole = KEYS.iter().find(|(key, _)| has(document, key));
        // What `--query` leaves of a list may be one of its entries.
        let mut entry = ENTRY_KEYS.iter().filter(|(key, _)| *key != "Cidr");
        let found = whole.or_else(|| entry.find(|(key, _)| has(document, key)));
        return found.map(|(_, format)| *format);
    };
    let first = entries.first()?;
    // Pages follow each other in a list.
    let pages = KEYS.iter().filter(|(_, format)| *format == Format::Aws);
    let mut known = ENTRY_KEYS.iter().chain(pages);
    known
        .find(|(key, _)| has(first, key))
        .map(|(_, format)| *format)
}

/// The first line that only one kind has.
fn of_lines(text: &str) -> Option<Format> {
    const BLOCKS: [&str; 12] = [
        "resource",
        "variable",
        "locals",
        "provider",
        "terraform",
        "data",
        "module",
        "output",
        "moved",
        "import",
        "check",
        "removed",
    ];
    const SECTIONS: [&str; 4] = [
        "AWSTemplateFormatVersion",
        "Resources",
        "Parameters",
        "Metadata",
    ];
    text.lines().find_map(|line| {
        let word_end = line
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(line.len());
        let (word, rest) = line.split_at(word_end);
        let rest = rest.trim_start();
        if BLOCKS.contains(&word) && (rest.starts_with('"') || rest.starts_with('{')) {
            return Some(Format::Terraform);
        }
        if SECTIONS.contains(&word) && rest.starts_with(':') {
            return Some(Format::CloudFormation);
        }
        let is_table = line.starts_with('[') && line.trim_end().ends_with(']');
        is_table.then_some(Format::Toml)
    })
}

/// The document of a source that is meant to be JSON.
pub(super) fn document<'s>(
    file: u32,
    source: &'s Source,
) -> Option<Result<Node<'s>, document::SyntaxError>> {
    is_json(source).then(|| document::json::parse(file, &source.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, text: &str) -> Option<Format> {
        let source = Source::new(name, text.into());
        let document = document(0, &source).map(|parsed| parsed.unwrap());
        recognise(&source, document.as_ref())
    }

    #[test]
    fn kinds_are_recognised_by_content() {
        for (text, format) in [
            ("{\"SecurityGroups\": []}", Format::Aws),
            ("{\"SecurityGroups\": null}", Format::Aws),
            ("[{\"IpPermissions\": []}]", Format::Aws),
            ("{\"IpPermissions\": null}", Format::Aws),
            ("[{\"NetworkInterfaces\": []}, {}]", Format::Aws),
            ("{\"Entries\": []}", Format::Aws),
            ("{\"format_version\": \"1.0\"}", Format::TerraformShow),
            ("{\"Resources\": {}}", Format::CloudFormation),
            ("# c\nResources:\n  A: {}", Format::CloudFormation),
            ("{\"security_groups\": []}", Format::OpenStack),
            (
                "# c\nresource \"aws_security_group\" \"a\" {}",
                Format::Terraform,
            ),
            ("locals {}", Format::Terraform),
            ("[groups.web]\n", Format::Toml),
            ("", Format::Toml),
        ] {
            assert_eq!(kind("file", text), Some(format), "{text}");
        }
        assert_eq!(kind("f.tfvars", "a = 1"), Some(Format::Terraform));
        assert_eq!(kind("f.tfvars.json", "{}"), Some(Format::Terraform));
        assert_eq!(kind("f.toml", "locals {}"), Some(Format::Toml));
        assert_eq!(kind("package.json", "{\"name\": 1}"), None);
        assert_eq!(kind("f.yaml", "a: b"), None);
    }
}
