//! Definitions of any size.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Rules of a group of [`spread`]: near AWS's quota.
const RULES_PER_GROUP: u32 = 50;
/// Groups that an interface carries of [`spread`].
const GROUPS: u32 = 16;

/// A rule with a prefix of its own: no two have the same peer.
fn rule(number: u32) -> String {
    let net = Ipv4Addr::from(0x0b00_0000 + (number << 8));
    format!(
        "{{protocol=\"tcp\",ports={},cidr=\"{net}/24\"}},",
        8000 + number % 20
    )
}

/// Rules of one group called `g`.
pub(super) fn one_group(rules: u32) -> String {
    let mut text = String::from("[groups.g]\negress = []\ningress = [\n");
    for number in 0..rules {
        let _ = writeln!(text, "{}", rule(number));
    }
    text.push_str("]\n");
    text
}

/// Rules over many groups, and the names of those an interface carries.
pub(super) fn spread(rules: u32) -> (String, String) {
    let mut text = String::new();
    for group in 0..rules.div_ceil(RULES_PER_GROUP) {
        let _ = writeln!(text, "[groups.g{group}]\negress = []\ningress = [");
        let first = group * RULES_PER_GROUP;
        for number in first..(first + RULES_PER_GROUP).min(rules) {
            let _ = writeln!(text, "{}", rule(number));
        }
        text.push_str("]\n");
    }
    let carried = (0..GROUPS.min(rules.div_ceil(RULES_PER_GROUP))).map(|n| format!("\"g{n}\""));
    (text, carried.collect::<Vec<_>>().join(", "))
}

/// Groups `db` and `app`: `app` may reach `db` by UDP 5000, and has so many members elsewhere.
pub(super) fn members(count: u32) -> String {
    let mut text = String::from(
        "[groups.db]\ningress = [{ protocol = \"udp\", ports = 5000, group = \"app\" }]\negress = []\n\
         [groups.app]\ningress = []\negress = [{ protocol = \"all\", cidr = \"0.0.0.0/0\" }]\n\
         [members.app]\naddresses = [\n",
    );
    for number in 0..count {
        let _ = writeln!(text, "\"{}\",", Ipv4Addr::from(0x0b00_0000 + number));
    }
    text.push_str("]\n");
    text
}
