//! Terraform: its language as text, and what `terraform show -json` prints. Both yield resources with the same
//! attributes, which become a tree.

use super::document::Node;
use super::findings::Findings;
use super::read::Input;
use super::tree::{At, File};

mod hcl;
mod resources;
mod show;

/// What to do about what the text of a configuration does not say.
const SHOW: &str = "`terraform show -json` of a plan or state prints what Terraform knows: give that instead, or write the value";

/// A resource whose attributes are evaluated.
#[derive(Clone, Debug)]
pub(super) struct Resource<'s> {
    /// `aws_security_group.web["a"]`, with the modules that it is in: by this others refer to it.
    pub(super) address: String,
    /// `aws_security_group`.
    pub(super) kind: String,
    /// `web`.
    pub(super) name: String,
    /// Where it begins.
    pub(super) at: At,
    /// A [`super::document::Value::Map`]. Blocks of one type are a list of maps. What stands for an id that is not
    /// known yet is the address of the resource that has it. A comment that stands with a rule's block which has no
    /// description is its description.
    pub(super) attributes: Node<'s>,
}

/// What resources are taken from, and thus what it means that an attribute is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A configuration: what is missing is not managed, or is Terraform's default.
    Configuration,
    /// A plan: it has every attribute that is known before it is carried out.
    Plan,
    /// A state: it has every attribute.
    State,
}

/// Terraform's language and its variable files.
pub(super) fn read(inputs: &[Input<'_>], findings: &mut Findings) -> File {
    let resources = hcl::read(inputs, findings);
    let mark = findings.mark();
    let file = resources::tree(resources, Meaning::Configuration, findings);
    // Instances share their expressions, and what has an error was reported.
    findings.thin_since(mark, "unknown-value", hcl::FAULTY);
    findings.help_since(mark, "unknown-value", SHOW);
    file
}

/// What `terraform show -json` prints.
pub(super) fn read_shown(inputs: &[Input<'_>], findings: &mut Findings) -> File {
    show::read(inputs, findings)
}
