//! Enforced interfaces.

use std::ops::RangeInclusive;

use sg_common::layout::{TIMEOUT_DEFAULTS, TIMEOUTS, Timeout};

use super::super::escape::{is_hostile, quote};
use super::super::tree::{Interface, Located};
use super::value::{Parser, Table, Value};
use crate::model::{Hook, IcmpErrors, InterfaceSettings, Orientation, Track, timeout_range};

/// Keys of an interface.
pub(super) const KEYS: &[&str] = &[
    "id",
    "device",
    "netns",
    "groups",
    "orientation",
    "allowance",
    "reserve",
    "addresses",
    "hook",
    "timeouts",
    "track",
    "tcp_loose",
    "icmp_errors",
    "dhcp",
    "mld",
    "nd_redirect",
    "source_dest_check",
    "ethertypes",
];

/// Tracked flows of one interface.
const ALLOWANCE: RangeInclusive<i64> = 1..=16_777_216;
/// Values that are ethertypes and no lengths (IEEE 802.3).
const ETHERTYPES: RangeInclusive<i64> = 0x0600..=0xffff;
/// Ethertypes that have verdicts of their own.
const JUDGED: [(u16, &str); 7] = [
    (0x0800, "IPv4, which the rules judge"),
    (0x0806, "ARP, which always passes"),
    (0x86dd, "IPv6, which the rules judge"),
    (0x8100, "a VLAN tag, which is dropped"),
    (0x88a8, "a VLAN tag, which is dropped"),
    (0x9100, "a VLAN tag, which is dropped"),
    (0x9200, "a VLAN tag, which is dropped"),
];
/// Bytes of a device name, without the terminator (IFNAMSIZ).
const DEVICE: usize = 15;
/// Bytes of a network namespace's name or path.
const NETNS: usize = 4095;
/// Established TCP of `profile = "nitro-v6"`, in seconds (fact 3.21).
const NITRO_V6_TCP_ESTABLISHED: u32 = 350;

