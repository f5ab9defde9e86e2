//! Files to a module, and a module to its resources.

use hcl_edit::structure::Body;

use super::super::super::document::{Node, Value};
use super::super::super::findings::{Findings, SYNTAX};
use super::super::super::read::Input;
use super::super::super::tree::At;
use super::super::Resource;
use super::evaluator::{Evaluator, Place};
use super::module::{Assigned, Module};
use super::value::{Eval, Val};

/// Bytes that the files of a module may have together: parsed, they take up to 150 times as much memory.
const MAX_BYTES: usize = 8 << 20;

/// Signs that may stand behind a key. The parser compares each key of an object with all before it.
const MAX_KEYS: usize = 50_000;

/// What the files of a module may still have.
struct Room {
    bytes: usize,
    keys: usize,
}

/// Adds the resources of a module. `several`: there are others, for which values of variables may be as well.
///
/// # Errors
/// It is beyond what is evaluated, which is reported.
pub(super) fn module(
    code: &[&Input<'_>],
    values: &[&Input<'_>],
    several: bool,
    findings: &mut Findings,
    resources: &mut Vec<Resource<'static>>,
) -> Result<(), ()> {
    let mut room = Room {
        bytes: MAX_BYTES,
        keys: MAX_KEYS,
    };
    let code: Vec<_> = code
        .iter()
        .filter_map(|input| body(input, &mut room, findings))
        .collect();
    let parsed: Vec<_> = values
        .iter()
        .filter(|input| input.document.is_none())
        .filter_map(|input| body(input, &mut room, findings))
        .collect();
    let mut module = Module::default();
    for (place, body) in &code {
        module.declare(body, *place, findings);
    }
    module.bind_imports();
    let mut ignored = Findings::default();
    let said = if several {
        &mut ignored
    } else {
        &mut *findings
    };
    for input in values {
        if let Some(document) = &input.document {
            json_values(document, &mut module, said);
        } else if let Some((place, body)) =
            parsed.iter().find(|(place, _)| place.file == input.file)
        {
            module.assign(body, *place, said);
        }
    }
    let mut evaluator = Evaluator::new(&module, findings);
    evaluator.resources(resources).map_err(|_| ())
}

/// A file, parsed.
fn body(input: &Input<'_>, room: &mut Room, findings: &mut Findings) -> Option<(Place, Body)> {
    let whole = At {
        file: input.file,
        start: 0,
        end: 0,
    };
    if input.document.is_some() {
        findings
            .error(
                "not-carried-over",
                whole,
                "JSON as Terraform's language is not read",
            )
            .help(super::super::SHOW);
        return None;
    }
    let text = &input.source.text;
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let place = Place {
        file: input.file,
        shift: (text.len() - body.len()) as u32,
    };
    let keys = body.bytes().filter(|byte| b"=:".contains(byte)).count();
    let left = room.bytes.checked_sub(body.len());
    let Some((bytes, keys)) = left.zip(room.keys.checked_sub(keys)) else {
        let message = format!(
            "the files of a module have more than {MAX_BYTES} bytes, or {MAX_KEYS} signs `=` and `:`, together"
        );
        findings
            .error("too-large", whole, message)
            .help(super::super::SHOW);
        return None;
    };
    *room = Room { bytes, keys };
    match hcl_edit::parser::parse_body(body) {
        Ok(body) => Some((place, body)),
        Err(error) => {
            let start = body.floor_char_boundary(error.location().offset());
            let end = body.ceil_char_boundary(start + 1).min(body.len());
            let message = format!("this is not Terraform's language: {}", error.message());
            findings.error(SYNTAX, place.at(Some(start..end.max(start))), message);
            findings.lines_are_broken(input.file, 1..=usize::MAX);
            None
        }
    }
}

/// Values of variables from JSON.
fn json_values(document: &Node<'_>, module: &mut Module<'_>, findings: &mut Findings) {
    let Some(entries) = document.map() else {
        let message = format!(
            "a file of variables must be an object, not {}",
            document.kind()
        );
        findings.error("wrong-type", document.at, message);
        return;
    };
    for (name, node) in entries {
        match of_node(node) {
            Ok(value) => {
                module.assign_value(&name.value, Assigned::Value(value), name.at, findings)
            }
            Err(fault) => {
                findings.error(fault.code, fault.at, fault.message);
            }
        }
    }
}

fn of_node(node: &Node<'_>) -> Eval {
    let at = node.at;
    match &node.value {
        Value::Null => Ok(Val::null(at)),
        Value::Bool(value) => Ok(Val::bool(*value, at)),
        Value::Number(text) => Ok(Val::number(text.parse().unwrap_or_default(), at)),
        Value::String(text) => Val::string(&**text, at),
        Value::Unknown(what) => Ok(Val::unknown(what, at)),
        Value::List(nodes) => Val::list(nodes.iter().map(of_node).collect::<Eval<_>>()?, at),
        Value::Map(entries) => {
            let entry = |(key, node): &(
                super::super::super::tree::Located<std::borrow::Cow<'_, str>>,
                Node<'_>,
            )| { Ok(((&*key.value).into(), (key.at, of_node(node)?))) };
            Val::map(entries.iter().map(entry).collect::<Eval<_>>()?, at)
        }
    }
}
