//! Functions of lists and maps.

use std::collections::BTreeMap;

use super::super::value::{Data, Val};
use super::{Answer, Arguments, Stop};

pub(super) fn call(arguments: &Arguments<'_>) -> Option<Answer> {
    Some(match arguments.name {
        "length" => length(arguments),
        "keys" => keys(arguments),
        "values" => values(arguments),
        "lookup" => lookup(arguments),
        "element" => element(arguments),
        "index" => index(arguments),
        "concat" => concat(arguments),
        "flatten" => flatten(arguments),
        "compact" => compact(arguments),
        "coalesce" => coalesce(arguments),
        "coalescelist" => coalescelist(arguments),
        "merge" => merge(arguments),
        "zipmap" => zipmap(arguments),
        "slice" => slice(arguments),
        "chunklist" => chunklist(arguments),
        "reverse" => reverse(arguments),
        "sort" => sort(arguments),
        "range" => range(arguments),
        "one" => one(arguments),
        "transpose" => transpose(arguments),
        "matchkeys" => matchkeys(arguments),
        _ => return None,
    })
}

fn length(arguments: &Arguments<'_>) -> Answer {
    let [value] = arguments.exactly()?;
    let length = match &value.data {
        Data::List(items) | Data::Set(items) => items.items.len(),
        Data::Map(entries) => entries.entries.len(),
        Data::String(text) => text.chars().count(),
        _ => return Err(arguments.wrong(value, "a list, map or string")),
    };
    Ok(Val::number(length as f64, arguments.at))
}

fn keys(arguments: &Arguments<'_>) -> Answer {
    let [map] = arguments.exactly()?;
    let entries = &arguments.entries(map)?.entries;
    let keys = entries
        .iter()
        .map(|(key, (at, _))| Ok(Val::string(key.clone(), *at)?));
    arguments.list(keys.collect::<Answer<_>>()?)
}

fn values(arguments: &Arguments<'_>) -> Answer {
    let [map] = arguments.exactly()?;
    let entries = &arguments.entries(map)?.entries;
    arguments.list(entries.values().map(|(_, value)| value.clone()).collect())
}

fn lookup(arguments: &Arguments<'_>) -> Answer {
    let key = arguments.text(arguments.get(1)?)?;
    let entries = arguments.entries(arguments.get(0)?)?;
    match (entries.entries.get(&key), arguments.values.get(2)) {
        (Some((_, value)), _) | (None, Some(value)) => Ok(value.clone()),
        (None, None) => Err(arguments.fault(format!("there is no key {key:?}, and no default"))),
    }
}

fn element(arguments: &Arguments<'_>) -> Answer {
    let [list, index] = arguments.exactly()?;
    let items = arguments.items(list)?;
    if items.is_empty() {
        return Err(arguments.fault("the list is empty"));
    }
    let index = arguments.whole(index)?.rem_euclid(items.len() as i64);
    Ok(items[index as usize].clone())
}

fn index(arguments: &Arguments<'_>) -> Answer {
    let [list, value] = arguments.exactly()?;
    for (index, item) in arguments.items(list)?.iter().enumerate() {
        match item.equals(value) {
            Some(true) => return Ok(Val::number(index as f64, arguments.at)),
            Some(false) => {}
            None => return Err(Stop::Unknown("index(…)".into())),
        }
    }
    Err(arguments.fault("the list has no such element"))
}

fn concat(arguments: &Arguments<'_>) -> Answer {
    arguments.bounded(arguments.values.iter().map(Val::width).sum())?;
    let mut all = Vec::new();
    for list in arguments.values {
        all.extend_from_slice(arguments.items(list)?);
    }
    arguments.list(all)
}

fn flatten(arguments: &Arguments<'_>) -> Answer {
    fn add(value: &Val, flat: &mut Vec<Val>) {
        match &value.data {
            Data::List(items) | Data::Set(items) => {
                items.items.iter().for_each(|item| add(item, flat));
            }
            _ => flat.push(value.clone()),
        }
    }
    let [list] = arguments.exactly()?;
    let mut flat = Vec::new();
    for item in arguments.items(list)? {
        add(item, &mut flat);
    }
    arguments.list(flat)
}

/// Whether it is null or an empty string.
fn is_blank(value: &Val) -> bool {
    match &value.data {
        Data::Null => true,
        Data::String(text) => text.is_empty(),
        _ => false,
    }
}

fn compact(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    let kept = arguments.items(list)?.iter().filter(|item| !is_blank(item));
    arguments.list(kept.cloned().collect())
}

fn coalesce(arguments: &Arguments<'_>) -> Answer {
    let found = arguments.values.iter().find(|value| !is_blank(value));
    let found = found.ok_or_else(|| arguments.fault("all arguments are null or empty"))?;
    Ok(found.clone())
}

fn coalescelist(arguments: &Arguments<'_>) -> Answer {
    for list in arguments.values {
        if !matches!(list.data, Data::Null) && !arguments.items(list)?.is_empty() {
            return Ok(list.clone());
        }
    }
    Err(arguments.fault("all arguments are null or empty"))
}

