//! Functions of text.

use super::super::value::Val;
use super::{Answer, Arguments, Stop, format};

pub(super) fn call(arguments: &Arguments<'_>) -> Option<Answer> {
    Some(match arguments.name {
        "join" => join(arguments),
        "split" => split(arguments),
        "format" => format::format(arguments),
        "formatlist" => format::format_list(arguments),
        "lower" => one(arguments, |text| text.to_lowercase()),
        "upper" => one(arguments, |text| text.to_uppercase()),
        "title" => one(arguments, title),
        "strrev" => one(arguments, |text| text.chars().rev().collect()),
        "trimspace" => one(arguments, |text| text.trim().into()),
        "chomp" => one(arguments, |text| text.trim_end_matches(['\r', '\n']).into()),
        "trim" => two(arguments, |text, cut| {
            text.trim_matches(|c| cut.contains(c)).into()
        }),
        "trimprefix" => two(arguments, |text, cut| {
            text.strip_prefix(cut).unwrap_or(text).into()
        }),
        "trimsuffix" => two(arguments, |text, cut| {
            text.strip_suffix(cut).unwrap_or(text).into()
        }),
        "startswith" => ask(arguments, |text, start| text.starts_with(start)),
        "endswith" => ask(arguments, |text, end| text.ends_with(end)),
        "strcontains" => ask(arguments, |text, part| text.contains(part)),
        "replace" => replace(arguments),
        "substr" => substr(arguments),
        _ => return None,
    })
}

fn one(arguments: &Arguments<'_>, change: impl Fn(&str) -> String) -> Answer {
    let [text] = arguments.exactly()?;
    arguments.string(change(&arguments.text(text)?))
}

fn two(arguments: &Arguments<'_>, change: impl Fn(&str, &str) -> String) -> Answer {
    let [text, other] = arguments.exactly()?;
    arguments.string(change(&arguments.text(text)?, &arguments.text(other)?))
}

fn ask(arguments: &Arguments<'_>, question: impl Fn(&str, &str) -> bool) -> Answer {
    let [text, other] = arguments.exactly()?;
    let answer = question(&arguments.text(text)?, &arguments.text(other)?);
    Ok(Val::bool(answer, arguments.at))
}

fn title(text: &str) -> String {
    let mut within = false;
    let change = |c: char| {
        let first = c.is_alphanumeric() && !within;
        within = c.is_alphanumeric() || c == '\'' || c == '_';
        if first {
            c.to_uppercase().next().unwrap_or(c)
        } else {
            c
        }
    };
    text.chars().map(change).collect()
}

fn join(arguments: &Arguments<'_>) -> Answer {
    let separator = arguments.text(arguments.get(0)?)?;
    let mut joined = String::new();
    let mut first = true;
    for list in &arguments.values[1..] {
        for text in arguments.texts(list)? {
            if !first {
                arguments.push(&mut joined, &separator)?;
            }
            first = false;
            arguments.push(&mut joined, &text)?;
        }
    }
    arguments.string(joined)
}

fn split(arguments: &Arguments<'_>) -> Answer {
    let [separator, value] = arguments.exactly()?;
    let (separator, text) = (arguments.text(separator)?, arguments.text(value)?);
    let part = |part: &str| Ok(Val::string(part, value.at)?);
    if separator.is_empty() {
        let parts = text.chars().map(|c| part(c.encode_utf8(&mut [0; 4])));
        return arguments.list(parts.collect::<Answer<_>>()?);
    }
    arguments.list(text.split(&*separator).map(part).collect::<Answer<_>>()?)
}

fn replace(arguments: &Arguments<'_>) -> Answer {
    let [text, what, with] = arguments.exactly()?;
    let (text, what) = (arguments.text(text)?, arguments.text(what)?);
    let with = arguments.text(with)?;
    if what.len() > 1 && what.starts_with('/') && what.ends_with('/') {
        return Err(Stop::Unknown(
            "a replacement by a regular expression".into(),
        ));
    }
    let mut replaced = String::new();
    let mut first = true;
    for part in text.split(&*what) {
        if !first {
            arguments.push(&mut replaced, &with)?;
        }
        first = false;
        arguments.push(&mut replaced, part)?;
    }
    arguments.string(replaced)
}

fn substr(arguments: &Arguments<'_>) -> Answer {
    let [text, offset, length] = arguments.exactly()?;
    let characters: Vec<char> = arguments.text(text)?.chars().collect();
    let (offset, length) = (arguments.whole(offset)?, arguments.whole(length)?);
    let count = characters.len() as i64;
    let start = if offset < 0 { count + offset } else { offset }.clamp(0, count);
    let end = if length < 0 {
        count
    } else {
        start.saturating_add(length).min(count)
    };
    let part: String = characters[start as usize..end as usize].iter().collect();
    arguments.string(part)
}
