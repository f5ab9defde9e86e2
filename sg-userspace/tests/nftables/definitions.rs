//! Definitions that together say everything a definition can say.

use std::fmt::Write as _;

use crate::twin::{CLIENT, WORKLOAD};

/// A definition but for its interfaces.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Groups, prefix lists and members.
    pub(crate) text: String,
    /// The groups that the interfaces carry, as a TOML array.
    pub(crate) groups: String,
    /// Further keys of the interfaces.
    pub(crate) settings: &'static str,
}

/// The workload's own addresses, as far as the definition knows them.
pub(crate) const OWN: [&str; 2] = ["10.77.0.1", "fd77::1"];

impl Case {
    /// One group called `g`.
    fn one(name: &'static str, ingress: &str, egress: &str) -> Self {
        Self {
            name,
            text: group("g", ingress, egress),
            groups: "[\"g\"]".to_owned(),
            settings: "",
        }
    }

    fn and(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    pub(crate) fn with(mut self, settings: &'static str) -> Self {
        self.settings = settings;
        self
    }

    fn carrying(mut self, groups: &str) -> Self {
        groups.clone_into(&mut self.groups);
        self
    }

    /// The whole text, for an `own` interface in one namespace and a `host` interface in another.
    pub(crate) fn definition(&self, [own, host]: [&str; 2], hook: &str) -> String {
        let mut text = self.text.clone();
        let (groups, settings) = (&self.groups, self.settings);
        let check = if settings.contains("source_dest_check") {
            ""
        } else {
            "source_dest_check = false"
        };
        let interfaces = [("own", own, CLIENT, hook), ("host", host, WORKLOAD, "auto")];
        for (orientation, netns, device, hook) in interfaces {
            let _ = write!(
                text,
                "[interfaces.{orientation}]\ndevice = \"{device}\"\nnetns = \"{netns}\"\n\
                 orientation = \"{orientation}\"\ngroups = {groups}\naddresses = {OWN:?}\nhook = \"{hook}\"\n\
                 {check}\n{settings}\n"
            );
        }
        text
    }
}

fn group(name: &str, ingress: &str, egress: &str) -> String {
    format!("[groups.{name}]\ningress = [{ingress}]\negress = [{egress}]\n")
}

/// Everything may come in, nothing goes out but replies, and all flows are tracked.
pub(crate) fn all_in() -> Case {
    let all = r#"{ protocol = "all", cidr = ["0.0.0.0/0", "::/0"] }"#;
    Case::one("all comes in", all, "").with("track = \"always\"")
}

/// TCP and UDP port 80 come in.
pub(crate) fn web_in() -> Case {
    let web = r#"{ protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] },
        { protocol = "udp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] }"#;
    Case::one("port 80 comes in", web, "")
}

/// Nothing may pass but replies.
pub(crate) fn nothing() -> Case {
    Case::one("no rules", "", "")
}

/// What AWS makes of a new group, and a rule for all of TCP: nothing of it is tracked.
pub(crate) fn untracked() -> Case {
    let tcp = r#"{ protocol = "tcp", ports = "0-65535", cidr = ["0.0.0.0/0", "::/0"] }"#;
    let all = r#"{ protocol = "all", cidr = ["0.0.0.0/0", "::/0"] }"#;
    Case::one("open both ways", tcp, all)
}

/// The list, by the sections of the facts that a case is about.
pub(crate) fn all() -> Vec<Case> {
    let mut all = evaluation();
    all.extend(traffic());
    all.extend(peers());
    all.extend(settings());
    all
}

fn evaluation() -> Vec<Case> {
    let sixteen: String = (0..16)
        .map(|n| {
            let rule = format!(
                "{{ protocol = \"tcp\", ports = \"{}-{}\", cidr = \"10.{n}.0.0/16\" }}",
                1000 + n * 10,
                1015 + n * 10
            );
            let reply =
                format!("{{ protocol = \"udp\", ports = {n}, cidr = \"2001:db8:{n:x}::/48\" }}");
            group(&format!("g{n}"), &rule, &reply)
        })
        .collect();
    let names: Vec<String> = (0..16).map(|n| format!("g{n}")).collect();
    vec![
        nothing(),
        Case::one("no groups", "", "").carrying("[]"),
        Case::one(
            "one way each",
            r#"{ protocol = "tcp", ports = 80, cidr = "10.0.0.0/8" }"#,
            r#"{ protocol = "udp", ports = 53, cidr = "10.0.0.0/8" }"#,
        ),
        Case::one("sixteen groups", "", "")
            .and(&sixteen)
            .carrying(&format!("{names:?}")),
        Case::one(
            "overlapping rules",
            r#"{ protocol = "tcp", ports = "20-30", cidr = "10.1.0.0/16" },
               { protocol = "tcp", ports = "22", cidr = "10.0.0.0/8" },
               { protocol = "tcp", ports = "25-40", cidr = "10.1.0.0/16" }"#,
            "",
        ),
    ]
}

fn traffic() -> Vec<Case> {
    vec![
        Case::one(
            "ports at both ends",
            r#"{ protocol = "tcp", ports = "0-1", cidr = "10.0.0.0/8" },
               { protocol = "tcp", ports = "65534-65535", cidr = "10.0.0.0/8" },
               { protocol = "udp", ports = 0, cidr = "2001:db8::/32" },
               { protocol = "udp", ports = 65535, cidr = "2001:db8::/32" }"#,
            r#"{ protocol = "tcp", ports = "0-65535", cidr = "10.9.0.0/16" }"#,
        ),
        Case::one(
            "all of TCP is not all",
            r#"{ protocol = "tcp", ports = "0-65535", cidr = "10.0.0.0/8" }"#,
            "",
        ),
        Case::one(
            "lists of ports",
            r#"{ protocol = "tcp", ports = [22, 80, "8000-8100"], cidr = "10.0.0.0/8" },
               { protocol = "udp", ports = ["53-54", 123], cidr = "10.0.0.0/9" }"#,
            r#"{ protocol = "tcp", ports = ["22-23", 25], cidr = "10.0.0.0/8" }"#,
        ),
        Case::one(
            "every type and code",
            r#"{ protocol = "icmp", type = -1, cidr = "10.0.0.0/8" },
               { protocol = "icmpv6", cidr = "2001:db8::/32" }"#,
            "",
        ),
        Case::one(
            "types and codes",
            r#"{ protocol = "icmp", type = 8, code = 0, cidr = "10.0.0.0/8" },
               { protocol = "icmp", type = 3, code = 4, cidr = "10.0.0.0/8" },
               { protocol = "icmp", type = 200, cidr = "10.0.0.0/8" },
               { protocol = "icmpv6", type = 128, cidr = "2001:db8::/32" },
               { protocol = "icmpv6", type = 1, code = 3, cidr = "2001:db8::/32" },
               { protocol = "icmpv6", type = 255, code = -1, cidr = "2001:db8::/32" }"#,
            r#"{ protocol = "icmp", type = 0, cidr = "10.0.0.0/8" },
               { protocol = "icmpv6", type = 129, cidr = "2001:db8::/32" }"#,
        ),
        Case::one(
            "protocol numbers",
            r#"{ protocol = 47, cidr = "10.0.0.0/8" },
               { protocol = 50, cidr = ["10.0.0.0/8", "2001:db8::/32"] },
               { protocol = 132, cidr = "10.0.0.0/8" },
               { protocol = 255, cidr = "10.0.0.0/8" }"#,
            r#"{ protocol = 47, cidr = "2001:db8::/32" },
               { protocol = 132, cidr = "2001:db8::/32" }"#,
        ),
        Case::one(
            "numbers of named protocols",
            r#"{ protocol = 6, ports = 443, cidr = "10.0.0.0/8" },
               { protocol = 17, ports = "53-54", cidr = "10.0.0.0/8" }"#,
            r#"{ protocol = -1, cidr = "10.1.0.0/16" }"#,
        ),
    ]
}

fn peers() -> Vec<Case> {
    let members = r#"
[groups.db]
ingress = []
egress = []
[members.db]
addresses = ["10.3.0.5", "10.3.0.7", "2001:db8:3::5"]
[members.g]
addresses = ["10.4.0.1", "2001:db8:4::1"]
[groups.nobody]
ingress = []
egress = []
"#;
    let lists = r#"
[prefix_lists.offices]
entries = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "2001:db8:1::/48"]
[prefix_lists.neighbours]
entries = ["10.0.0.0/9", "10.128.0.0/9", "192.0.2.77/24"]
[prefix_lists.empty]
entries = []
[prefix_lists.v4]
entries = ["0.0.0.0/0"]
"#;
    vec![
        Case::one(
            "nested prefixes with other ports",
            r#"{ protocol = "tcp", ports = 22, cidr = "10.0.0.0/8" },
               { protocol = "tcp", ports = 80, cidr = "10.1.0.0/16" },
               { protocol = "udp", ports = 53, cidr = "10.1.2.0/24" },
               { protocol = "tcp", ports = 443, cidr = "10.1.2.3/32" },
               { protocol = "tcp", ports = 22, cidr = "2001:db8::/32" },
               { protocol = "tcp", ports = 80, cidr = "2001:db8:1::/48" },
               { protocol = "tcp", ports = 443, cidr = "2001:db8:1::1/128" }"#,
            "",
        ),
        Case::one(
            "host bits",
            r#"{ protocol = "tcp", ports = 22, cidr = "100.68.0.18/18" },
               { protocol = "tcp", ports = 22, cidr = "2001:db8:1234:5678::9/61" }"#,
            r#"{ protocol = "udp", ports = 22, cidr = "192.0.2.255/31" }"#,
        ),
        Case::one(
            "everywhere of IPv4 is not IPv6",
            r#"{ protocol = "all", cidr = "0.0.0.0/0" }"#,
            "",
        ),
        Case::one(
            "everywhere of IPv6 is not IPv4",
            "",
            r#"{ protocol = "all", cidr = "::/0" }"#,
        ),
        Case::one(
            "prefix lists",
            r#"{ protocol = "tcp", ports = 22, prefix_list = "offices" },
               { protocol = "udp", ports = 53, prefix_list = ["neighbours", "empty"] },
               { protocol = "icmp", type = 8, prefix_list = "v4" }"#,
            r#"{ protocol = "all", prefix_list = "empty" },
               { protocol = "tcp", ports = 25, prefix_list = "v4" }"#,
        )
        .and(lists),
        Case::one(
            "groups",
            r#"{ protocol = "tcp", ports = 5432, group = "db" },
               { protocol = "udp", ports = 7946, group = "g" },
               { protocol = "all", group = "nobody" }"#,
            r#"{ protocol = "icmp", type = -1, group = "db" },
               { protocol = "tcp", ports = "1-1023", group = "g" }"#,
        )
        .and(members),
        Case::one(
            "sharing a group grants nothing",
            r#"{ protocol = "tcp", ports = 22, group = "db" }"#,
            "",
        )
        .and(members),
        Case::one(
            "groups and prefixes",
            r#"{ protocol = "tcp", ports = 22, cidr = "10.3.0.4/30" },
               { protocol = "tcp", ports = 80, group = "db" },
               { protocol = "udp", ports = 80, group = ["db", "g"] }"#,
            "",
        )
        .and(members)
        .carrying(r#"["g", "db"]"#),
    ]
}

/// Addresses that always pass, but for connections that they open, one of which a rule allows.
fn services() -> Case {
    let ssh = r#"{ protocol = "tcp", ports = 22, cidr = "169.254.0.0/16" }"#;
    let mut case = Case::one("services", ssh, "");
    let services = "services = [\"169.254.169.254\", \"fd00:ec2::254\"]\n";
    case.text.insert_str(0, services);
    case
}

fn settings() -> Vec<Case> {
    let all = r#"{ protocol = "all", cidr = ["0.0.0.0/0", "::/0"] }"#;
    let web = r#"{ protocol = "tcp", ports = 443, cidr = ["0.0.0.0/0", "::/0"] }"#;
    vec![
        untracked(),
        all_in(),
        web_in(),
        Case::one("as AWS begins", web, all),
        Case::one("as AWS begins, tracked", web, all).with("track = \"always\""),
        services(),
        Case::one("strict errors", web, all).with("icmp_errors = \"strict\""),
        Case::one("mid-stream allowed", web, "").with("tcp_loose = true"),
    ]
}