fn merge(arguments: &Arguments<'_>) -> Answer {
    arguments.bounded(arguments.values.iter().map(Val::width).sum())?;
    let mut merged = BTreeMap::new();
    for map in arguments.values {
        if let Data::Null = map.data {
            continue;
        }
        for (key, value) in &arguments.entries(map)?.entries {
            merged.insert(key.clone(), value.clone());
        }
    }
    arguments.map(merged)
}

fn zipmap(arguments: &Arguments<'_>) -> Answer {
    let [keys, values] = arguments.exactly()?;
    let (names, items) = (arguments.texts(keys)?, arguments.items(values)?);
    if names.len() != items.len() {
        return Err(arguments.fault(format!("{} keys for {} values", names.len(), items.len())));
    }
    let places = arguments.items(keys)?.iter().map(|key| key.at);
    let entries = names.into_iter().zip(places.zip(items.iter().cloned()));
    arguments.map(entries.collect())
}

fn slice(arguments: &Arguments<'_>) -> Answer {
    let [list, start, end] = arguments.exactly()?;
    let items = arguments.items(list)?;
    let (start, end) = (arguments.whole(start)?, arguments.whole(end)?);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    match range.and_then(|(start, end)| items.get(start..end)) {
        Some(part) => arguments.list(part.to_vec()),
        None => Err(arguments.fault(format!(
            "a list of {} has no elements {start} to {end}",
            items.len()
        ))),
    }
}

fn chunklist(arguments: &Arguments<'_>) -> Answer {
    let [list, size] = arguments.exactly()?;
    let items = arguments.items(list)?;
    let size = match arguments.whole(size)? {
        0 => items.len().max(1),
        size => {
            usize::try_from(size).map_err(|_| arguments.fault("the size must not be negative"))?
        }
    };
    let chunks = items
        .chunks(size)
        .map(|chunk| arguments.list(chunk.to_vec()));
    arguments.list(chunks.collect::<Answer<_>>()?)
}

fn reverse(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    let items = arguments.items(list)?;
    arguments.list(items.iter().rev().cloned().collect())
}

fn sort(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    let places = arguments.items(list)?.iter().map(|item| item.at);
    let texts = arguments.texts(list)?;
    let mut texts: Vec<_> = texts.into_iter().zip(places).collect();
    texts.sort_by(|a, b| a.0.cmp(&b.0));
    let sorted = texts
        .into_iter()
        .map(|(text, at)| Ok(Val::string(text, at)?));
    arguments.list(sorted.collect::<Answer<_>>()?)
}

fn range(arguments: &Arguments<'_>) -> Answer {
    /// As many as Terraform makes.
    const MAX: usize = 1024;
    let numbers = arguments.values.iter().map(|value| arguments.number(value));
    let numbers: Vec<f64> = numbers.collect::<Answer<_>>()?;
    let (start, limit, step) = match numbers[..] {
        [limit] => (0.0, limit, if limit < 0.0 { -1.0 } else { 1.0 }),
        [start, limit] => (start, limit, if limit < start { -1.0 } else { 1.0 }),
        [start, limit, step] => (start, limit, step),
        _ => return Err(arguments.fault("1 to 3 arguments are needed")),
    };
    if step == 0.0 || (limit < start) != (step < 0.0) && limit != start {
        return Err(arguments.fault("the step never leads to the limit"));
    }
    let mut items = Vec::new();
    let mut number = start;
    while if step < 0.0 {
        number > limit
    } else {
        number < limit
    } {
        if items.len() == MAX {
            return Err(arguments.fault(format!("more than {MAX} values, which Terraform refuses")));
        }
        items.push(Val::number(number, arguments.at));
        number += step;
    }
    arguments.list(items)
}

fn one(arguments: &Arguments<'_>) -> Answer {
    let [list] = arguments.exactly()?;
    match arguments.items(list)? {
        [] => Ok(Val::null(arguments.at)),
        [only] => Ok(only.clone()),
        items => Err(arguments.fault(format!("the list has {} elements", items.len()))),
    }
}

fn transpose(arguments: &Arguments<'_>) -> Answer {
    let [map] = arguments.exactly()?;
    let mut lists: BTreeMap<_, (_, Vec<Val>)> = BTreeMap::new();
    for (key, (at, list)) in &arguments.entries(map)?.entries {
        for item in arguments.items(list)? {
            let name = arguments.text(item)?;
            let (_, keys) = lists.entry(name).or_insert_with(|| (item.at, Vec::new()));
            keys.push(Val::string(key.clone(), *at)?);
        }
    }
    let entry = |(name, (at, keys))| Ok((name, (at, arguments.list(keys)?)));
    arguments.map(lists.into_iter().map(entry).collect::<Answer<_>>()?)
}

fn matchkeys(arguments: &Arguments<'_>) -> Answer {
    let [values, keys, wanted] = arguments.exactly()?;
    let (values, keys) = (arguments.items(values)?, arguments.items(keys)?);
    let wanted = arguments.items(wanted)?;
    let wanted: std::collections::HashSet<String> = wanted.iter().map(Val::canonical).collect();
    let pairs = values.iter().zip(keys);
    let found = pairs.filter(|(_, key)| wanted.contains(&key.canonical()));
    arguments.list(found.map(|(value, _)| value.clone()).collect())
}
