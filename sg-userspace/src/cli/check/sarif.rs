//! Diagnostics as SARIF 2.1.0 (OASIS), which code hosts show beside the lines concerned.

use std::collections::BTreeSet;

use serde::Serialize;
use sg_userspace::definition::{Diagnostic, Severity, codes, diagnostic::Place};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Log<'d> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'d>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'d> {
    tool: Tool,
    /// Columns are characters, not UTF-16 units.
    column_kind: &'static str,
    results: Vec<Finding<'d>>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Text<'static>,
}

#[derive(Serialize)]
struct Text<'d> {
    text: std::borrow::Cow<'d, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding<'d> {
    rule_id: &'static str,
    rule_index: usize,
    level: &'static str,
    message: Text<'d>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locations: Vec<Location<'d>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related_locations: Vec<Location<'d>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'d> {
    physical_location: Physical<'d>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Text<'d>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical<'d> {
    artifact_location: Artifact,
    region: Region<'d>,
}

#[derive(Serialize)]
struct Artifact {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region<'d> {
    start_line: usize,
    start_column: usize,
    /// Behind the last character.
    end_column: usize,
    snippet: Text<'d>,
}

impl<'d> Log<'d> {
    pub(super) fn new(diagnostics: &'d [Diagnostic]) -> Self {
        let used: BTreeSet<&'static str> = diagnostics.iter().map(|found| found.code).collect();
        let used: Vec<&'static str> = used.into_iter().collect();
        let rule = |id: &&'static str| Rule {
            id,
            short_description: Text {
                text: codes::meaning(id).unwrap_or_default().into(),
            },
        };
        let finding = |found: &'d Diagnostic| Finding {
            rule_id: found.code,
            rule_index: used.binary_search(&found.code).unwrap_or_default(),
            level: match found.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            },
            message: Text {
                text: match &found.help {
                    Some(help) => format!("{}\n{help}", found.message).into(),
                    None => found.message.as_str().into(),
                },
            },
            locations: found
                .place
                .iter()
                .map(|place| location(place, None))
                .collect(),
            related_locations: found
                .related
                .iter()
                .map(|related| location(&related.place, Some(&related.message)))
                .collect(),
        };
        Self {
            schema: "https://json.schemastore.org/sarif-2.1.0.json",
            version: "2.1.0",
            runs: [Run {
                tool: Tool {
                    driver: Driver {
                        name: "sgctl",
                        version: env!("CARGO_PKG_VERSION"),
                        rules: used.iter().map(rule).collect(),
                    },
                },
                column_kind: "unicodeCodePoints",
                results: diagnostics.iter().map(finding).collect(),
            }],
        }
    }
}

fn location<'d>(place: &'d Place, message: Option<&'d str>) -> Location<'d> {
    Location {
        physical_location: Physical {
            artifact_location: Artifact {
                uri: uri(&place.file),
            },
            region: Region {
                start_line: place.line,
                start_column: place.column,
                end_column: place.column + place.width,
                snippet: Text {
                    text: place.source_line.as_str().into(),
                },
            },
        },
        message: message.map(|text| Text { text: text.into() }),
    }
}

/// The path as a relative reference, or with its scheme (RFC 3986, RFC 8089).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len() + 7);
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(byte.into())
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_references() {
        assert_eq!(uri("a b/ü.tf"), "a%20b/%C3%BC.tf");
        assert_eq!(uri("/etc/sg.toml"), "file:///etc/sg.toml");
        assert_eq!(uri("c:d"), "c%3Ad");
    }
}
