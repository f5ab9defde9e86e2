//! Devices that go down, are renamed, resized, deleted and made again while packets flow.
//!
//! While a device is down packets get lost before anybody judges them; until it is as it was, what is allowed may be
//! missing. What is denied must never arrive, no flow may be cut, and the enforcer drops nothing but what no rule
//! allows.

use std::{fs, thread, time::Duration};

use crate::{
    bed::{Bed, Side, Wire},
    common::require::require,
    remains, scale,
    traffic::{Balance, Signals, during},
};

/// What happens to the near device of a link, or to the far one.
type Event = (&'static str, fn(&Wire));

fn down_and_up(wire: &Wire) {
    wire.near.ip("link set eth0 down");
    thread::sleep(Duration::from_millis(20));
    wire.bring_up();
}

fn far_down_and_up(wire: &Wire) {
    wire.far.ip("link set eth0 down");
    thread::sleep(Duration::from_millis(20));
    wire.bring_up();
}

fn rename_and_back(wire: &Wire) {
    // Before Linux 6.2 a device must be down for it.
    for (from, to) in [("eth0", "other0"), ("other0", "eth0")] {
        wire.near.ip(&format!("link set {from} down"));
        wire.near.ip(&format!("link set {from} name {to}"));
        wire.near.ip(&format!("link set {to} up"));
        thread::sleep(Duration::from_millis(20));
    }
    wire.bring_up();
}

fn mtu_and_back(wire: &Wire) {
    for mtu in [1280, 1400, 1500] {
        wire.near.ip(&format!("link set eth0 mtu {mtu}"));
        wire.far.ip(&format!("link set eth0 mtu {mtu}"));
        thread::sleep(Duration::from_millis(20));
    }
    wire.bring_up();
}

fn other_address_and_back(wire: &Wire) {
    wire.near.ip("addr add 10.77.0.99/24 dev eth0");
    wire.near.ip("addr del 10.77.0.99/24 dev eth0");
}

const EVENTS: [Event; 5] = [
    ("down and up", down_and_up),
    ("the other end down and up", far_down_and_up),
    ("renamed and back", rename_and_back),
    ("MTU", mtu_and_back),
    ("an address more", other_address_and_back),
];

#[test]
fn m6_nothing_that_happens_to_a_device_lets_anything_through_or_cuts_anything() {
    require!(Root, Object);
    events();
}

pub(crate) fn events() {
    let bed = Bed::new();
    during(&bed, Balance::AtMost, |signals| {
        let mut side = Side::A;
        for _ in 0..scale::rounds() {
            for (what, event) in EVENTS {
                for wire in &bed.wires {
                    signals.disturb(|| event(wire));
                    println!("{}: {what}", wire.name);
                    // All as before, by either definition, and all of it is seen to arrive.
                    signals.probe();
                    remains::enforced(&bed);
                    side = side.other();
                    bed.sgctl_apply(side).ok();
                    signals.probe();
                }
            }
        }
    });
}

/// A definition is applied while the device is called otherwise: its new name is in it, and flows stay.
#[test]
fn a_device_that_is_renamed_is_found_by_its_new_name() {
    require!(Root, Object);
    let bed = Bed::new();
    during(&bed, Balance::AtMost, |signals| {
        let [wire, _] = &bed.wires[..] else {
            unreachable!("there are two");
        };
        rename(signals, wire, "eth0", "lan0");
        let file = bed.file(Side::B);
        fs::write(file, bed.definition_on(Side::B, "lan0")).unwrap();
        let said = bed.sgctl_apply(Side::B).ok();
        assert!(said.out.contains("own (lan0): updated"), "{said:?}");
        signals.probe();
        remains::enforced(&bed);
        rename(signals, wire, "lan0", "eth0");
        bed.sgctl_apply(Side::A).ok();
        signals.probe();
        remains::enforced(&bed);
    });
}

fn rename(signals: &Signals, wire: &Wire, from: &str, to: &str) {
    signals.disturb(|| {
        wire.near.ip(&format!("link set {from} down"));
        wire.near.ip(&format!("link set {from} name {to}"));
        wire.near.ip(&format!("link set {to} up"));
        wire.bring_up_as(to);
    });
}

/// Deleted, made again under the same index, and enforced before it is up: what is denied never passes, not even
/// the first packet, and the other link does not notice.
#[test]
fn m1_m6_a_device_that_is_made_again_is_enforced_before_its_first_packet() {
    require!(Root, Object);
    let bed = Bed::new();
    for number in 0..2 {
        let wire = &bed.wires[number % 2];
        bed.sgctl_apply(Side::A).ok();
        during(&bed, Balance::AtMost, |signals| {
            // Connections end with the addresses.
            signals.forgive_streams(wire.name);
            signals.disturb(|| {
                wire.near.ip("link del eth0");
                wire.make();
                bed.sgctl_apply(Side::A).ok();
                wire.bring_up();
            });
            signals.probe();
            remains::enforced(&bed);
            bed.sgctl_apply(Side::B).ok();
            signals.probe();
        });
    }
}
