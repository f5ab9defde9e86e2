//! Templates of CloudFormation, in YAML and JSON (facts 7.30–7.32).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::document::{Node, Value, yaml};
use super::escape::quote;
use super::findings::{Findings, SYNTAX};
use super::names;
use super::read::Input;
use super::text;
use super::tree::{At, DefaultEgress, File, Located};
use evaluate::Evaluator;

mod condition;
mod evaluate;
mod group;
mod interface;

/// Never shown: a group of a template that does not say what may leave has a meaning.
const UNSETTLED_EGRESS: &str = "give `SecurityGroupEgress`";

pub(super) fn read(inputs: &[Input<'_>], findings: &mut Findings) -> File {
    let parsed: Vec<Option<Node<'_>>> = inputs
        .iter()
        .map(|input| match &input.document {
            Some(_) => None,
            None => match yaml::parse(input.file, &input.source.text, long_form) {
                Ok(document) => Some(document),
                Err(error) => {
                    findings.error(SYNTAX, error.at, error.message);
                    findings.lines_are_broken(input.file, 1..=usize::MAX);
                    None
                }
            },
        })
        .collect();
    let documents = inputs
        .iter()
        .zip(&parsed)
        .filter_map(|(input, parsed)| Some((input, input.document.as_ref().or(parsed.as_ref())?)));
    let mut templates: Vec<Template<'_, '_>> = documents
        .filter_map(|(input, document)| Template::new(input, document, findings))
        .collect();
    tell_apart(&mut templates);
    let mut resources = Vec::new();
    for template in &templates {
        template.resources(&mut resources, findings);
    }
    let start = At {
        file: inputs[0].file,
        start: 0,
        end: 0,
    };
    let mark = findings.mark();
    let mut reader = Reader {
        findings,
        named: HashMap::new(),
        unnamed: HashSet::new(),
    };
    reader.learn_names(&resources);
    let groups = reader.groups(&resources);
    let prefix_lists = reader.prefix_lists(&resources);
    let remote_interfaces = reader.interfaces(&resources);
    findings.help_since(mark, "unknown-value", HELP);
    File {
        groups,
        prefix_lists,
        remote_interfaces,
        // Fact 7.52.
        egress: Some(Located {
            value: DefaultEgress::Allow,
            at: start,
        }),
        unsettled_egress: Some(UNSETTLED_EGRESS),
        ..File::default()
    }
}

/// The long form of a tag: `!Ref` is `Ref`, `!Sub` is `Fn::Sub`.
fn long_form(tag: &str) -> Option<String> {
    const FUNCTIONS: [&str; 20] = [
        "And",
        "Base64",
        "Cidr",
        "Equals",
        "FindInMap",
        "ForEach",
        "GetAZs",
        "GetAtt",
        "If",
        "ImportValue",
        "Join",
        "Length",
        "Not",
        "Or",
        "Select",
        "Split",
        "Sub",
        "ToJsonString",
        "Transform",
        "GetStackOutput",
    ];
    match tag {
        "Ref" | "Condition" => Some(tag.into()),
        _ => FUNCTIONS.contains(&tag).then(|| format!("Fn::{tag}")),
    }
}

struct Template<'t, 's> {
    name: &'t str,
    document: &'t Node<'s>,
    /// Logical names of resources, and the words that stand for their ids.
    words: HashMap<String, String>,
    /// Logical names of resources, and what they are called among all templates.
    shown: HashMap<String, String>,
}

/// A resource of a kind that has to do with groups, with its properties evaluated.
struct Resource<'s> {
    kind: String,
    /// What it is called in its template.
    logical: String,
    /// By this others of its template refer to it.
    word: String,
    /// What it is called among all templates.
    shown: String,
    /// Its logical name.
    at: At,
    properties: Node<'s>,
}

