//! Functions of sets, and those that ask whether and how often something is in a list.

use std::collections::HashSet;

use super::super::value::{Data, Val};
use super::{Answer, Arguments, Stop};

pub(super) fn call(arguments: &Arguments<'_>) -> Option<Answer> {
    Some(match arguments.name {
        "toset" => to_set(arguments),
        "tolist" => to_list(arguments),
        "tomap" => to_map(arguments),
        "distinct" => distinct(arguments),
        "contains" => contains(arguments),
        "setunion" => union(arguments),
        "setintersection" => intersection(arguments),
        "setsubtract" => subtract(arguments),
        "setproduct" => product(arguments),
        "alltrue" => all_true(arguments),
        "anytrue" => any_true(arguments),
        _ => return None,
    })
}

fn to_set(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    set(arguments, arguments.items(list)?.to_vec())
}

/// A set has elements of one type: where some are strings, all become strings.
fn set(arguments: &Arguments<'_>, mut items: Vec<Val>) -> Answer {
    let is_text = |item: &Val| matches!(item.data, Data::String(_));
    let is_plain = |item: &Val| matches!(item.data, Data::Number(_) | Data::Bool(_));
    if items.iter().any(is_text) {
        for item in items.iter_mut().filter(|item| is_plain(item)) {
            *item = Val::string(arguments.text(item)?, item.at)?;
        }
    }
    Ok(Val::set(items, arguments.at)?)
}

fn to_list(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    arguments.list(arguments.items(list)?.to_vec())
}

fn to_map(arguments: &Arguments<'_>) -> Answer {
    let [map] = arguments.exactly()?;
    arguments.entries(map)?;
    Ok(map.clone())
}

fn distinct(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    let mut seen = HashSet::new();
    let first = |item: &&Val| seen.insert(item.canonical());
    let items = arguments.items(list)?.iter().filter(first);
    arguments.list(items.cloned().collect())
}

fn contains(arguments: &Arguments<'_>) -> Answer {
    let [list, value] = arguments.exactly()?;
    let mut unknown = false;
    for item in arguments.items(list)? {
        match item.equals(value) {
            Some(true) => return Ok(Val::bool(true, arguments.at)),
            Some(false) => {}
            None => unknown = true,
        }
    }
    if unknown {
        return Err(Stop::Unknown("contains(…)".into()));
    }
    Ok(Val::bool(false, arguments.at))
}

fn union(arguments: &Arguments<'_>) -> Answer {
    arguments.bounded(arguments.values.iter().map(Val::width).sum())?;
    let mut all = Vec::new();
    for list in arguments.values {
        all.extend_from_slice(arguments.items(list)?);
    }
    set(arguments, all)
}

fn intersection(arguments: &Arguments<'_>) -> Answer {
    let mut common = arguments.items(arguments.get(0)?)?.to_vec();
    for list in &arguments.values[1..] {
        let other: HashSet<String> = arguments.items(list)?.iter().map(Val::canonical).collect();
        common.retain(|item| other.contains(&item.canonical()));
    }
    set(arguments, common)
}

fn subtract(arguments: &Arguments<'_>) -> Answer {
    let [from, what] = arguments.exactly()?;
    let what: HashSet<String> = arguments.items(what)?.iter().map(Val::canonical).collect();
    let items = arguments.items(from)?.iter();
    let left = items.filter(|item| !what.contains(&item.canonical()));
    set(arguments, left.cloned().collect())
}

/// Of sets a set, of lists a list.
fn product(arguments: &Arguments<'_>) -> Answer {
    let lists = arguments.values.iter().map(|value| arguments.items(value));
    let lists: Vec<&[Val]> = lists.collect::<Answer<_>>()?;
    if lists.len() < 2 {
        return Err(arguments.fault("at least 2 arguments are needed"));
    }
    let lengths = lists.iter().map(|list| list.len());
    let count = lengths.fold(1, usize::saturating_mul);
    arguments.bounded(count.saturating_mul(lists.len()))?;
    let mut tuples: Vec<Vec<Val>> = vec![Vec::new()];
    for list in &lists {
        let longer = |tuple: &Vec<Val>| {
            let tuple = tuple.clone();
            list.iter().map(move |item| {
                let mut longer = tuple.clone();
                longer.push(item.clone());
                longer
            })
        };
        tuples = tuples.iter().flat_map(longer).collect();
    }
    let tuples = tuples.into_iter().map(|tuple| arguments.list(tuple));
    let tuples: Vec<Val> = tuples.collect::<Answer<_>>()?;
    let is_set = |value: &Val| matches!(value.data, Data::Set(_));
    if arguments.values.iter().all(is_set) {
        return Ok(Val::set(tuples, arguments.at)?);
    }
    arguments.list(tuples)
}

fn all_true(arguments: &Arguments<'_>) -> Answer {
    truth(arguments, false)
}

fn any_true(arguments: &Arguments<'_>) -> Answer {
    truth(arguments, true)
}

/// `deciding` if any element is that, else the opposite.
fn truth(arguments: &Arguments<'_>, deciding: bool) -> Answer {
    let [list] = arguments.exactly()?;
    let mut unknown = None;
    for item in arguments.items(list)? {
        match arguments.bool(item) {
            Ok(value) if value == deciding => return Ok(Val::bool(deciding, arguments.at)),
            Ok(_) => {}
            Err(Stop::Unknown(what)) => unknown = Some(what),
            Err(fault) => return Err(fault),
        }
    }
    match unknown {
        Some(what) => Err(Stop::Unknown(what)),
        None => Ok(Val::bool(!deciding, arguments.at)),
    }
}
