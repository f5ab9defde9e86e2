use std::net::IpAddr;

use proptest::prelude::*;
use sg_common::layout::Timeout;

use super::*;
use crate::model::{
    Family, Hook, Icmp, IcmpErrors, Interface, OnRevoke, Orientation, Peer, Ports, Rule, Track,
    Traffic,
};

mod files;
mod interfaces;
mod rules;

/// Nothing is found.
const NONE: [&str; 0] = [];

/// What each test says of `[groups.g]`, with nothing else to complain of.
fn group(text: &str) -> String {
    format!("[groups.g]\negress = []\n{text}\n")
}

fn ingress(entry: &str) -> String {
    group(&format!("ingress = [{entry}]"))
}

fn checked(files: &[&str]) -> Checked {
    let name = |number| format!("{number}.toml");
    let sources: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(number, text)| Source::new(&name(number), text.as_bytes().to_vec()))
        .collect();
    check(&sources)
}

fn model(text: &str) -> Model {
    let checked = checked(&[text]);
    assert_eq!(render(&checked.diagnostics), "");
    checked.model.unwrap()
}

fn rules(entry: &str) -> Vec<Rule> {
    let mut model = model(&ingress(entry));
    model.groups.remove("g").unwrap().ingress
}

fn traffic(keys: &str) -> Vec<Traffic> {
    let rules = rules(&format!(r#"{{ {keys}, cidr = "10.0.0.0/8" }}"#));
    rules.into_iter().map(|rule| rule.traffic).collect()
}

/// Codes and positions of what is found.
fn found(files: &[&str]) -> Vec<(&'static str, usize, usize)> {
    let diagnostics = checked(files).diagnostics;
    diagnostics
        .iter()
        .map(|found| {
            let place = found.place.as_ref().unwrap();
            (found.code, place.line, place.column)
        })
        .collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    found(&[text]).into_iter().map(|(code, ..)| code).collect()
}

fn interface(keys: &str) -> Interface {
    let mut model = model(&format!("[interfaces.i]\ngroups = []\n{keys}"));
    model.interfaces.remove("i").unwrap()
}

fn ports(from: u16, to: u16) -> Ports {
    Ports { from, to }
}
