//! JSON, and conversions to simple types.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::value::{Data, Val, number_text};
use super::{Answer, Arguments, Stop};

pub(super) fn call(arguments: &Arguments<'_>) -> Option<Answer> {
    Some(match arguments.name {
        "tostring" => simple(arguments, |value| arguments.string(arguments.text(value)?)),
        "tonumber" => simple(arguments, |value| {
            Ok(Val::number(arguments.number(value)?, value.at))
        }),
        "tobool" => simple(arguments, |value| {
            Ok(Val::bool(arguments.bool(value)?, value.at))
        }),
        "sensitive" | "nonsensitive" | "ephemeralasnull" => {
            arguments.exactly::<1>().map(|[value]| value.clone())
        }
        "jsonencode" => encode(arguments),
        "jsondecode" => decode(arguments),
        _ => return None,
    })
}

/// Null stays null, and a reference is a string.
fn simple<'v>(arguments: &Arguments<'v>, convert: impl Fn(&'v Val) -> Answer) -> Answer {
    let [value] = arguments.exactly()?;
    match value.data {
        Data::Null => Ok(value.clone()),
        Data::Reference(_) if arguments.name == "tostring" => Ok(value.clone()),
        _ => convert(value),
    }
}

fn encode(arguments: &Arguments<'_>) -> Answer {
    let [value] = arguments.exactly()?;
    arguments.string(json(arguments, value)?)
}

/// JSON as Terraform writes it: without space, and what means something in HTML as `\u….`.
pub(super) fn json(arguments: &Arguments<'_>, value: &Val) -> Answer<String> {
    let mut text = String::new();
    write(arguments, value, &mut text)?;
    Ok(text)
}

fn write(arguments: &Arguments<'_>, value: &Val, out: &mut String) -> Answer<()> {
    let quoted = |text: &str| {
        let json = serde_json::Value::from(text).to_string();
        json.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    };
    match &value.data {
        Data::Null => arguments.push(out, "null"),
        Data::Bool(value) => arguments.push(out, if *value { "true" } else { "false" }),
        Data::Number(number) => arguments.push(out, &number_text(*number)),
        Data::String(text) => arguments.push(out, &quoted(text)),
        Data::List(items) | Data::Set(items) => {
            arguments.push(out, "[")?;
            for (index, item) in items.items.iter().enumerate() {
                if index > 0 {
                    arguments.push(out, ",")?;
                }
                write(arguments, item, out)?;
            }
            arguments.push(out, "]")
        }
        Data::Map(entries) => {
            arguments.push(out, "{")?;
            for (index, (key, (_, item))) in entries.entries.iter().enumerate() {
                if index > 0 {
                    arguments.push(out, ",")?;
                }
                arguments.push(out, &quoted(key))?;
                arguments.push(out, ":")?;
                write(arguments, item, out)?;
            }
            arguments.push(out, "}")
        }
        Data::Reference(what) | Data::Unknown(what) => Err(Stop::Unknown(what.clone())),
        Data::Instance(_) => Err(Stop::Unknown("jsonencode(…)".into())),
    }
}

fn decode(arguments: &Arguments<'_>) -> Answer {
    let [text] = arguments.exactly()?;
    let decoded: serde_json::Value = serde_json::from_str(&arguments.text(text)?)
        .map_err(|error| arguments.fault(format!("this is not JSON: {error}")))?;
    from_json(arguments, decoded)
}

fn from_json(arguments: &Arguments<'_>, json: serde_json::Value) -> Answer {
    use serde_json::Value as Json;
    let at = arguments.at;
    Ok(match json {
        Json::Null => Val::null(at),
        Json::Bool(value) => Val::bool(value, at),
        Json::Number(number) => Val::number(number.as_f64().unwrap_or_default(), at),
        Json::String(text) => Val::string(text, at)?,
        Json::Array(items) => {
            let items = items.into_iter().map(|item| from_json(arguments, item));
            arguments.list(items.collect::<Answer<_>>()?)?
        }
        Json::Object(entries) => {
            let mut map = BTreeMap::new();
            for (key, item) in entries {
                map.insert(Rc::from(key), (at, from_json(arguments, item)?));
            }
            arguments.map(map)?
        }
    })
}
