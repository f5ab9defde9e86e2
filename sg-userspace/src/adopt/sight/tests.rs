use crate::nf_conntrack::Tcp;

use super::*;

/// A client's connection to a host that hands it to a workload, under an address of its own.
fn translated() -> Tracked {
    let ends = |source: &str, source_port, destination: &str, destination_port| Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        source_port,
        destination_port,
    };
    Tracked {
        protocol: 6,
        original: ends("192.0.2.1", 40_000, "198.51.100.1", 80),
        reply: ends("10.0.0.5", 8080, "10.0.0.1", 50_000),
        replied: true,
        assured: true,
        expires: 100,
        tcp: Tcp::Established,
    }
}

fn sight(orientation: Orientation, addresses: &[&str]) -> Sight {
    Sight {
        orientation,
        ifindex: u32::MAX,
        addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
        claimed: false,
        checked: true,
        behind: None,
        routes: Arc::default(),
        hidden: None,
    }
}

fn only(found: Vec<Candidate>) -> (String, String, Side) {
    let [one] = found.as_slice() else {
        panic!("{found:?}");
    };
    let Flow {
        local,
        remote,
        local_port,
        remote_port,
        ..
    } = one.flow;
    let opener = one.opener.unwrap();
    (
        format!("{local}:{local_port}"),
        format!("{remote}:{remote_port}"),
        opener,
    )
}

#[test]
fn each_side_of_a_translation_sees_its_own_ends() {
    let table = [translated()];
    let words = |local: &str, remote: &str| (local.to_owned(), remote.to_owned());
    // The host's own device, by which the client comes.
    let found = sight(Orientation::Own, &["198.51.100.1"]).tracked_here(&table);
    let (local, remote) = words("198.51.100.1:80", "192.0.2.1:40000");
    assert_eq!(only(found), (local, remote, Side::Remote));
    // The host's own device towards the workload.
    let found = sight(Orientation::Own, &["10.0.0.1"]).tracked_here(&table);
    let (local, remote) = words("10.0.0.1:50000", "10.0.0.5:8080");
    assert_eq!(only(found), (local, remote, Side::Local));
    // The host's end of the workload's link.
    let found = sight(Orientation::Host, &["10.0.0.5"]).tracked_here(&table);
    let (local, remote) = words("10.0.0.5:8080", "10.0.0.1:50000");
    assert_eq!(only(found), (local, remote, Side::Remote));
    // The client, were it a workload here.
    let found = sight(Orientation::Host, &["192.0.2.1"]).tracked_here(&table);
    let (local, remote) = words("192.0.2.1:40000", "198.51.100.1:80");
    assert_eq!(only(found), (local, remote, Side::Local));
    // Others see nothing of it.
    let found = sight(Orientation::Host, &["10.0.0.6"]).tracked_here(&table);
    assert_eq!(found, []);
}

#[test]
fn an_address_that_the_workload_gave_itself_is_not_its_own_where_routes_lead_elsewhere() {
    let mut sight = sight(Orientation::Host, &["10.0.0.5"]);
    sight.claimed = true;
    // No device has that index, so no route leads to it.
    assert_eq!(sight.tracked_here(&[translated()]), []);
}
