//! Two links, one enforced at the workload's device and one at the host's end, and the two definitions
//! that alternate on them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Mutex,
};

use sg_common::abi::map;
use sg_userspace::{
    apply::{self, Options, Report},
    definition,
    model::Model,
    pin::Pins,
    state::Lock,
    table::Table,
};

use crate::common::netns::{Answer, Enforcer, Namespace, eventually, ip};

/// Which of the two definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const ALL: [Side; 2] = [Side::A, Side::B];

    pub(crate) fn other(self) -> Self {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Which definitions may have been in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sides(u8);

impl Sides {
    pub(crate) const BOTH: Sides = Sides(3);

    pub(crate) fn only(self, side: Side) -> bool {
        self.0 == side.bit()
    }

    pub(crate) fn has(self, side: Side) -> bool {
        self.0 & side.bit() != 0
    }
}

impl From<Side> for Sides {
    fn from(side: Side) -> Self {
        Self(side.bit())
    }
}

/// A port allowed by both definitions, by one of them, or by neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Both,
    Only(Side),
    Neither,
}

impl Class {
    pub(crate) const ALL: [Class; 4] = [
        Class::Both,
        Class::Only(Side::A),
        Class::Only(Side::B),
        Class::Neither,
    ];

    /// Its distance from the first of four ports.
    pub(crate) fn offset(self) -> u16 {
        match self {
            Class::Both => 0,
            Class::Only(Side::A) => 1,
            Class::Only(Side::B) => 2,
            Class::Neither => 3,
        }
    }

    /// Whether a packet that opens something passes whichever of these definitions is in force.
    pub(crate) fn must(self, sides: Sides) -> bool {
        match self {
            Class::Both => true,
            Class::Only(side) => sides.only(side),
            Class::Neither => false,
        }
    }

    /// Whether one of these definitions lets it pass.
    pub(crate) fn may(self, sides: Sides) -> bool {
        match self {
            Class::Both => true,
            Class::Only(side) => sides.has(side),
            Class::Neither => false,
        }
    }
}

/// UDP over IPv4 is tracked; its ports by class.
pub(crate) const TRACKED: u16 = 5000;
/// UDP over IPv6 is untracked, because the other direction is open.
pub(crate) const UNTRACKED: u16 = 5100;
/// UDP and TCP over IPv6 that A does not track and B does.
pub(crate) const HANDED: u16 = 5110;
/// TCP for connections that live long.
pub(crate) const STREAMS: u16 = 6000;
/// TCP for connections that come in storms.
pub(crate) const STORM: u16 = 6010;

pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const NEAR6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const FAR6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// Where else the far end sends from: known by prefix, and as members of a group.
pub(crate) const FAR_SOURCES: [u8; 8] = [4, 5, 6, 7, 20, 21, 22, 23];
/// The same for the near end.
pub(crate) const NEAR_SOURCES: [u8; 8] = [12, 13, 14, 15, 24, 25, 26, 27];

/// An enforced link. The device is eth0 at both ends, and the near one is enforced.
pub(crate) struct Wire {
    /// Its name as an interface.
    pub(crate) name: &'static str,
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
    /// `own`: the workload is at the near end; `host`: at the far one.
    orientation: &'static str,
    hook: &'static str,
}

impl Wire {
    fn new(name: &'static str, orientation: &'static str, hook: &'static str) -> Self {
        let wire = Self {
            name,
            near: Namespace::new("near"),
            far: Namespace::new("far"),
            orientation,
            hook,
        };
        wire.make();
        wire.bring_up();
        wire
    }

    /// Makes the pair, down.
    pub(crate) fn make(&self) {
        ip(&format!(
            "link add eth0 index 10 address 02:00:00:00:00:01 netns {} type veth peer name eth0 address 02:00:00:00:00:02 netns {}",
            self.near.name, self.far.name
        ));
    }

    pub(crate) fn bring_up(&self) {
        self.bring_up_as("eth0");
    }

    /// Brings it up, with addresses, and with neighbours that need not be asked for, where the near device is called
    /// so.
    pub(crate) fn bring_up_as(&self, near: &str) {
        let ends = [(&self.near, near, 1, 2, 2), (&self.far, "eth0", 2, 1, 1)];
        for (end, device, own, other, mac) in ends {
            end.ip(&format!("link set {device} up"));
            end.ip(&format!("addr replace 10.77.0.{own}/24 dev {device}"));
            end.ip(&format!("addr replace fd77::{own}/64 dev {device} nodad"));
            for address in [format!("10.77.0.{other}"), format!("fd77::{other}")] {
                end.ip(&format!(
                    "neigh replace {address} lladdr 02:00:00:00:00:0{mac} nud permanent dev {device}"
                ));
            }
        }
    }