impl<'t, 's> Template<'t, 's> {
    fn new(input: &'t Input<'_>, document: &'t Node<'s>, findings: &mut Findings) -> Option<Self> {
        let resources = document.get("Resources").and_then(Node::map);
        let Some(resources) = resources else {
            let at = At {
                end: document.at.end.min(document.at.start + 1),
                ..document.at
            };
            findings
                .error("missing-key", at, "the template has no `Resources`")
                .help("a template of CloudFormation names its resources there");
            return None;
        };
        for transform in ["Transform", "Fn::Transform"]
            .iter()
            .filter_map(|key| document.get(key))
        {
            findings
                .warning(
                    "not-carried-over",
                    transform.at,
                    "what this transform makes of the template is not known here",
                )
                .help("give the template that it makes: `aws cloudformation get-template --template-stage Processed`");
        }
        let names = resources.iter().map(|(name, _)| name.value.to_string());
        Some(Self {
            name: &input.source.name,
            document,
            words: names.clone().map(|name| (name, String::new())).collect(),
            shown: names.map(|name| (name.clone(), name)).collect(),
        })
    }

    fn resources(&self, all: &mut Vec<Resource<'s>>, findings: &mut Findings) {
        let mut evaluator = Evaluator::new(self.document, &self.words);
        let resources = self.document.get("Resources").and_then(Node::map);
        for (name, node) in resources.unwrap_or_default() {
            let Some(kind) = kind(name, node, findings) else {
                continue;
            };
            let is_read = group::KINDS.contains(&kind) || interface::KINDS.contains(&kind);
            if !is_read {
                report(kind, name, node, findings);
                continue;
            }
            if let Some(condition) = node.get("Condition") {
                let exists = match &condition.value {
                    Value::String(condition) => evaluator.condition(condition),
                    _ => Err("its condition".into()),
                };
                match exists {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(what) => {
                        let message = format!(
                            "whether {} exists is not known from this file: {}",
                            quote(&name.value),
                            quote(&what)
                        );
                        findings
                            .error("unknown-value", condition.at, message)
                            .help(HELP);
                        continue;
                    }
                }
            }
            let Some(properties) = properties(&mut evaluator, name, node, findings) else {
                continue;
            };
            all.push(Resource {
                kind: kind.into(),
                logical: name.value.clone().into_owned(),
                word: self.words[&*name.value].clone(),
                shown: self.shown[&*name.value].clone(),
                at: name.at,
                properties,
            });
        }
    }
}

const HELP: &str =
    "give parameters a `Default`, or take what is deployed from `aws ec2 describe-security-groups`";

const PROCESSED: &str = "give the template that the transform makes: `aws cloudformation get-template --template-stage Processed`";

/// The type of a resource; `None` if it does not say.
fn kind<'n>(
    name: &Located<Cow<'_, str>>,
    node: &'n Node<'_>,
    findings: &mut Findings,
) -> Option<&'n str> {
    if name.value.starts_with("Fn::") {
        let function = match name.value.starts_with("Fn::ForEach") {
            true => "Fn::ForEach",
            false => &name.value,
        };
        let message = format!(
            "resources made by {} are not known from this file",
            quote(function)
        );
        findings
            .error("unknown-value", name.at, message)
            .help(PROCESSED);
        return None;
    }
    match node.get("Type").map(|node| &node.value) {
        Some(Value::String(kind)) => return Some(kind),
        Some(_) => {
            let message = format!("the type of {} must be a string", quote(&name.value));
            findings.error("wrong-type", name.at, message);
        }
        None => {
            let message = format!("{} has no `Type`", quote(&name.value));
            findings
                .error("missing-key", name.at, message)
                .help("each resource says what it is");
        }
    }
    None
}

