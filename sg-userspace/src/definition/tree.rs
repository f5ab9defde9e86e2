//! The typed form of the files: every value parsed and located, no name looked up.

use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::layout::TIMEOUTS;

use crate::model::{InterfaceSettings, OnRevoke, Peer, RuleId, Traffic};

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Index into the sources.
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// Byte behind the last.
    pub end: u32,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: At,
}

/// All files.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    /// In the order of the sources.
    pub files: Vec<File>,
}

/// One file. Values that are missing or wrong are absent.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// `[defaults] egress`.
    pub egress: Option<Located<DefaultEgress>>,
    /// What settles what may leave a group that does not say it, where the file is not TOML: then the default of
    /// the TOML files beside holds as well.
    pub unsettled_egress: Option<&'static str>,
    /// `[defaults] quotas`.
    pub quotas: Option<Located<Quotas>>,
    /// `[defaults] stale_references`.
    pub stale_references: Option<Located<StaleReferences>>,
    /// `[conntrack] allowance`.
    pub allowance: Option<Located<u32>>,
    /// `[conntrack] accounting`.
    pub accounting: Option<Located<bool>>,
    /// `services`.
    pub services: Vec<Located<IpAddr>>,
    /// `[groups.NAME]`.
    pub groups: Vec<Group>,
    /// `[prefix_lists.NAME]`.
    pub prefix_lists: Vec<PrefixList>,
    /// `[interfaces.NAME]`.
    pub interfaces: Vec<Interface>,
    /// `[members.GROUP]`.
    pub members: Vec<Members>,
    /// `tests`.
    pub expectations: Vec<Expectation>,
    /// Interfaces as the cloud that the file comes from knows them.
    pub remote_interfaces: Vec<RemoteInterface>,
}

/// What a group without `egress` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultEgress {
    /// It is an error.
    Explicit,
    /// Everything may leave, as with AWS.
    Allow,
    /// Nothing may leave but replies.
    Deny,
}

/// What exceeding a quota of AWS is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotas {
    /// A warning.
    Warn,
    /// An error, with AWS's code.
    Aws,
}

/// What a rule is whose group does not exist (fact 1.41).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleReferences {
    /// It matches nothing, and a warning says so.
    Warn,
    /// An error.
    Error,
}

/// `[groups.NAME]`.
#[derive(Clone, Debug)]
pub struct Group {
    /// NAME. In files where names need not be unique or given, what it is called there; [`super::names`] makes
    /// names unique.
    pub name: Located<String>,
    /// Other words by which files refer to it: `sg-…` first.
    pub ids: Vec<Located<String>>,
    /// `description`.
    pub description: Option<String>,
    /// `on_revoke`.
    pub on_revoke: OnRevoke,
    /// `ingress`; a group without lets nothing in.
    pub ingress: Vec<Entry>,
    /// `egress`; `None`: not given.
    pub egress: Option<Vec<Entry>>,
}

/// One entry of `ingress` or `egress`: a rule for each combination of traffic and peer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The whole entry.
    pub at: At,
    /// `id`.
    pub id: Option<Located<RuleId>>,
    /// `protocol` with `ports`, or `type` and `code`.
    pub traffic: Vec<Located<Traffic>>,
    /// `cidr`, `prefix_list` or `group`.
    pub peers: Vec<Located<Peer>>,
    /// `description`.
    pub description: Option<String>,
}

/// `[prefix_lists.NAME]`.
#[derive(Clone, Debug)]
pub struct PrefixList {
    /// NAME.
    pub name: Located<String>,
    /// Other words by which files refer to it: `pl-…` first.
    pub ids: Vec<Located<String>>,
    /// `entries`, host bits zero.
    pub entries: Vec<Located<IpNet>>,
}

/// `[interfaces.NAME]`.
#[derive(Clone, Debug)]
pub struct Interface {
    /// NAME.
    pub name: Located<String>,
    /// `id`: that of the [`RemoteInterface`] whose groups, addresses and settings it takes where it names none.
    pub id: Option<Located<String>>,
    /// `groups`; `None`: missing or wrong.
    pub groups: Option<Located<Vec<Located<String>>>>,
    /// `addresses`.
    pub addresses: Option<Vec<Located<IpAddr>>>,
    /// `device`, or NAME.
    pub device: Located<String>,
    /// Where `allowance` stands.
    pub allowance_at: Option<At>,
    /// Where `reserve` stands.
    pub reserve_at: Option<At>,
    /// Where `source_dest_check` is, if it is given.
    pub source_dest_check_at: Option<At>,
    /// Timeouts that it names itself, by [`sg_common::layout::Timeout`].
    pub own_timeouts: [bool; TIMEOUTS],
    /// Everything else.
    pub settings: InterfaceSettings,
}

/// An interface that a file tells of, on whatever host it is: its addresses are members of its groups; if it
/// is found on this host ([`super::bind`]), it is enforced.
#[derive(Clone, Debug)]
pub struct RemoteInterface {
    /// `eni-…` or what stands for it; empty if the file has none.
    pub id: Located<String>,
    /// Ethernet address, by which the device is found first.
    pub mac: Option<Located<[u8; 6]>>,
    /// Addresses, by which the device is found where there is no Ethernet address; the members.
    pub addresses: Vec<Located<IpAddr>>,
    /// Names or ids of groups.
    pub groups: Located<Vec<Located<String>>>,
    /// Source and destination check, where the file says it.
    pub source_dest_check: Option<bool>,
    /// Timeouts that the file sets, in seconds, by [`sg_common::layout::Timeout`].
    pub timeouts: [Option<u32>; TIMEOUTS],
}

/// `[members.GROUP]`.
#[derive(Clone, Debug)]
pub struct Members {
    /// GROUP.
    pub group: Located<String>,
    /// `addresses`.
    pub addresses: Vec<Located<IpAddr>>,
    /// Whether they are those of a [`RemoteInterface`], of which a group may have many.
    pub derived: bool,
}

/// One of `tests`: packets that open a flow, and what is to become of them.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The whole test.
    pub at: At,
    /// `name`.
    pub name: Option<String>,
    /// `from`.
    pub from: Located<Endpoint>,
    /// `to`.
    pub to: Located<Endpoint>,
    /// `protocol` with `port`, or `type` and `code`.
    pub traffic: Traffic,
    /// `family`; `None`: both.
    pub ipv6: Option<bool>,
    /// `expect`.
    pub expect: Expected,
}

/// A side of a test.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoint {
    /// `group:NAME`: every interface that carries the group, and its members elsewhere.
    Group(String),
    /// `interface:NAME`.
    Interface(String),
    /// `prefix_list:NAME`: every address in it.
    PrefixList(String),
    /// An address or a prefix: every address in it.
    Net(IpNet),
    /// `internet`: public addresses that nothing in the definition singles out.
    Internet,
}

/// What is to become of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every such packet passes.
    Allow,
    /// None does.
    Deny,
}