impl Parser<'_> {
    pub(super) fn interface(&mut self, name: Located<String>, table: Table<'_>) -> Interface {
        let mut interface = Interface {
            id: None,
            groups: None,
            addresses: None,
            device: name.clone(),
            allowance_at: None,
            reserve_at: None,
            source_dest_check_at: None,
            own_timeouts: [false; TIMEOUTS],
            settings: InterfaceSettings::new(name.value.as_str()),
            name,
        };
        for (key, value) in self.keys(&table, KEYS) {
            match key {
                "id" => interface.id = self.id(value, "eni-"),
                "timeouts" => {
                    interface.own_timeouts = self.timeouts(value, &mut interface.settings);
                }
                "groups" => interface.groups = self.group_names(value),
                "addresses" => {
                    if let Some(elements) = self.array(value) {
                        let addresses = elements.into_iter();
                        let addresses =
                            addresses.filter_map(|element| self.unicast_address(element));
                        interface.addresses = Some(addresses.collect());
                    }
                }
                "device" => {
                    if let Some(device) = self.string(value) {
                        interface.device = Located {
                            value: device.value.into(),
                            at: device.at,
                        };
                    }
                }
                "allowance" => {
                    interface.allowance_at = Some(value.at);
                    let allowance = self.integer(value, ALLOWANCE);
                    interface.settings.allowance = allowance.map(|number| number.value as u32);
                }
                "reserve" => {
                    interface.reserve_at = Some(value.at);
                    if let Some(reserve) = self.integer(value, 0..=*ALLOWANCE.end()) {
                        interface.settings.reserve = reserve.value as u32;
                    }
                }
                _ => {
                    if key == "source_dest_check" {
                        interface.source_dest_check_at = Some(value.at);
                    }
                    self.setting(key, value, &mut interface.settings);
                }
            }
        }
        // What has an id takes its groups from where that is defined.
        if !table.has("id") {
            self.require(
                &table,
                "groups",
                "name its groups; `groups = []` denies all",
            );
        }
        if self.check_device(&interface.device) {
            interface.settings.device = interface.device.value.clone();
        }
        interface
    }

    fn group_names(&mut self, value: Value<'_>) -> Option<Located<Vec<Located<String>>>> {
        let names = self.array(value)?.into_iter().filter_map(|element| {
            self.string(element).map(|name| Located {
                value: name.value.to_string(),
                at: name.at,
            })
        });
        Some(Located {
            value: names.collect(),
            at: value.at,
        })
    }

    fn setting(&mut self, key: &str, value: Value<'_>, settings: &mut InterfaceSettings) {
        match key {
            "netns" => settings.netns = self.netns(value),
            "ethertypes" => settings.ethertypes = self.ethertypes(value),
            "orientation" => {
                let words = [("own", Orientation::Own), ("host", Orientation::Host)];
                settings.orientation = self.choice(value, &words).map(|word| word.value);
            }
            "hook" => {
                let words = [
                    ("auto", Hook::Auto),
                    ("xdp", Hook::Xdp),
                    ("xdp-generic", Hook::XdpGeneric),
                    ("tc", Hook::Tc),
                ];
                if let Some(word) = self.choice(value, &words) {
                    settings.hook = word.value;
                }
            }
            "track" => {
                let words = [("auto", Track::Auto), ("always", Track::Always)];
                if let Some(word) = self.choice(value, &words) {
                    settings.track = word.value;
                }
            }
            "icmp_errors" => {
                let words = [
                    ("related", IcmpErrors::Related),
                    ("strict", IcmpErrors::Strict),
                ];
                if let Some(word) = self.choice(value, &words) {
                    settings.icmp_errors = word.value;
                }
            }
            _ => {
                let Some(Located { value: on, .. }) = self.boolean(value) else {
                    return;
                };
                match key {
                    "tcp_loose" => settings.tcp_loose = on,
                    "dhcp" => settings.dhcp = on,
                    "mld" => settings.mld = on,
                    "source_dest_check" => settings.source_dest_check = Some(on),
                    _ => settings.nd_redirect = on,
                }
            }
        }
    }

    fn netns(&mut self, value: Value<'_>) -> Option<String> {
        let text = self.string(value)?;
        let netns = text.value;
        let is_path = netns.starts_with('/');
        let fault = if netns.is_empty() {
            Some("is empty")
        } else if netns.len() > NETNS {
            Some("is too long")
        } else if netns.contains(is_hostile) {
            Some("contains a character that cannot be seen")
        } else if !is_path && (netns.contains('/') || netns == "." || netns == "..") {
            Some("is neither a name nor an absolute path")
        } else {
            None
        };
        if let Some(fault) = fault {
            self.invalid(
                text.at,
                format!("the network namespace {} {fault}", quote(netns)),
            )
            .help("a name as in `ip netns`, or an absolute path such as /proc/1234/ns/net");
            return None;
        }
        Some(netns.into())
    }

    /// Names the kernel accepts (`dev_valid_name`).
    fn check_device(&mut self, device: &Located<String>) -> bool {
        let name = device.value.as_str();
        let fits = (1..=DEVICE).contains(&name.len());
        let plain =
            !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || is_hostile(c));
        if fits && plain && name != "." && name != ".." {
            return true;
        }
        let message = format!("{} cannot be the name of a Linux device", quote(name));
        self.invalid(device.at, message).help(format!(
            "1 to {DEVICE} bytes without space, `/` or `:`; `device = \"eth0\"` names it where the table's name cannot"
        ));
        false
    }

    /// Ethertypes that are judged neither as IP nor as ARP, without duplicates.
    fn ethertypes(&mut self, value: Value<'_>) -> Vec<u16> {
        let mut kinds = Vec::new();
        for element in self.array(value).into_iter().flatten() {
            let (least, most) = (ETHERTYPES.start(), ETHERTYPES.end());
            let words = format!("from {least:#06x} to {most:#06x}");
            let Some(number) = self.integer_within(element, ETHERTYPES, words) else {
                continue;
            };
            let kind = number.value as u16;
            if let Some((_, judged)) = JUDGED.iter().find(|(judged, _)| *judged == kind) {
                self.invalid(number.at, format!("ethertype {kind:#06x} is {judged}"))
                    .help("only what is neither IP, ARP nor tagged can be listed, such as 0x88cc (LLDP)");
            } else {
                kinds.push(kind);
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Which timeouts are given.
    fn timeouts(&mut self, value: Value<'_>, settings: &mut InterfaceSettings) -> [bool; TIMEOUTS] {
        let mut own = [false; TIMEOUTS];
        let Some(table) = self.table(value) else {
            return own;
        };
        let names = TIMEOUT_DEFAULTS.map(|(name, _)| name);
        let known: Vec<&str> = names.into_iter().chain(["profile"]).collect();
        let given = self.keys(&table, &known);
        for (_, value) in given.iter().filter(|(key, _)| *key == "profile") {
            let words = [("nitro-v6", NITRO_V6_TCP_ESTABLISHED)];
            if let Some(seconds) = self.choice(*value, &words) {
                settings.timeouts[Timeout::TcpEstablished as usize] = seconds.value;
                own[Timeout::TcpEstablished as usize] = true;
            }
        }
        // A timeout of its own wins over the profile, wherever it stands.
        for (key, value) in given {
            if let Some(index) = names.iter().position(|name| *name == key)
                && let range = timeout_range(index)
                && let Some(seconds) =
                    self.integer(value, (*range.start()).into()..=(*range.end()).into())
            {
                settings.timeouts[index] = seconds.value as u32;
                own[index] = true;
            }
        }
        own
    }
}
