//! What stands between: nothing, floors, the enforcer, and its peers with the same rules.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::bed::Bed;
use crate::process;

/// The port that every rule allows.
pub(super) const PORT: u16 = 443;

/// A firewall, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firewall {
    /// Nothing at all.
    Nothing,
    /// An XDP program that passes everything: what everything is compared with.
    Pass,
    /// An XDP program that drops everything.
    Discard,
    /// An XDP program that does the least of what judging takes.
    Floor(Floor),
    /// The enforcer, by this value of `hook`.
    Enforcer(&'static str),
    /// nftables in this form.
    Nftables(Form),
    /// iptables with an ipset.
    Ipset,
}

/// The least of what judging takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    /// Reads the headers.
    Headers,
    /// Besides, reads a flow's line of memory, behind as many instructions as judging has more.
    Entry,
    /// Reads the headers, looks the source up in the kernel's longest-prefix trie and inserts the flow into the
    /// kernel's preallocated hash map.
    Open,
    /// Reads the headers, looks the flow up in the kernel's hash map and the source in its trie, and drops what is in
    /// neither.
    Deny,
}

impl Floor {
    pub(super) const ALL: [Self; 4] = [Self::Headers, Self::Entry, Self::Open, Self::Deny];

    /// The program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Headers => "xdp_parse4",
            Self::Entry => "xdp_far_entry4",
            Self::Open => "xdp_open4",
            Self::Deny => "xdp_deny4",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Headers => "floor: headers read",
            Self::Entry => "floor: headers, a line of memory, 240 instructions",
            Self::Open => "floor: headers read, LPM lookup, hash insert",
            Self::Deny => "floor: headers read, hash lookup, LPM lookup, drop",
        }
    }
}

/// A way to write the same rules for nftables. All look at conntrack first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A rule per prefix.
    Linear,
    /// A set of ports, and a set of prefixes.
    Sets,
    /// A set of concatenations of prefix, protocol and port.
    Concatenation,
    /// A verdict map of protocol and port, then a set of prefixes.
    VerdictMap,
}

/// What the rules allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

/// Rules: each allows one port of one protocol from one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) protocol: Protocol,
    /// How many, at most [`super::traffic::MAX_PREFIXES`].
    pub(super) count: u32,
}

impl Firewall {
    /// As it is called in reports.
    pub(super) fn name(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Pass => "XDP program that passes".to_owned(),
            Self::Discard => "XDP program that drops".to_owned(),
            Self::Floor(floor) => floor.name().to_owned(),
            Self::Enforcer(hook) => format!("sgctl, hook {hook}"),
            Self::Nftables(form) => format!("nftables, {}", form.name()),
            Self::Ipset => "iptables, ipset".to_owned(),
        }
    }

    /// Whether it judges packets one by one, by rules.
    pub(super) fn judges(self) -> bool {
        !matches!(
            self,
            Self::Nothing | Self::Pass | Self::Discard | Self::Floor(_)
        )
    }

    /// Whether it is one of those that the enforcer is compared with.
    pub(super) fn is_peer(self) -> bool {
        matches!(self, Self::Nftables(_) | Self::Ipset)
    }
}

impl Form {
    pub(super) const ALL: [Self; 4] = [
        Self::Sets,
        Self::Concatenation,
        Self::VerdictMap,
        Self::Linear,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Sets => "sets",
            Self::Concatenation => "concatenation",
            Self::VerdictMap => "verdict map",
        }
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// Where netfilter judges: what is for the bed itself, or what it forwards.
    fn netfilter_hook(self) -> &'static str {
        match self {
            Self::Udp => "forward",
            Self::Tcp => "input",
        }
    }
}

impl Rules {
    /// The prefixes that they allow: of 24 bits, with one beside each that they do not.
    pub(super) fn prefixes(self) -> impl Iterator<Item = String> {
        (0..self.count).map(|number| {
            let address = Ipv4Addr::from(10 << 24 | number << 9);
            format!("{address}/24")
        })
    }

    /// Groups and interfaces of a definition that enforces them on `bed`.
    pub(super) fn definition(self, bed: &Bed, hook: &str) -> String {
        let (protocol, device) = (self.protocol.name(), &bed.device);
        let mut text = format!("[groups.{device}]\negress = []\ningress = [\n");
        for prefix in self.prefixes() {
            let _ = writeln!(
                text,
                "    {{ protocol = \"{protocol}\", ports = {PORT}, cidr = \"{prefix}\" }},"
            );
        }
        // An idle flow must outlive the pauses between samples, here as at the peers.
        let _ = write!(
            text,
            "]\n\n[interfaces.{device}]\nnetns = \"{}\"\ngroups = [\"{device}\"]\n\
             orientation = \"own\"\nhook = \"{hook}\"\ntimeouts = {{ udp = 60, udp_stream = 180 }}\n\n",
            bed.namespace
        );
        text
    }

