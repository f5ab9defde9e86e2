//! Functions of numbers.

use super::super::value::{Data, Val};
use super::{Answer, Arguments};

pub(super) fn call(arguments: &Arguments<'_>) -> Option<Answer> {
    Some(match arguments.name {
        "min" => extreme(arguments, f64::min),
        "max" => extreme(arguments, f64::max),
        "ceil" => one(arguments, f64::ceil),
        "floor" => one(arguments, f64::floor),
        "abs" => one(arguments, f64::abs),
        "signum" => one(
            arguments,
            |number| {
                if number == 0.0 { 0.0 } else { number.signum() }
            },
        ),
        "pow" => two(arguments, f64::powf),
        "log" => two(arguments, f64::log),
        "sum" => sum(arguments),
        "parseint" => parse_int(arguments),
        _ => return None,
    })
}

fn one(arguments: &Arguments<'_>, change: impl Fn(f64) -> f64) -> Answer {
    let [number] = arguments.exactly()?;
    arguments.finite(change(arguments.number(number)?))
}

fn two(arguments: &Arguments<'_>, change: impl Fn(f64, f64) -> f64) -> Answer {
    let [a, b] = arguments.exactly()?;
    arguments.finite(change(arguments.number(a)?, arguments.number(b)?))
}

fn extreme(arguments: &Arguments<'_>, choose: impl Fn(f64, f64) -> f64) -> Answer {
    let mut numbers = arguments.values.iter().map(|value| arguments.number(value));
    let first = numbers
        .next()
        .ok_or_else(|| arguments.fault("an argument is needed"))??;
    let mut chosen = first;
    for number in numbers {
        chosen = choose(chosen, number?);
    }
    arguments.finite(chosen)
}

fn sum(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    let items = arguments.items(list)?;
    if items.is_empty() {
        return Err(arguments.fault("the list is empty"));
    }
    let mut sum = 0.0;
    for item in items {
        sum += arguments.number(item)?;
    }
    arguments.finite(sum)
}

fn parse_int(arguments: &Arguments<'_>) -> Answer {
    let [text, base] = arguments.exactly()?;
    if let Data::Number(_) = text.data {
        return Err(arguments.wrong(text, "a string"));
    }
    let (text, base) = (arguments.text(text)?, arguments.whole(base)?);
    let base = u32::try_from(base)
        .ok()
        .filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| arguments.fault("the base must be 2 to 36"))?;
    match i64::from_str_radix(&text, base) {
        Ok(number) => Ok(Val::number(number as f64, arguments.at)),
        Err(_) => Err(arguments.fault(format!("{text:?} is no number to the base {base}"))),
    }
}
