//! What an operator does to a definition.

use super::{
    Source,
    places::{self, Ip},
    policy::{prefix, rule},
};
use crate::policy::{Group, Peer, Policy, Prefix, Rule, What};

/// Another definition than the last of `earlier`: something added, removed, moved, or taken back.
pub fn changed(source: &mut Source<'_>, earlier: &[Policy]) -> Policy {
    let mut policy = earlier.last().expect("one is in force").clone();
    match source.below(14) {
        0 | 1 => add_rule(source, &mut policy),
        2..=4 => remove_rule(source, &mut policy),
        5 | 6 => open(source, &mut policy),
        7 | 8 => return back(source, earlier),
        9 => regroup(source, &mut policy),
        10 => turn(source, &mut policy),
        11 | 12 => swap(source, &mut policy),
        _ => populate(source, &mut policy),
    }
    policy
}

fn any_group<'p>(source: &mut Source<'_>, policy: &'p mut Policy) -> Option<&'p mut Group> {
    let names: Vec<String> = policy.groups.keys().cloned().collect();
    policy.groups.get_mut(source.among(&names)?)
}

fn add_rule(source: &mut Source<'_>, policy: &mut Policy) {
    let groups: Vec<String> = policy.groups.keys().cloned().collect();
    let lists: Vec<String> = policy.lists.keys().cloned().collect();
    let rule = rule(source, &groups, &lists);
    let ingress = source.one_in(2);
    if let Some(group) = any_group(source, policy) {
        let rules = if ingress {
            &mut group.ingress
        } else {
            &mut group.egress
        };
        rules.push(rule);
    }
}

/// Removes a rule, or all of a direction.
fn remove_rule(source: &mut Source<'_>, policy: &mut Policy) {
    let ingress = source.one_in(2);
    let all = source.one_in(3);
    let which = source.below(8);
    if let Some(group) = any_group(source, policy) {
        let rules = if ingress {
            &mut group.ingress
        } else {
            &mut group.egress
        };
        if all {
            rules.clear();
        } else if !rules.is_empty() {
            rules.remove(which % rules.len());
        }
    }
}

/// Opens a group both ways, so that its flows are untracked.
fn open(source: &mut Source<'_>, policy: &mut Policy) {
    if let Some(group) = any_group(source, policy) {
        for everywhere in [Prefix([0; 4].into(), 0), Prefix([0; 16].into(), 0)] {
            let rule = Rule {
                what: What::All,
                peer: Peer::Prefix(everywhere),
            };
            group.ingress.push(rule.clone());
            group.egress.push(rule);
        }
    }
}

/// Takes changes back. What is gone stays gone: a device that comes back is another one.
fn back(source: &mut Source<'_>, earlier: &[Policy]) -> Policy {
    let now = earlier.last().expect("one is in force");
    let recent = source.below(earlier.len().min(3));
    let mut policy = earlier[earlier.len() - 1 - recent].clone();
    policy
        .interfaces
        .retain(|name, _| now.interfaces.contains_key(name));
    policy
}

/// Gives an interface another group, takes one from it, or the interface away.
fn regroup(source: &mut Source<'_>, policy: &mut Policy) {
    let groups: Vec<String> = policy.groups.keys().cloned().collect();
    let names: Vec<String> = policy.interfaces.keys().cloned().collect();
    let Some(name) = source.among(&names) else {
        return;
    };
    if names.len() > 1 && source.one_in(8) {
        policy.interfaces.remove(name);
        return;
    }
    let group = source.among(&groups).expect("there is a group");
    let interface = policy.interfaces.get_mut(name).expect("its name");
    match interface.groups.iter().position(|one| one == group) {
        Some(at) => drop(interface.groups.remove(at)),
        None => interface.groups.push(group.clone()),
    }
}

/// Swaps the directions of a group: what may open a flow goes, and what may answer stays.
fn swap(source: &mut Source<'_>, policy: &mut Policy) {
    let cuts = source.one_in(2);
    if let Some(group) = any_group(source, policy) {
        std::mem::swap(&mut group.ingress, &mut group.egress);
        group.reevaluate |= cuts;
    }
}

/// Turns a switch.
fn turn(source: &mut Source<'_>, policy: &mut Policy) {
    if source.one_in(2) {
        if let Some(group) = any_group(source, policy) {
            group.reevaluate = !group.reevaluate;
        }
        return;
    }
    let names: Vec<String> = policy.interfaces.keys().cloned().collect();
    let Some(interface) = source
        .among(&names)
        .and_then(|name| policy.interfaces.get_mut(name))
    else {
        return;
    };
    let switches = [
        &mut interface.track_always,
        &mut interface.tcp_loose,
        &mut interface.icmp_strict,
        &mut interface.source_dest_check,
        &mut interface.dhcp,
    ];
    let which = source.below(switches.len());
    for (at, switch) in switches.into_iter().enumerate() {
        *switch ^= at == which;
    }
}

/// Members come and go; so do entries of lists.
fn populate(source: &mut Source<'_>, policy: &mut Policy) {
    let names: Vec<String> = policy.lists.keys().cloned().collect();
    if source.one_in(2)
        && let Some(name) = source.among(&names)
    {
        let entries = policy.lists.get_mut(name).expect("its name");
        if entries.pop().is_none() || source.one_in(2) {
            entries.push(prefix(source));
        }
        return;
    }
    let ip = source.of(&Ip::BOTH);
    let member = places::anybody(source, ip);
    if let Some(group) = any_group(source, policy)
        && group.members.pop().is_none()
    {
        group.members.push(member);
    }
}
