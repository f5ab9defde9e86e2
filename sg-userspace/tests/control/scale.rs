//! What AWS's quotas allow, and more, in real maps.

use std::{fmt::Write as _, net::Ipv4Addr};

use crate::common::{
    netns::{Enforcer, ip},
    pair::{FAR, FAR6, NEAR, NEAR6, Pair},
    require::require,
};

/// Addresses of a hundred thousand members.
fn members() -> impl Iterator<Item = Ipv4Addr> {
    (0..100_000).map(|number| Ipv4Addr::from(0x0a00_0000 + number))
}

fn quoted<T: ToString>(values: impl Iterator<Item = T>) -> String {
    let quoted: Vec<String> = values
        .map(|value| format!("\"{}\"", value.to_string()))
        .collect();
    quoted.join(", ")
}

#[test]
fn a_hundred_thousand_members_of_one_group() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let definition = |more: &[Ipv4Addr]| {
        let members = quoted(members().chain(more.iter().copied()));
        format!(
            "[groups.g]\negress = []\ningress = [{{ protocol = \"tcp\", ports = 8080, group = \"m\" }}]\n\
             [groups.m]\negress = []\n[members.m]\naddresses = [{members}]\n"
        ) + &pair.interface("a", "[\"g\"]", "")
    };
    enforcer.apply(&definition(&[FAR]), &[]).ok();
    pair.far.connect(NEAR, 8080).unwrap();
    enforcer.apply(&definition(&[]), &[]).ok();
    assert!(pair.far.connect_is_dropped(NEAR, 8080), "a member no more");
}

#[test]
fn a_hundred_thousand_members_of_a_thousand_groups() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8100, 8101, 8999].map(|port| pair.near.serve(NEAR, port));
    let mut definition = String::new();
    let mut rules = String::new();
    let all: Vec<Ipv4Addr> = members().collect();
    for (number, some) in all.chunks(100).enumerate() {
        // The other side is in two of them.
        let far = matches!(number, 100 | 999).then_some(FAR);
        let members = quoted(some.iter().copied().chain(far));
        writeln!(
            definition,
            "[groups.m{number}]\negress = []\n[members.m{number}]\naddresses = [{members}]"
        )
        .unwrap();
        let port = 8000 + number;
        write!(
            rules,
            "{{ protocol = \"tcp\", ports = {port}, group = \"m{number}\" }}, "
        )
        .unwrap();
    }
    writeln!(definition, "[groups.g]\negress = []\ningress = [{rules}]").unwrap();
    definition += &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    pair.far.connect(NEAR, 8100).unwrap();
    pair.far.connect(NEAR, 8999).unwrap();
    assert!(pair.far.connect_is_dropped(NEAR, 8101), "of another group");
}

#[test]
#[ignore = "minutes; see CONTRIBUTING.md"]
fn l9_a_million_prefixes_of_each_family() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8001, 8002, 8500].map(|port| pair.near.serve(NEAR, port));
    let _servers6 = [8001, 8002, 8500].map(|port| pair.near.serve(NEAR6, port));
    let mut definition = String::new();
    let mut rules = String::new();
    for list in 0..1000 {
        let v4 = (0..1000).map(|n| Ipv4Addr::from(0x0b00_0000 + list * 1024 + n));
        let v4 = v4.map(|address| format!("{address}/32"));
        let v6 = (0..1000).map(|n| format!("2001:db8:{list:x}:{n:x}::/64"));
        // The other side by itself in one list, and within a wide prefix in another.
        let far: &[String] = match list {
            1 => &[format!("{FAR}/32"), format!("{FAR6}/128")],
            500 => &["10.64.0.0/10".into(), "fd00::/8".into()],
            _ => &[],
        };
        let entries = quoted(v4.chain(v6).chain(far.iter().cloned()));
        writeln!(definition, "[prefix_lists.l{list}]\nentries = [{entries}]").unwrap();
        let port = 8000 + list;
        write!(
            rules,
            "{{ protocol = \"tcp\", ports = {port}, prefix_list = \"l{list}\" }}, "
        )
        .unwrap();
    }
    writeln!(
        definition,
        "[groups.g]\ningress = [{rules}]\negress = [{rules}]"
    )
    .unwrap();
    definition += &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    for port in [8001, 8500] {
        pair.far.connect(NEAR, port).unwrap();
        pair.far.connect(NEAR6, port).unwrap();
    }
    assert!(pair.far.connect_is_dropped(NEAR, 8002));
    assert!(pair.far.connect_is_dropped(NEAR6, 8002));
}

#[test]
#[ignore = "minutes; see CONTRIBUTING.md"]
fn k12_a_thousand_interfaces_with_a_policy_each() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8002, 8003].map(|port| pair.near.serve(NEAR, port));
    let mut definition = String::new();
    for number in 1..1000 {
        pair.near.run(|| {
            ip(&format!("link add v{number} type veth peer name w{number}"));
        });
        write!(
            definition,
            "[groups.g{number}]\negress = []\ningress = [{{ protocol = \"tcp\", ports = {}, cidr = [\"10.0.0.0/8\", \"fd00::/8\"] }}]\n\
             [interfaces.i{number}]\ndevice = \"v{number}\"\nnetns = \"{}\"\norientation = \"own\"\ngroups = [\"g{number}\"]\n",
            8000 + number,
            pair.near.name
        )
        .unwrap();
    }
    definition += &pair.interface("a", "[\"g2\"]", "");
    // As few descriptors as a login shell gives: tries are many more.
    std::fs::write(&enforcer.file, &definition).unwrap();
    let command = enforcer.command(&["apply", enforcer.file.to_str().unwrap()]);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=1024:4096").arg(command.get_program());
    limited.args(command.get_args());
    crate::common::netns::Answer::from(limited.output().unwrap()).ok();
    pair.far.connect(NEAR, 8002).unwrap();
    assert!(pair.far.connect_is_dropped(NEAR, 8003));
}