    /// What `nft -f -` reads.
    fn nftables(self, form: Form) -> String {
        let (protocol, hook) = (self.protocol.name(), self.protocol.netfilter_hook());
        let elements = |entry: &dyn Fn(String) -> String| {
            self.prefixes().map(entry).collect::<Vec<_>>().join(", ")
        };
        let prefixes = elements(&|prefix| prefix);
        let peers = format!(
            "set peers {{ type ipv4_addr; flags interval; elements = {{ {prefixes} }}; }}\n"
        );
        let (sets, rules) = match form {
            Form::Linear => {
                let mut rules = String::new();
                for prefix in self.prefixes() {
                    let _ = writeln!(rules, "ip saddr {prefix} {protocol} dport {PORT} accept");
                }
                (String::new(), rules)
            }
            Form::Sets => (
                format!("{peers}set ports {{ type inet_service; elements = {{ {PORT} }}; }}\n"),
                format!("{protocol} dport @ports ip saddr @peers accept\n"),
            ),
            Form::Concatenation => (
                format!(
                    "set rules {{ type ipv4_addr . inet_proto . inet_service; flags interval; \
                     elements = {{ {} }}; }}\n",
                    elements(&|prefix| format!("{prefix} . {protocol} . {PORT}"))
                ),
                "ip saddr . meta l4proto . th dport @rules accept\n".to_owned(),
            ),
            Form::VerdictMap => (
                format!(
                    "{peers}chain allowed {{ ip saddr @peers accept; }}\n\
                     map verdicts {{ type inet_proto . inet_service : verdict; \
                     elements = {{ {protocol} . {PORT} : goto allowed }}; }}\n"
                ),
                "meta l4proto . th dport vmap @verdicts\n".to_owned(),
            ),
        };
        format!(
            "table ip sgbench {{\n{sets}chain judge {{\n\
             type filter hook {hook} priority filter; policy drop;\n\
             ct state established,related accept\n{rules}}}\n}}\n"
        )
    }

    /// What `ipset restore` reads.
    fn ipset(self) -> String {
        let mut text = format!(
            "create peers hash:net maxelem {}\n",
            self.count.next_power_of_two().max(1024) * 2
        );
        for prefix in self.prefixes() {
            let _ = writeln!(text, "add peers {prefix}");
        }
        text
    }

    /// Puts them in force in `bed` by a peer.
    ///
    /// # Errors
    /// If its program fails.
    pub(super) fn enforce_by_peer(self, bed: &Bed, peer: Firewall) -> Result<()> {
        match peer {
            Firewall::Nftables(form) => bed.run("nft", &["-f", "-"], &self.nftables(form)),
            Firewall::Ipset => {
                bed.run("ipset", &["restore"], &self.ipset())?;
                let (protocol, port) = (self.protocol.name(), PORT.to_string());
                let chain = self.protocol.netfilter_hook().to_uppercase();
                let legacy = "iptables-legacy";
                let program = process::find(legacy).map_or("iptables", |_| legacy);
                let established = [
                    "-w",
                    "-A",
                    &chain,
                    "-m",
                    "conntrack",
                    "--ctstate",
                    "ESTABLISHED,RELATED",
                    "-j",
                    "ACCEPT",
                ];
                bed.run(program, &established, "")?;
                let allowed = [
                    "-w",
                    "-A",
                    &chain,
                    "-p",
                    protocol,
                    "--dport",
                    &port,
                    "-m",
                    "set",
                    "--match-set",
                    "peers",
                    "src",
                    "-j",
                    "ACCEPT",
                ];
                bed.run(program, &allowed, "")?;
                bed.run(program, &["-w", "-P", &chain, "DROP"], "")
            }
            Firewall::Nothing
            | Firewall::Pass
            | Firewall::Discard
            | Firewall::Floor(_)
            | Firewall::Enforcer(_) => Ok(()),
        }?;
        bed.set("net/netfilter/nf_conntrack_udp_timeout", "60")?;
        bed.set("net/netfilter/nf_conntrack_udp_timeout_stream", "180")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Rules = Rules {
        protocol: Protocol::Udp,
        count: 2,
    };

    #[test]
    fn a_prefix_that_is_not_allowed_stands_beside_each_that_is() {
        let prefixes: Vec<String> = TWO.prefixes().collect();
        assert_eq!(prefixes, ["10.0.0.0/24", "10.0.2.0/24"]);
    }

    #[test]
    fn every_form_names_every_prefix_once_and_looks_at_conntrack_first() {
        for form in Form::ALL {
            let text = TWO.nftables(form);
            for prefix in TWO.prefixes() {
                assert_eq!(text.matches(&prefix).count(), 1, "{form:?}");
            }
            let conntrack = text.find("ct state").unwrap();
            assert!(
                conntrack
                    < text
                        .rfind("accept")
                        .unwrap()
                        .max(text.rfind("vmap").unwrap_or(0))
            );
            assert!(text.contains("hook forward priority filter; policy drop;"));
        }
    }

    #[test]
    fn the_set_has_room_for_every_prefix() {
        let many = Rules {
            count: 10_000,
            ..TWO
        };
        assert!(
            many.ipset()
                .starts_with("create peers hash:net maxelem 32768\n")
        );
        assert_eq!(many.ipset().lines().count(), 10_001);
    }
}