/// The properties of a resource, evaluated; `None` if they are not known. To take them for none would be to
/// take the defaults, which let everything out.
fn properties<'s>(
    evaluator: &mut Evaluator<'_, 's>,
    name: &Located<Cow<'_, str>>,
    node: &Node<'s>,
    findings: &mut Findings,
) -> Option<Node<'s>> {
    let entries = node.map().unwrap_or_default();
    let own = entries.iter().find(|(key, _)| key.value == "Properties");
    let Some((_, own)) = own else {
        return Some(Node {
            at: name.at,
            value: Value::Map(Vec::new()),
        });
    };
    let properties = evaluator.evaluate(own);
    match &properties.value {
        Value::Map(_) => return Some(properties),
        Value::Unknown(what) => {
            let message = format!(
                "the properties of {} are not known from this file: {}",
                quote(&name.value),
                quote(what)
            );
            findings.error("unknown-value", own.at, message).help(HELP);
        }
        _ => {
            let message = format!(
                "the properties of {} must be an object, not {}",
                quote(&name.value),
                properties.kind()
            );
            findings.error("wrong-type", own.at, message);
        }
    }
    None
}

/// Says of a resource that has to do with groups and is of no kind that is read.
fn report(kind: &str, name: &Located<Cow<'_, str>>, node: &Node<'_>, findings: &mut Findings) {
    const SILENT: &str = "AWS::EC2::SecurityGroupVpcAssociation";
    let (message, help) = if kind == "AWS::CloudFormation::Stack" {
        (
            "is a stack of its own, whose template is not here",
            "give that template as well",
        )
    } else if kind != SILENT && (kind.contains("SecurityGroup") || kind.contains("PrefixList")) {
        (
            "is of a kind that is not read",
            "write what it says in a TOML file beside",
        )
    } else if node
        .get("Properties")
        .is_some_and(|node| names_groups(node, 0))
    {
        (
            "has groups, but the addresses of its interfaces are not known: they are no members",
            "list them in [members.GROUP] of a TOML file beside, or take them from `aws ec2 describe-network-interfaces`",
        )
    } else {
        return;
    };
    let message = format!("{} ({}) {message}", quote(&name.value), text::name_of(kind));
    findings
        .warning("not-carried-over", name.at, message)
        .help(help);
}

/// Whether properties, or what they hold, name groups.
fn names_groups(node: &Node<'_>, depth: usize) -> bool {
    const KEYS: [&str; 5] = [
        "SecurityGroups",
        "SecurityGroupIds",
        "VpcSecurityGroupIds",
        "VPCSecurityGroups",
        "GroupSet",
    ];
    const LEVELS: usize = 6;
    match &node.value {
        Value::Map(entries) if depth < LEVELS => entries
            .iter()
            .any(|(key, value)| KEYS.contains(&&*key.value) || names_groups(value, depth + 1)),
        Value::List(nodes) if depth < LEVELS => {
            nodes.iter().any(|node| names_groups(node, depth + 1))
        }
        _ => false,
    }
}

/// Gives resources of several templates that are called alike different words. A logical name has a meaning in
/// its template only: what stands for it is no id and no name that another file could mean.
fn tell_apart(templates: &mut [Template<'_, '_>]) {
    let mut seen = HashSet::new();
    let mut shared = HashSet::new();
    for name in templates.iter().flat_map(|template| template.shown.keys()) {
        if !seen.insert(name.clone()) {
            shared.insert(name.clone());
        }
    }
    let mut files = HashSet::new();
    for (number, template) in templates.iter_mut().enumerate() {
        let mut file = text::name_of(template.name);
        while !files.insert(file.clone()) {
            file = format!("{file}#{number}");
        }
        for (name, word) in &mut template.words {
            *word = names::word_of_template(&file, name);
        }
        for (name, shown) in &mut template.shown {
            if shared.contains(name) {
                *shown = format!("{name} in {}", template.name);
            }
        }
    }
}

struct Reader<'f> {
    findings: &'f mut Findings,
    /// Words of groups by their `GroupName`; `None` of a name that several have.
    named: HashMap<String, Option<String>>,
    /// Logical names of groups without.
    unnamed: HashSet<String>,
}

impl Reader<'_> {
    fn not_carried_over(&mut self, resource: &Resource<'_>, message: &str, help: &str) {
        let message = format!("{} {message}", quote(&resource.logical));
        self.findings
            .warning("not-carried-over", resource.at, message)
            .help(help);
    }
}

#[cfg(test)]
mod tests;