    /// The direction that packets from far to near have, as counters are called, and the other one.
    pub(crate) fn directions(&self) -> [&'static str; 2] {
        match self.orientation {
            "own" => ["ingress", "egress"],
            _ => ["egress", "ingress"],
        }
    }

    /// Its group and its table in a definition.
    fn definition(&self, side: Side, device: &str) -> String {
        let [forward, backward] = self.directions();
        // The direction back is open over IPv6, and so what comes from everywhere forward is untracked.
        let open = ["udp", "tcp"].map(|protocol| {
            format!("{{ protocol = \"{protocol}\", ports = \"0-65535\", cidr = \"::/0\" }},\n")
        });
        let open = open.concat();
        let everywhere = match side {
            Side::A => "::/0",
            Side::B => "fd77::/16",
        };
        let handed = ["udp", "tcp"].map(|protocol| {
            format!("{{ protocol = \"{protocol}\", ports = {HANDED}, cidr = \"{everywhere}\" }},\n")
        });
        let handed = handed.concat();
        let untracked = format!(
            "{{ protocol = \"udp\", ports = {}, cidr = \"::/0\" }},\n",
            ports(side, UNTRACKED)
        );
        let (common, filler) = (common(side), filler(side));
        // The same rules stand elsewhere in the maps of the other definition.
        let [rules, back] = match side {
            Side::A => [
                format!("{common}{handed}{untracked}{filler}"),
                format!("{common}{open}{filler}"),
            ],
            Side::B => [
                format!("{filler}{untracked}{common}{handed}"),
                format!("{filler}{open}{common}"),
            ],
        };
        let Self {
            name,
            orientation,
            hook,
            ..
        } = self;
        format!(
            "[groups.{name}]\n{forward} = [\n{rules}]\n{backward} = [\n{back}]\n[interfaces.{name}]\ndevice = \"{device}\"\n\
             netns = \"{}\"\norientation = \"{orientation}\"\nhook = \"{hook}\"\ngroups = [\"{name}\"]\n",
            self.near.name
        )
    }
}

/// Ports of a definition among the four that begin at `first`.
fn ports(side: Side, first: u16) -> String {
    let both = first + Class::Both.offset();
    format!("[{both}, {}]", first + Class::Only(side).offset())
}

/// What peers on the link may do.
fn common(side: Side) -> String {
    let mut rules = String::new();
    for (protocol, first) in [("udp", TRACKED), ("tcp", STREAMS), ("tcp", STORM)] {
        let ports = ports(side, first);
        for peer in [
            "cidr = \"10.77.0.0/28\"",
            "group = \"members\"",
            "cidr = \"fd77::/16\"",
        ] {
            if protocol == "udp" && peer.contains("fd77") {
                continue;
            }
            rules += &format!("{{ protocol = \"{protocol}\", ports = {ports}, {peer} }},\n");
        }
    }
    rules
}

/// Rules that no packet here meets, other ones and other numbers of them in each definition.
fn filler(side: Side) -> String {
    let (count, network) = match side {
        Side::A => (20, 11),
        Side::B => (70, 12),
    };
    (0..count)
        .map(|number| {
            let first = 100 * number + 1;
            format!(
                "{{ protocol = \"tcp\", ports = [{first}, {}], cidr = \"{network}.1.{number}.0/24\" }},\n",
                first + 40
            )
        })
        .collect()
}

/// Which definitions generations hold.
#[derive(Debug, Default)]
pub(crate) struct Generations(Mutex<BTreeMap<u32, Sides>>);

impl Generations {
    /// From this generation on it is one of these.
    pub(crate) fn from(&self, generation: u32, sides: impl Into<Sides>) {
        let mut known = self.0.lock().unwrap();
        known.split_off(&generation);
        known.insert(generation, sides.into());
    }

    /// Which were in force from one generation to another.
    pub(crate) fn between(&self, first: u32, last: u32) -> Sides {
        let known = self.0.lock().unwrap();
        let at = |generation: u32| {
            let (_, sides) = known.range(..=generation).next_back()?;
            Some(sides.0)
        };
        let sides = (first..=last).map(|generation| at(generation).expect("it was announced"));
        Sides(sides.fold(0, |all, sides| all | sides))
    }
}

