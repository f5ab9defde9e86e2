//! Where the enforcer and nftables are meant to differ.

use std::{env, fmt::Write as _, fs, path::Path};

/// A kind of packets that one lets pass and the other does not.
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    /// Whether it is the enforcer that lets them pass.
    pub(crate) passes: bool,
    /// Whether it is seen on `host` interfaces only.
    pub(crate) host_only: bool,
    /// Which packets.
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
}

/// The difference of flows that are not tracked, which depends on the definition.
pub(crate) const UNTRACKED: &str = "untracked";

const fn passes(name: &'static str, what: &'static str, why: &'static str) -> Difference {
    Difference {
        name,
        passes: true,
        host_only: false,
        what,
        why,
    }
}

const fn drops(name: &'static str, what: &'static str, why: &'static str) -> Difference {
    Difference {
        name,
        passes: false,
        host_only: false,
        what,
        why,
    }
}

/// All of them.
pub(crate) const ALL: [Difference; 28] = [
    passes(
        UNTRACKED,
        "TCP without a handshake, and ICMP errors about what nobody sent, where both directions are open to everywhere",
        "such flows are not tracked, as at AWS: every packet is judged by the rules alone",
    ),
    passes(
        "hand-over",
        "TCP in the middle of a connection that the definition before did not track, if a rule lets its opener open it now",
        "a change of the definition must not cut what it still allows, if only it is heard before the next one",
    ),
    passes(
        "window",
        "a segment outside the window of its connection",
        "the end that receives it knows the window better; only RST and FIN must fit before they end a flow",
    ),
    passes(
        "reset",
        "an RST that does not fit its connection",
        "it shortens the flow's life instead of ending it, and the receiver judges it",
    ),
    passes(
        "checksum",
        "TCP with a wrong checksum",
        "checksums are the receiver's business; they may be not yet filled in where the enforcer stands",
    ),
    passes(
        "sctp",
        "SCTP that by its ports or chunks is no reply, between two addresses that have a flow",
        "protocols other than TCP, UDP and ICMP are tracked by addresses alone, as at AWS",
    ),
    passes(
        "first-fragment",
        "a first fragment whose rest never comes",
        "fragments are judged as they come and never kept; the kernel's conntrack puts them together first",
    ),
    passes(
        "mobility",
        "what stands behind an IPv6 mobility, HIP or shim6 header",
        "these are extension headers (IANA); nftables takes them for transport protocols",
    ),
    drops(
        "later-fragment-first",
        "a later fragment that overtakes the first",
        "nothing is kept until the first has come",
    ),
    drops(
        "tiny-fragment",
        "a first fragment without the whole transport header",
        "RFC 1858: it could be completed by anything",
    ),
    drops(
        "simultaneous-open",
        "a SYN against another SYN, where no rule allows it",
        "a SYN always asks the rules of its own direction; to conntrack it is a reply",
    ),
    drops(
        "revoked-syn",
        "a SYN on an open connection whose rule was taken away",
        "the connection lives on, as at AWS, but nobody may begin it again",
    ),
    drops(
        "dhcp-unicast",
        "a DHCP client's unicast to the server that answered it before",
        "DHCP passes without being tracked, out only to everybody; a renewal by unicast needs a rule, and is repeated by broadcast without (RFC 2131 §4.4.5)",
    ),
    drops(
        "icmp-query",
        "answers to ICMP timestamp, information and address mask requests",
        "of ICMP only echo is tracked; answers to others need a rule",
    ),
    drops(
        "icmp-quote",
        "an ICMP error whose quoted packet its receiver cannot have sent, where rules allow the error",
        "it can only be forged",
    ),
    drops(
        "ip-options",
        "IPv4 with options",
        "options are not inspected, source routing among them",
    ),
    drops(
        "ipv6-routing",
        "an IPv6 routing header with segments left",
        "the address that counts is not the one that is judged (RFC 5095)",
    ),
    drops(
        "ipv6-extensions",
        "more than eight IPv6 extension headers",
        "the walk is bounded",
    ),
    drops(
        "no-next-header",
        "IPv6 without a payload (next header 59)",
        "no rule can mean it",
    ),
    drops(
        "addresses",
        "loopback, multicast or unspecified sources",
        "no such packet belongs on a wire, whatever the rules say",
    ),
    drops(
        "land",
        "source and destination alike",
        "the receiver would answer itself",
    ),
    drops(
        "truncated",
        "a packet without room for its transport header",
        "what has no ports cannot be judged by them",
    ),
    drops(
        "neighbour-discovery",
        "neighbour discovery that came from beyond the link or is malformed, where rules allow ICMPv6",
        "RFC 4861 §7.1: the receiver must discard it",
    ),
    drops(
        "multicast-listener",
        "a multicast listener report without a router alert",
        "RFC 3810 §5: it is none; the rules decide, and nftables cannot read the option here",
    ),
    drops(
        "vlan",
        "frames with a VLAN tag",
        "the rules are about this network, not about those inside; nftables' inet tables never see them",
    ),
    drops(
        "ethertype",
        "what is neither IP nor ARP",
        "what no rule can mean does not pass; nftables' inet tables never see it",
    ),
    drops(
        "source-check",
        "packets to and from other addresses than the workload's, under `source_dest_check = true`",
        "as at AWS; nftables' rules would have to name the addresses",
    ),
    Difference {
        name: "neighbour-spoofed",
        passes: false,
        host_only: true,
        what: "ARP and neighbour advertisements of a workload for addresses that are not its own",
        why: "it could take over its neighbours; nftables' rules would have to name the addresses",
    },
];

/// The difference of this name.
pub(crate) fn named(name: &str) -> &'static Difference {
    let found = ALL.iter().find(|difference| difference.name == name);
    found.unwrap_or_else(|| panic!("no difference is called {name}"))
}

fn page() -> String {
    let mut page = String::from(
        "<!-- Written by `SG_BLESS=1 cargo test -p sg-userspace --test nftables`; edit the test's table instead. -->\n\n\
        # Where nftables judges otherwise\n\n\
        `sg-userspace/tests/nftables` translates definitions to nftables, sends the same packets through both, and compares\n\
        what arrives. These differences are meant; each is seen in every run. Any other fails the test.\n\n\
        The rulesets let pass `ct state established, related` (under `icmp_errors = \"strict\"` only the former), drop TCP that is\n\
        `ct state invalid` with `nf_conntrack_tcp_loose = 0` (1 under `tcp_loose = true`), and have one rule for each rule and family;\n\
        prefix lists are interval sets, groups sets of addresses.\n",
    );
    for (title, passes) in [
        ("Passes here, dropped there", true),
        ("Dropped here, passes there", false),
    ] {
        let _ = write!(
            page,
            "\n## {title}\n\n| name | what | why |\n|---|---|---|\n"
        );
        for one in ALL.iter().filter(|one| one.passes == passes) {
            let where_to = if one.host_only { " (`host` only)" } else { "" };
            let _ = writeln!(
                page,
                "| {}{where_to} | {} | {} |",
                one.name, one.what, one.why
            );
        }
    }
    page
}

#[test]
fn the_page_says_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nftables.md");
    if env::var_os("SG_BLESS").is_some() {
        fs::write(&file, page()).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap_or_default(),
        page(),
        "docs/nftables.md differs from the table (SG_BLESS=1 writes it)"
    );
}
