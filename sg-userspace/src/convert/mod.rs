//! A model written out in a format that others read.
//!
//! Read again, the files of a conversion yield the model that they were made of, but for what is said to be left
//! out. What a cloud's format has no words for stands in a TOML file beside the others.

use crate::model::{Model, Peer, Rule, Traffic};

mod aws;
mod clouds;
mod host;
mod terraform;
#[cfg(test)]
mod tests;
mod toml;

/// What a model is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Our own format.
    Toml,
    /// What `aws ec2 describe-…` prints.
    AwsJson,
    /// Resources of Terraform's AWS provider.
    Terraform,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Toml, Self::AwsJson, Self::Terraform];

    /// The name by which it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::AwsJson => "aws-json",
            Self::Terraform => "terraform",
        }
    }
}

/// A model in another form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Its files, the one with the groups first.
    pub files: Vec<ConvertedFile>,
    /// What the format cannot say, a clause each.
    pub left_out: Vec<String>,
}

/// A file of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What it holds, for people.
    pub holds: &'static str,
}

/// Writes a model out.
pub fn convert(model: &Model, target: Target) -> Converted {
    match target {
        Target::Toml => toml::convert(model),
        Target::AwsJson => aws::convert(model),
        Target::Terraform => terraform::convert(model),
    }
}

/// A rule in words, for what is left out.
fn in_words(rule: &Rule) -> String {
    let peer = match &rule.peer {
        Peer::Cidr(net) => net.to_string(),
        Peer::PrefixList(name) => format!("prefix list {name}"),
        Peer::Group(name) => format!("group {name}"),
        Peer::GroupOf(name, family) => format!("group {name}, {} only", family.name()),
    };
    format!("\"{}, {peer}\"", rule.traffic)
}

/// Protocol and ports as AWS's interfaces have them (facts 1.9–1.12): `IpProtocol`, `FromPort`, `ToPort`.
fn permission(traffic: &Traffic) -> (String, Option<(i32, i32)>) {
    use crate::model::Icmp;
    let ports = |name: &str, from: i32, to: i32| (name.to_owned(), Some((from, to)));
    let icmp = |name: &str, icmp: &Icmp| match *icmp {
        Icmp::Any => ports(name, -1, -1),
        Icmp::Type(kind) => ports(name, kind.into(), -1),
        Icmp::Code(kind, code) => ports(name, kind.into(), code.into()),
    };
    match traffic {
        Traffic::All => ("-1".into(), None),
        Traffic::Tcp(range) => ports("tcp", range.from.into(), range.to.into()),
        Traffic::Udp(range) => ports("udp", range.from.into(), range.to.into()),
        Traffic::Icmp(kind) => icmp("icmp", kind),
        Traffic::Icmpv6(kind) => icmp("icmpv6", kind),
        Traffic::Protocol(number) => (number.to_string(), None),
    }
}
