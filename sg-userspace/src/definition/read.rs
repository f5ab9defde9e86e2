//! Sources of all kinds to typed trees.

use super::document::Node;
use super::findings::{Findings, SYNTAX};
use super::format::{self, Format};
use super::source::Source;
use super::tree::{At, Definition, File};
use super::{aws, cloudformation, openstack, parse, terraform};

/// A source whose kind is known.
pub(super) struct Input<'s> {
    /// Index into the sources.
    pub(super) file: u32,
    pub(super) source: &'s Source,
    /// What it holds, if it is JSON.
    pub(super) document: Option<Node<'s>>,
}

/// Reads all sources: TOML file by file, the files of each other kind together, since they refer to each other.
/// The trees stand in the order of the sources; what several files say together stands in that of the first.
pub(super) fn read(sources: &[Source], findings: &mut Findings) -> Definition {
    let mut files: Vec<File> = sources.iter().map(|_| File::default()).collect();
    let mut inputs: Vec<(Format, Vec<Input<'_>>)> =
        Format::ALL.map(|format| (format, Vec::new())).into();
    for (file, source) in (0..).zip(sources) {
        if let Some((format, input)) = classify(file, source, findings) {
            let of_kind = inputs.iter_mut().find(|(own, _)| *own == format);
            of_kind.expect("every kind is listed").1.push(input);
        }
    }
    for (format, inputs) in inputs {
        let Some(first) = inputs.first().map(|input| input.file as usize) else {
            continue;
        };
        let tree = match format {
            Format::Toml => {
                for input in inputs {
                    files[input.file as usize] = parse::parse(input.file, input.source, findings);
                }
                continue;
            }
            Format::Aws => aws::read(&inputs, findings),
            Format::Terraform => terraform::read(&inputs, findings),
            Format::TerraformShow => terraform::read_shown(&inputs, findings),
            Format::CloudFormation => cloudformation::read(&inputs, findings),
            Format::OpenStack => openstack::read(&inputs, findings),
        };
        files[first] = tree;
    }
    Definition { files }
}

/// What kind a source is; `None` if it cannot be read, which is said.
fn classify<'s>(
    file: u32,
    source: &'s Source,
    findings: &mut Findings,
) -> Option<(Format, Input<'s>)> {
    let whole = At {
        file,
        start: 0,
        end: 0,
    };
    let input = |format, document| {
        let input = Input {
            file,
            source,
            document,
        };
        Some((format, input))
    };
    if source.utf16 {
        findings
            .error(SYNTAX, whole, "this is UTF-16")
            .help("definitions are UTF-8 text: convert the file; in PowerShell, `| Out-File -Encoding utf8` instead of `>`");
        findings.lines_are_broken(file, 1..=usize::MAX);
        return None;
    }
    if let Some(byte) = source.invalid_at {
        let at = At {
            file,
            start: byte as u32,
            end: byte as u32 + 1,
        };
        findings
            .error(SYNTAX, at, "not UTF-8")
            .help("definitions are UTF-8 text: convert the file");
        findings.lines_are_broken(file, 1..=usize::MAX);
        return None;
    }
    if source.format == Some(Format::Toml) {
        return input(Format::Toml, None);
    }
    let document = match format::document(file, source).transpose() {
        Ok(document) => document,
        Err(error) => {
            findings.error(SYNTAX, error.at, error.message);
            findings.lines_are_broken(file, 1..=usize::MAX);
            return None;
        }
    };
    let format = source
        .format
        .or_else(|| format::recognise(source, document.as_ref()));
    if let Some(format) = format {
        return input(format, document);
    }
    const HELP: &str = "known are TOML, the JSON of `aws ec2 describe-…`, Terraform's files and `terraform show -json`, templates of CloudFormation, and Neutron's JSON; `--format` says which one it is";
    if source.found {
        findings
            .warning(
                "not-a-definition",
                whole,
                "this file is of no known kind and is left out",
            )
            .help(HELP);
    } else {
        findings
            .error("not-a-definition", whole, "this file is of no known kind")
            .help(HELP);
    }
    None
}
