//! Cases of floors: the kernel's own tables under the same packets.

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use sg_common::abi::buckets;
use sg_common::layout::WAYS;

use super::Hook;
use super::case::{counted, flows};
use super::floor::Floor;
use super::frame::{self, ACK, LOCAL_PORT};
use super::goal::{Sum, minus, net, plus};
use super::plan::{Case, Net, Prepare, WHOLE_SEQUENCE};
use super::policy::{LARGE, ROOM};
use super::scenario::Scenarios;
use super::traffic::Traffic;

/// `XDP_PASS` of `include/uapi/linux/bpf.h`.
const XDP_PASS: u32 = 2;

impl Scenarios<'_> {
    /// LOOKUP: parse and one lookup in the kernel's preallocated hash map of `count` entries.
    pub(crate) fn lookup(&mut self, ipv6: bool, count: u32) -> Result<Net> {
        self.lookup_in(HASH, ipv6, count)
    }

    /// The same in a map of another kind.
    pub(crate) fn lookup_in(&mut self, kind: Kind, ipv6: bool, count: u32) -> Result<Net> {
        let traffic = Traffic::segments(Hook::Xdp, ipv6, count);
        self.lookup_of(kind, ipv6, traffic, &flows(count))
    }

    /// The same with other packets, all of whose flows are there.
    pub(crate) fn lookup_of(
        &mut self,
        kind: Kind,
        ipv6: bool,
        traffic: Traffic,
        what: &str,
    ) -> Result<Net> {
        let (family, count) = (digit(ipv6), traffic.pattern.count);
        let name = format!("parse and {} lookup, IPv{family}, {what}", kind.shown);
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let mut floor = self.tables(kind.map, ipv6, count)?;
        let insert = floor.program(&format!("xdp_insert_{}{family}", kind.program))?;
        let answer = self.plan.feed(&insert, &traffic.in_sequence(), count)?;
        ensure!(answer == XDP_PASS, "a {} map has no room", kind.shown);
        let program = floor.program(&format!("xdp_{}{family}", kind.program))?;
        self.floor(&name, traffic, program, Prepare::Nothing)
    }

    /// The least that a table costs whose entries are in memory: parse, and one access to an array of as many
    /// entries as the table has in which `count` flows are tracked.
    pub(crate) fn entry(&mut self, count: u32) -> Result<Net> {
        let room = if count > ROOM { LARGE } else { ROOM };
        let mut floor = self.tables("ENTRIES", false, buckets(room) * WAYS as u32)?;
        let traffic = Traffic::segments(Hook::Xdp, false, count);
        let name = format!("parse and one entry of memory, IPv4, {}", flows(count));
        let program = floor.program("xdp_entry4")?;
        let entry = self.floor(&name, traffic.clone(), program, Prepare::Nothing)?;
        // With what judging takes between one packet's entry and the next one's.
        let name = format!("the same, 240 instructions more, IPv4, {}", flows(count));
        let program = floor.program("xdp_far_entry4")?;
        self.floor(&name, traffic, program, Prepare::Nothing)?;
        Ok(entry)
    }

    /// LPM + LOOKUP at 1 k: a longest match among as many prefixes, and a lookup.
    pub(crate) fn policy_floor(&mut self, ipv6: bool, prefixes: u32) -> Result<Sum> {
        let lookup = self.lookup(ipv6, 1 << 10)?;
        let trie = self.trie(ipv6, prefixes)?;
        Ok(plus(net(lookup), net(trie)))
    }

    /// LPM: one longest match of the source address.
    pub(crate) fn trie(&mut self, ipv6: bool, prefixes: u32) -> Result<Net> {
        let family = digit(ipv6);
        let name = format!("LPM trie, IPv{family}, {} prefixes", counted(prefixes));
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let mut floor = self.tables("LPM", ipv6, prefixes)?;
        floor.fill_trie(ipv6, prefixes)?;
        let program = floor.program(&format!("xdp_lpm{family}"))?;
        let traffic = Traffic::denied(Hook::Xdp, ipv6, prefixes, prefixes);
        self.floor(&name, traffic, program, Prepare::Nothing)
    }

    /// One insertion into the kernel's preallocated hash map, without parsing.
    pub(crate) fn insertion(&mut self, ipv6: bool) -> Result<Sum> {
        let insert = self.insertion_into(HASH, ipv6)?;
        let program = self
            .tables("HASH", ipv6, 1)?
            .program(&format!("xdp_parse{}", digit(ipv6)))?;
        let name = format!("parse, new flows, IPv{}", digit(ipv6));
        let traffic = Traffic::allowed(Hook::Xdp, ipv6, 1000, 1000);
        let parse = self.floor(&name, traffic, program, Prepare::Nothing)?;
        Ok(minus(net(insert), net(parse)))
    }

    /// Parse, and one insertion into a map.
    pub(crate) fn insertion_into(&mut self, kind: Kind, ipv6: bool) -> Result<Net> {
        let family = digit(ipv6);
        let name = format!("parse and {} insertion, IPv{family}", kind.shown);
        let mut floor = self.tables(kind.map, ipv6, ROOM)?;
        let traffic = Traffic::allowed(Hook::Xdp, ipv6, 1000, 1000);
        let delete = floor.program(&format!("xdp_delete_{}{family}", kind.program))?;
        let prepare = Prepare::Run(delete, traffic.clone(), WHOLE_SEQUENCE);
        let program = floor.program(&format!("xdp_insert_{}{family}", kind.program))?;
        self.floor(&name, traffic, program, prepare)
    }

    /// An empty program, as it was measured.
    pub(crate) fn empty(&mut self) -> Result<Sum> {
        let program = self.tables("HASH", false, 1)?.program("xdp_empty")?;
        let frame = frame::tcp(false, true, ACK, LOCAL_PORT);
        let made = self.floor(
            "empty program",
            Traffic::same(frame),
            program,
            Prepare::Nothing,
        )?;
        Ok(vec![(1.0, made.case)])
    }

    /// The kernel's tables, with room in the one that is named.
    fn tables(&self, map: &str, ipv6: bool, entries: u32) -> Result<Floor> {
        Floor::new(
            self.plan.objects.bench,
            &format!("{map}{}", digit(ipv6)),
            entries,
        )
    }

    fn floor(
        &mut self,
        name: &str,
        traffic: Traffic,
        program: ProgramFd,
        prepare: Prepare,
    ) -> Result<Net> {
        if let Some(known) = self.known.get(name) {
            return Ok(*known);
        }
        let made = self.plan.add(Case {
            group: "floors, XDP".to_owned(),
            name: name.to_owned(),
            traffic,
            program,
            device: 0,
            prepare,
            watch: None,
            answer: Some(XDP_PASS),
        })?;
        self.known.insert(name.to_owned(), made);
        Ok(made)
    }
}

/// A kind of the kernel's maps: its name here, in the object, and in the names of programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    shown: &'static str,
    map: &'static str,
    program: &'static str,
}

/// The preallocated hash map.
pub(crate) const HASH: Kind = Kind {
    shown: "hash",
    map: "HASH",
    program: "hash",
};
/// The hash map that allocates its elements.
pub(crate) const ALLOCATING: Kind = Kind {
    shown: "allocating hash",
    map: "ALLOCATING",
    program: "allocating",
};
/// The LRU hash map.
pub(crate) const LRU: Kind = Kind {
    shown: "LRU",
    map: "LRU",
    program: "lru",
};

fn digit(ipv6: bool) -> u8 {
    if ipv6 { 6 } else { 4 }
}
