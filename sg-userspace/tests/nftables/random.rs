//! Definitions that follow from a seed, in spaces so small that rules overlap.

use std::fmt::Write as _;

use crate::definitions::Case;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    /// A definition of up to four groups.
    pub(crate) fn definition(&mut self) -> Case {
        let groups = 1 + self.below(4);
        let mut text = String::new();
        for list in 0..2 {
            let entries = self.several(4, Self::prefix);
            let _ = writeln!(text, "[prefix_lists.l{list}]\nentries = [{entries}]");
        }
        for group in 0..groups {
            let ingress = self.several(6, |random| random.rule(groups));
            let egress = self.several(4, |random| random.rule(groups));
            let _ = writeln!(
                text,
                "[groups.g{group}]\ningress = [{ingress}]\negress = [{egress}]"
            );
            let members = self.several(3, Self::address);
            let _ = writeln!(text, "[members.g{group}]\naddresses = [{members}]");
        }
        let carried: Vec<String> = (0..groups)
            .filter(|_| self.below(3) > 0)
            .map(|group| format!("\"g{group}\""))
            .collect();
        let settings = self.of(&[
            "",
            "track = \"always\"",
            "icmp_errors = \"strict\"",
            "tcp_loose = true",
        ]);
        Case {
            name: "random",
            text,
            groups: format!("[{}]", carried.join(", ")),
            settings,
        }
    }

    /// Fewer than `end` different items.
    fn several(&mut self, end: usize, mut item: impl FnMut(&mut Self) -> String) -> String {
        let mut items: Vec<String> = (0..self.below(end)).map(|_| item(self)).collect();
        items.sort_unstable();
        items.dedup();
        items.join(", ")
    }

    fn address(&mut self) -> String {
        let number = self.below(256);
        let v6 = self.below(2) == 0;
        if v6 {
            format!("\"2001:db8::{number:x}\"")
        } else {
            format!("\"198.51.100.{number}\"")
        }
    }

    /// A prefix, host bits and all.
    fn prefix(&mut self) -> String {
        let (long, everywhere) = (self.below(11), self.below(10) == 0);
        let address = self.address();
        let address = address.trim_matches('"');
        match (everywhere, address.contains(':')) {
            (true, true) => "\"::/0\"".to_owned(),
            (true, false) => "\"0.0.0.0/0\"".to_owned(),
            (false, true) => format!("\"{address}/{}\"", 128 - long),
            (false, false) => format!("\"{address}/{}\"", 32 - long),
        }
    }

    fn rule(&mut self, groups: usize) -> String {
        let what = match self.below(9) {
            0 => "protocol = \"all\"".to_owned(),
            1..=3 => format!("protocol = \"tcp\", ports = \"{}\"", self.ports()),
            4 | 5 => format!("protocol = \"udp\", ports = \"{}\"", self.ports()),
            6 => self.icmp("icmp", &[-1, 0, 3, 8, 13]),
            7 => self.icmp("icmpv6", &[-1, 1, 128, 129, 255]),
            _ => format!("protocol = {}", self.of(&[2, 47, 50, 89, 132, 253])),
        };
        let peer = match self.below(5) {
            0 => format!("group = \"g{}\"", self.below(groups)),
            1 => format!("prefix_list = \"l{}\"", self.below(2)),
            _ => format!("cidr = {}", self.prefix()),
        };
        format!("{{ {what}, {peer} }}")
    }

    fn ports(&mut self) -> String {
        let ends = [0, 1, 22, 23, 24, 80, 65_534, 65_535];
        let (one, other) = (self.of(&ends), self.of(&ends));
        format!("{}-{}", one.min(other), one.max(other))
    }

    fn icmp(&mut self, protocol: &str, kinds: &[i16]) -> String {
        let kind = self.of(kinds);
        let code = if kind == -1 { -1 } else { self.of(&[-1, 0, 1]) };
        format!("protocol = \"{protocol}\", type = {kind}, code = {code}")
    }
}
