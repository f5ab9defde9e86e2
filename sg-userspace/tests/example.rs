//! The three-tier example means what its comments say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use sg_common::verdict::Direction::{Egress, Ingress};
use sg_userspace::definition;
use sg_userspace::resolve::resolve;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ECHO: u16 = 8 << 8;
const ECHO6: u16 = 128 << 8;

#[test]
fn each_tier_is_reached_from_the_one_before_it_only() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/three-tier.toml");
    let checked = definition::load(&[file]).expect("the example can be read");
    let model = checked.model.expect("the example is without fault");
    let resolved = resolve(&model, &BTreeMap::new());

    let (client, outsider) = ("203.0.113.10", "10.0.9.9");
    let (lb, app, db) = ("10.0.1.10", "10.0.2.10", "10.0.3.10");
    let (lb6, app6, db6) = ("2001:db8:0:1::10", "2001:db8:0:2::10", "2001:db8:0:3::10");
    for (interface, direction, protocol, remote, port, expected) in [
        ("lb", Ingress, TCP, client, 443, true),
        ("lb", Ingress, TCP, outsider, 80, true),
        ("lb", Ingress, UDP, outsider, 443, true),
        ("lb", Ingress, UDP, outsider, 80, false),
        ("lb", Ingress, TCP, client, 22, true),
        ("lb", Ingress, TCP, outsider, 22, false),
        ("lb", Egress, TCP, app, 8080, true),
        ("lb", Egress, TCP, app6, 8080, true),
        ("lb", Egress, TCP, db, 3306, false),
        ("lb", Egress, ICMP, app, ECHO, true),
        ("app", Ingress, ICMP, lb, ECHO, true),
        ("app", Ingress, ICMPV6, lb6, ECHO6, true),
        ("app", Ingress, ICMP, outsider, ECHO, false),
        ("app", Ingress, TCP, lb, 8080, true),
        ("app", Ingress, TCP, lb6, 8080, true),
        ("app", Ingress, TCP, outsider, 8080, false),
        ("app", Ingress, TCP, db, 8080, false),
        ("app", Egress, TCP, db6, 3306, true),
        ("db", Ingress, TCP, app, 3306, true),
        ("db", Ingress, TCP, lb, 3306, false),
        ("db", Ingress, TCP, app, 22, false),
        ("db", Ingress, TCP, client, 8100, true),
        ("db", Ingress, TCP, client, 8101, false),
        ("db", Ingress, ICMP, outsider, ECHO, true),
        ("db", Ingress, ICMP, client, ECHO, false),
        ("db", Egress, TCP, app, 8080, false),
    ] {
        let address: IpAddr = remote.parse().expect("an address");
        let rule = resolved.evaluate(interface, direction, protocol, address, port);
        let what = format!(
            "{interface} {} {protocol} {remote} {port}",
            direction.name()
        );
        assert_eq!(rule.is_some(), expected, "{what}: {rule:?}");
    }
}
