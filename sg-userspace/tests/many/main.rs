//! Many interfaces at once. A program of its own: each link takes the kernel's lock of all devices for grace periods, which
//! other tests would wait for, and those are expedited for all of the host.

#[path = "../common/mod.rs"]
mod common;
mod expedited;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use sg_userspace::{
    attach::{self, Place},
    bpf::LinkDetails,
    pin::Pins,
};

use crate::common::{
    netns::{Enforcer, ip},
    pair::{NEAR, Pair, web},
    require::require,
};

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The host's ends of `count` workloads, beside that of [`Pair`].
fn make_devices(pair: &Pair, count: u32) {
    pair.near.run(|| {
        for number in 1..=count {
            ip(&format!("link add v{number} type veth peer name w{number}"));
        }
    });
}

/// Interfaces `i1` to `i<count>` on them with a group each, which is `g<number>` with TCP port `port(number)`, unless
/// `group` says which they carry.
fn host_side(
    pair: &Pair,
    count: u32,
    port: impl Fn(u32) -> u32,
    group: impl Fn(u32) -> u32,
) -> String {
    let mut text = String::new();
    for number in 1..=count {
        write!(
            text,
            "[groups.g{number}]\negress = []\ningress = [{{ protocol = \"tcp\", ports = {}, cidr = [\"10.0.0.0/8\"] }}]\n\
             [interfaces.i{number}]\ndevice = \"v{number}\"\nnetns = \"{}\"\norientation = \"host\"\ngroups = [\"g{}\"]\n",
            port(number),
            pair.near.name,
            group(number)
        )
        .unwrap();
    }
    text
}

/// What is pinned as links.
fn links(enforcer: &Enforcer) -> BTreeMap<PathBuf, LinkDetails> {
    let pins = Pins::new(&enforcer.context.bpffs).links().unwrap();
    let details = pins.into_iter().map(|pin| {
        let details = attach::details(&pin, Place::here(0)).unwrap().unwrap();
        (pin, details)
    });
    details.collect()
}

/// Maps and programs that are pinned.
fn shared(enforcer: &Enforcer) -> BTreeSet<PathBuf> {
    let list = |directory: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let pins = Pins::new(&enforcer.context.bpffs);
    let programs = list(pins.root().join("progs"));
    let maps = list(pins.root().join("maps"));
    maps.into_iter()
        .chain(programs.into_iter().flat_map(list))
        .collect()
}

/// `cargo xtask bench --only control-plane` holds the time against its goal; here it is only to be bounded, whatever
/// else the machine does.
#[test]
fn five_hundred_workloads_with_a_policy_each() {
    require!(Root, Object);
    let _alone = ALONE.lock();
    const MANY: u32 = 499;
    const EACH: Duration = Duration::from_millis(150);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8001, 8499].map(|port| pair.near.serve(NEAR, port));
    make_devices(&pair, MANY + 1);
    let workload = pair.interface("a", "[\"g499\"]", "");
    let definition = |count, first_port: u32| {
        host_side(&pair, count, |number| first_port + number, |number| number) + &workload
    };
    let timed = |what: &str, arguments: &[&str], definition: &str| {
        let start = Instant::now();
        enforcer.apply(definition, arguments).ok();
        let took = start.elapsed();
        assert!(took < EACH * MANY, "{what} took {took:?}");
    };
    let one = web("g499", 8001) + &workload;
    timed(
        "attaching two",
        &[],
        &(host_side(&pair, 1, |_| 8000, |number| number) + &one),
    );
    let before = shared(&enforcer);
    timed("attaching", &[], &definition(MANY, 8000));
    pair.far.connect(NEAR, 8499).unwrap();
    assert!(pair.far.connect_is_dropped(NEAR, 8001));
    timed("changing", &[], &definition(MANY, 7502));
    pair.far.connect(NEAR, 8001).unwrap();
    assert!(pair.far.connect_is_dropped(NEAR, 8499));
    // Maps and programs are shared: none has come.
    assert_eq!(shared(&enforcer), before);

    // One alone leaves the links of the others as they are.
    let by_filters = enforcer.is_by_filters();
    let made = if by_filters {
        BTreeMap::new()
    } else {
        links(&enforcer)
    };
    timed("attaching one more", &[], &definition(MANY + 1, 7502));
    let port = |number| if number == 7 { 9999 } else { 7502 + number };
    let changed = host_side(&pair, MANY + 1, port, |number| number) + &workload;
    timed("changing one", &[], &changed);
    assert_eq!(shared(&enforcer), before);
    if !by_filters {
        let mut now = links(&enforcer);
        let programs: BTreeSet<u32> = now.values().map(|link| link.program_id).collect();
        assert_eq!(programs.len(), 2, "one for each direction: {programs:?}");
        now.retain(|pin, _| made.contains_key(pin));
        assert_eq!(now, made);
    }
    enforcer.sgctl(&["detach", "i500"]).ok();
    if !by_filters {
        assert_eq!(links(&enforcer), made);
    }
    pair.far.connect(NEAR, 8001).unwrap();
    assert!(pair.far.connect_is_dropped(NEAR, 8499));

    timed("detaching", &["--detach-missing"], &one);
    let status = enforcer.sgctl(&["status"]).ok();
    assert_eq!(status.out.matches(": enforced").count(), 1, "{status:?}");
}

/// Interfaces of equal policy take the room of one.
#[test]
fn equal_policies_of_many_are_compiled_once() {
    let enforcer = Enforcer::new();
    let definition = |count: u32| {
        let mut text = web("g", 80);
        for number in 1..=count {
            write!(
                text,
                "[interfaces.i{number}]\ndevice = \"v{number}\"\norientation = \"host\"\ngroups = [\"g\"]\n"
            )
            .unwrap();
        }
        text
    };
    let room = |count| {
        fs::write(&enforcer.file, definition(count)).unwrap();
        let checked = enforcer
            .sgctl(&["check", enforcer.file.to_str().unwrap()])
            .ok();
        let (_, capacity) = checked.out.split_once("capacity used").unwrap();
        let mut lines = capacity.lines().map(str::to_owned);
        let interfaces = lines.find(|line| line.contains("interfaces")).unwrap();
        assert!(
            interfaces.contains(&format!(" {count} of ")),
            "{interfaces}"
        );
        lines.collect::<Vec<_>>()
    };
    assert_eq!(room(500), room(1));
}
