//! Terraform's language as text: parsed by a crate, evaluated here as far as the text says what things are.
//!
//! What the text does not say is a value that is unknown by its name, such as `data.aws_vpc.main.cidr_block`: it is
//! an error only where something is read of it that matters, or where it decides how many of something there are.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use super::super::findings::Findings;
use super::super::read::Input;
use super::super::tree::At;
use super::Resource;

mod comment;
mod convert;
mod evaluator;
mod expression;
mod functions;
mod instances;
mod module;
mod parse;
mod resources;
mod template;
#[cfg(test)]
mod tests;
mod traversal;
mod value;
mod variables;

/// What an expression is called that has an error, which was reported: not to be reported as unknown as well.
pub(super) const FAULTY: &str = "an expression with an error";

/// Stack of the thread that evaluates: expressions may refer to each other over a thousand levels.
const STACK: usize = 256 << 20;

/// A directory: its files are a root module.
#[derive(Default)]
struct Directory<'i, 's> {
    code: Vec<&'i Input<'s>>,
    /// Files of variables that Terraform reads by itself, in its order.
    values: Vec<&'i Input<'s>>,
}

/// The resources of all root modules.
pub(super) fn read(inputs: &[Input<'_>], findings: &mut Findings) -> Vec<Resource<'static>> {
    let started = thread::scope(|scope| {
        let evaluation = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || read_all(inputs, findings));
        let joined = evaluation.map(thread::ScopedJoinHandle::join);
        joined.map(|joined| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    started.unwrap_or_else(|error| {
        let at = At {
            file: inputs.first().map_or(0, |input| input.file),
            start: 0,
            end: 0,
        };
        let message = format!("no thread can be started to evaluate it: {error}");
        findings.error("too-large", at, message);
        Vec::new()
    })
}

fn read_all(inputs: &[Input<'_>], findings: &mut Findings) -> Vec<Resource<'static>> {
    let mut directories: BTreeMap<&Path, Directory<'_, '_>> = BTreeMap::new();
    let mut given = Vec::new();
    for input in inputs {
        let path = Path::new(&*input.source.name);
        let directory = path.parent().unwrap_or(Path::new(""));
        let name = file_name(input);
        if !is_variable_file(name) {
            directories.entry(directory).or_default().code.push(input);
        } else if !input.source.found {
            given.push(input);
        } else if order(name).is_some() {
            directories.entry(directory).or_default().values.push(input);
        } else if !is_given(input, inputs) {
            not_read(input, findings);
        }
    }
    directories.retain(|_, directory| !directory.code.is_empty());
    let several = directories.len() > 1;
    let mut resources = Vec::new();
    for mut directory in directories.into_values() {
        let order = |input: &&Input<'_>| (order(file_name(input)), input.source.name.clone());
        directory.values.sort_by_cached_key(order);
        // Those that are named win, one after the other.
        directory.values.extend(&given);
        if parse::module(
            &directory.code,
            &directory.values,
            several,
            findings,
            &mut resources,
        )
        .is_err()
        {
            break;
        }
    }
    resources
}

fn file_name<'i>(input: &'i Input<'_>) -> &'i str {
    let name = &*input.source.name;
    name.rsplit('/').next().unwrap_or(name)
}

fn is_variable_file(name: &str) -> bool {
    name.ends_with(".tfvars") || name.ends_with(".tfvars.json")
}

/// When Terraform reads a file of variables by itself.
fn order(name: &str) -> Option<u8> {
    match name {
        "terraform.tfvars" => Some(0),
        "terraform.tfvars.json" => Some(1),
        _ if name.ends_with(".auto.tfvars") || name.ends_with(".auto.tfvars.json") => Some(2),
        _ => None,
    }
}

/// Whether a file that was found is named as well.
fn is_given(input: &Input<'_>, inputs: &[Input<'_>]) -> bool {
    let named = inputs.iter().filter(|input| !input.source.found);
    let path = Path::new(&*input.source.name);
    named
        .into_iter()
        .any(|named| Path::new(&*named.source.name) == path)
}

fn not_read(input: &Input<'_>, findings: &mut Findings) {
    let at = At {
        file: input.file,
        start: 0,
        end: 0,
    };
    findings
        .warning("not-carried-over", at, "the values of this file are not used")
        .help("as Terraform, sgctl reads terraform.tfvars and *.auto.tfvars of a directory; any other file of variables must be named");
}