/// The links, what enforces them, and what is known about its generations.
pub(crate) struct Bed {
    pub(crate) enforcer: Enforcer,
    pub(crate) wires: Vec<Wire>,
    pub(crate) generations: Generations,
    /// Definition files of A and B.
    pub(crate) files: [PathBuf; 2],
    /// More keys of the first link's interface.
    more: &'static str,
}

impl Bed {
    /// Two links on which A is in force.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same with more keys of the first link's interface.
    pub(crate) fn with(more: &'static str) -> Self {
        let enforcer = Enforcer::new();
        let files = [
            enforcer.file.with_extension("a.toml"),
            enforcer.file.with_extension("b.toml"),
        ];
        let bed = Self {
            wires: vec![
                Wire::new("own", "own", "tc"),
                Wire::new("host", "host", "xdp"),
            ],
            generations: Generations::default(),
            enforcer,
            files,
            more,
        };
        for side in Side::ALL {
            fs::write(bed.file(side), bed.definition(side)).unwrap();
        }
        bed.generations.from(0, Side::A);
        bed.sgctl_apply(Side::A).ok();
        assert_eq!(bed.generation(), 1);
        bed
    }

    pub(crate) fn file(&self, side: Side) -> &PathBuf {
        &self.files[side as usize]
    }

    /// A definition, whole.
    pub(crate) fn definition(&self, side: Side) -> String {
        self.definition_on(side, "eth0")
    }

    /// The same where the first link's device is called otherwise.
    pub(crate) fn definition_on(&self, side: Side, device: &str) -> String {
        let mut text = String::new();
        let members: Vec<String> = [FAR_SOURCES, NEAR_SOURCES]
            .concat()
            .iter()
            .filter(|host| **host > 15)
            .map(|host| format!("\"10.77.0.{host}\""))
            .collect();
        text += "[groups.members]\ningress = []\negress = []\n";
        // Members of one definition that nobody here is make the members stand elsewhere, too.
        let others = (0..30 * side as u32).map(|number| format!(", \"10.99.{number}.1\""));
        text += &format!(
            "[members.members]\naddresses = [{}{}]\n",
            members.join(", "),
            others.collect::<String>()
        );
        for (wire, (device, more)) in self.wires.iter().zip([(device, self.more), ("eth0", "")]) {
            text += &wire.definition(side, device);
            text += more;
            text += "\n";
        }
        text
    }

    /// The definition as the library takes it.
    pub(crate) fn model(&self, side: Side) -> Model {
        let checked = definition::load(&[self.file(side).clone()]).unwrap();
        checked
            .model
            .unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
    }

    /// Puts a definition in force without a process of its own.
    pub(crate) fn apply(&self, model: &Model, side: Side) -> Report {
        self.generations.from(self.generation() + 1, side);
        let context = &self.enforcer.context;
        let mut taken = None;
        // A process that another test is about to start holds it, too, until it is started.
        eventually("the lock", || {
            taken = Lock::take(&context.state_dir).ok();
            taken.is_some()
        });
        let lock = taken.unwrap();
        let applied = apply::apply_locked(context, &lock, model, Options::default());
        applied.unwrap().0
    }

    /// `sgctl apply` of a definition.
    pub(crate) fn sgctl_apply(&self, side: Side) -> Answer {
        if self.pins().exist() {
            self.generations.from(self.generation() + 1, side);
        }
        let file = self.file(side).to_str().unwrap();
        self.enforcer.sgctl(&["apply", file])
    }

    /// Says that the next generation is of one definition, and that if it is taken back again the one after it is of
    /// that of before.
    pub(crate) fn announce(&self, wanted: Side, before: Side) {
        let generation = self.generation();
        self.generations.from(generation + 1, wanted);
        self.generations.from(generation + 2, before);
    }

    /// The generation in force, as the programs read it.
    pub(crate) fn generation(&self) -> u32 {
        if !self.pins().map(map::GENERATION).exists() {
            // A first apply was killed before it made the map.
            return 0;
        }
        self.generation_table().get(&0).unwrap().unwrap()
    }

    pub(crate) fn generation_table(&self) -> Table<u32, u32> {
        Table::open(&self.pins().map(map::GENERATION)).unwrap()
    }

    pub(crate) fn pins(&self) -> Pins {
        Pins::new(&self.enforcer.context.bpffs)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

/// The address of a host on the links.
pub(crate) fn v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

/// Addresses of near and far in a family.
pub(crate) fn ends(v6: bool) -> [IpAddr; 2] {
    if v6 {
        [NEAR6.into(), FAR6.into()]
    } else {
        [NEAR.into(), FAR.into()]
    }
}
