//! `format` and `formatlist`: verbs as in C, and `%v` for any value.

use std::rc::Rc;

use super::super::value::{Data, Val, number_text};
use super::encoding;
use super::{Answer, Arguments};

/// Characters that a verb may fill up to.
const MAX_WIDTH: usize = 1024;

pub(super) fn format(arguments: &Arguments<'_>) -> Answer {
    let pattern = arguments.text(arguments.get(0)?)?;
    let text = formatted(arguments, &pattern, &arguments.values[1..])?;
    arguments.string(text)
}

/// The same for each element of the lists among the arguments.
pub(super) fn format_list(arguments: &Arguments<'_>) -> Answer {
    let pattern = arguments.text(arguments.get(0)?)?;
    let values = &arguments.values[1..];
    let lists = values
        .iter()
        .filter_map(|value| arguments.items(value).ok());
    let lengths: Vec<usize> = lists.map(<[Val]>::len).collect();
    let count = lengths.first().copied().unwrap_or(1);
    if lengths.iter().any(|length| *length != count) {
        return Err(arguments.fault("the lists have different lengths"));
    }
    let mut texts = Vec::with_capacity(count);
    let mut size = 0;
    for index in 0..count {
        let own = |value: &Val| match &value.data {
            Data::List(items) | Data::Set(items) => items.items[index].clone(),
            _ => value.clone(),
        };
        let own: Vec<Val> = values.iter().map(own).collect();
        let text = arguments.string(formatted(arguments, &pattern, &own)?)?;
        size += text.size();
        arguments.bounded(size)?;
        texts.push(text);
    }
    arguments.list(texts)
}

/// What stands between `%` and its letter.
#[derive(Default)]
struct Verb {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

fn formatted(arguments: &Arguments<'_>, pattern: &str, values: &[Val]) -> Answer<String> {
    let mut out = String::new();
    let mut rest = pattern;
    let mut next = 0;
    while let Some(start) = rest.find('%') {
        arguments.push(&mut out, &rest[..start])?;
        rest = &rest[start + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            arguments.push(&mut out, "%")?;
            rest = behind;
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = rest.chars().next().filter(|c| "-0+ #".contains(*c)) {
            verb.left |= flag == '-';
            verb.zeros |= flag == '0';
            verb.plus |= flag == '+';
            rest = &rest[1..];
        }
        verb.width = digits(&mut rest).unwrap_or(0).min(MAX_WIDTH);
        if let Some(behind) = rest.strip_prefix('.') {
            rest = behind;
            verb.precision = Some(digits(&mut rest).unwrap_or(0).min(MAX_WIDTH));
        }
        if let Some(behind) = rest.strip_prefix('[') {
            rest = behind;
            let index = digits(&mut rest).unwrap_or(0);
            rest = rest.strip_prefix(']').unwrap_or(rest);
            next = index.wrapping_sub(1);
        }
        let Some(letter) = rest.chars().next() else {
            return Err(arguments.fault("a `%` stands at the end"));
        };
        rest = &rest[letter.len_utf8()..];
        let value = values.get(next);
        let value = value.ok_or_else(|| arguments.fault("there are more verbs than values"))?;
        next += 1;
        let text = verb.text(arguments, letter, value)?;
        arguments.push(&mut out, &text)?;
    }
    arguments.push(&mut out, rest)?;
    Ok(out)
}

/// Digits at the beginning, which are taken.
fn digits(rest: &mut &str) -> Option<usize> {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (own, behind) = rest.split_at(end);
    *rest = behind;
    own.parse().ok()
}

impl Verb {
    fn text(&self, arguments: &Arguments<'_>, letter: char, value: &Val) -> Answer<String> {
        let text: Rc<str> = match letter {
            's' => self.cut(&arguments.text(value)?),
            'v' => match &value.data {
                Data::String(text) => text.clone(),
                _ => encoding::json(arguments, value)?.into(),
            },
            'q' => encoding::json(arguments, &arguments.string(arguments.text(value)?)?)?.into(),
            't' => arguments.bool(value)?.to_string().into(),
            'd' => self.signed(arguments.whole(value)?.to_string()),
            'x' => self.signed(format!("{:x}", arguments.whole(value)?)),
            'X' => self.signed(format!("{:X}", arguments.whole(value)?)),
            'o' => self.signed(format!("{:o}", arguments.whole(value)?)),
            'b' => self.signed(format!("{:b}", arguments.whole(value)?)),
            'f' | 'F' => {
                let precision = self.precision.unwrap_or(6);
                self.signed(format!("{:.precision$}", arguments.number(value)?))
            }
            'g' | 'G' => self.signed(number_text(arguments.number(value)?)),
            _ => return Err(arguments.fault(format!("`%{letter}` is not known"))),
        };
        let missing = self.width.saturating_sub(text.chars().count());
        if missing == 0 {
            return Ok(text.to_string());
        }
        let is_number = matches!(value.data, Data::Number(_));
        Ok(match text.strip_prefix(['-', '+']) {
            _ if self.left => format!("{text}{}", " ".repeat(missing)),
            Some(rest) if self.zeros && is_number => {
                format!("{}{}{rest}", &text[..1], "0".repeat(missing))
            }
            _ if self.zeros => format!("{}{text}", "0".repeat(missing)),
            _ => format!("{}{text}", " ".repeat(missing)),
        })
    }

    fn cut(&self, text: &str) -> Rc<str> {
        match self.precision {
            Some(precision) => text.chars().take(precision).collect::<String>().into(),
            None => text.into(),
        }
    }

    fn signed(&self, text: String) -> Rc<str> {
        if self.plus && !text.starts_with('-') {
            return format!("+{text}").into();
        }
        text.into()
    }
}
