//! Enforced interfaces.

use super::*;

#[test]
fn an_interface_with_everything() {
    let text = r#"
        device = "ens5"
        netns = "/proc/1/ns/net"
        orientation = "host"
        hook = "xdp-generic"
        allowance = 5000
        reserve = 100
        addresses = ["10.0.0.1", "fe80::1"]
        track = "always"
        tcp_loose = true
        icmp_errors = "strict"
        dhcp = false
        mld = false
        nd_redirect = true
        source_dest_check = false
        ethertypes = [0x88cc, 34958, 0x88_cc, 0x0600, 0xffff]
        timeouts = { profile = "nitro-v6", udp = 60, udp_stream = 60, icmp = 1, other = 432000 }
    "#;
    let interface = interface(text);
    let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()];
    assert_eq!(interface.addresses, Some(addresses));
    let settings = interface.settings;
    assert_eq!(
        (settings.device.as_str(), settings.netns.as_deref()),
        ("ens5", Some("/proc/1/ns/net"))
    );
    assert_eq!(settings.orientation, Some(Orientation::Host));
    assert_eq!(settings.hook, Hook::XdpGeneric);
    assert_eq!((settings.allowance, settings.reserve), (Some(5000), 100));
    assert_eq!(
        (settings.track, settings.icmp_errors),
        (Track::Always, IcmpErrors::Strict)
    );
    assert_eq!((settings.tcp_loose, settings.nd_redirect), (true, true));
    assert_eq!((settings.dhcp, settings.mld), (false, false));
    assert_eq!(settings.source_dest_check, Some(false));
    assert_eq!(settings.ethertypes, [0x0600, 0x888e, 0x88cc, 0xffff]);
    let seconds = |timeout: Timeout| settings.timeouts[timeout as usize];
    assert_eq!(seconds(Timeout::TcpEstablished), 350);
    assert_eq!(seconds(Timeout::Udp), 60);
    assert_eq!(seconds(Timeout::UdpStream), 60);
    assert_eq!(
        (seconds(Timeout::Icmp), seconds(Timeout::Other)),
        (1, 432_000)
    );
    assert_eq!(seconds(Timeout::TcpSynSent), 120);
}

#[test]
fn an_interface_with_nothing() {
    let bare = interface("");
    assert_eq!(bare.settings, crate::model::InterfaceSettings::new("i"));
    assert_eq!(bare.addresses, None);
    assert_eq!(interface("addresses = []").addresses, Some(vec![]));
    let own = interface("timeouts = { profile = \"nitro-v6\", tcp_established = 60 }");
    assert_eq!(own.settings.timeouts[Timeout::TcpEstablished as usize], 60);
}

#[test]
fn bad_values_of_an_interface() {
    for bad in [
        "device = \"\"",
        "device = \"a/b\"",
        "device = \"sixteen-letters-\"",
        "netns = \"\"",
        "netns = \"..\"",
        "netns = \"a/b\"",
        "orientation = \"mine\"",
        "hook = \"xpd\"",
        "allowance = 0",
        "allowance = 262145",
        "reserve = 262145",
        "reserve = -1",
        "timeouts.udp = 29",
        "timeouts.udp = 61",
        "timeouts.udp_stream = 181",
        "timeouts.tcp_established = 59",
        "timeouts.icmp = 0",
        "timeouts.other = 432001",
        "timeouts.profile = \"nitro\"",
        "ethertypes = [0x05ff]",
        "ethertypes = [0x10000]",
        "ethertypes = [-1]",
        "ethertypes = [0x0800]",
        "ethertypes = [0x0806]",
        "ethertypes = [0x86dd]",
        "ethertypes = [0x8100]",
        "ethertypes = [0x88a8]",
        "ethertypes = [0x9100]",
        "ethertypes = [0x9200]",
        "addresses = [\"127.0.0.1\"]",
        "addresses = [\"ff02::1\"]",
        "addresses = [\"0.0.0.0\"]",
        "addresses = [\"10.0.0.1/24\"]",
        "addresses = [\"::ffff:10.0.0.1\"]",
    ] {
        let text = format!("[interfaces.i]\ngroups = []\n{bad}");
        assert_eq!(codes(&text), ["InvalidParameterValue"], "{bad}");
    }
    for bad in [
        "device = 1",
        "dhcp = \"yes\"",
        "timeouts = 3",
        "source_dest_check = \"on\"",
        "ethertypes = 0x88cc",
        "ethertypes = [\"0x88cc\"]",
        "ethertypes = [\"lldp\"]",
        "groups = \"g\"",
        "addresses = \"10.0.0.1\"",
    ] {
        let groups = if bad.starts_with("groups") {
            ""
        } else {
            "groups = []"
        };
        assert_eq!(
            codes(&format!("[interfaces.i]\n{groups}\n{bad}")),
            ["wrong-type"],
            "{bad}"
        );
    }
    assert_eq!(codes("[interfaces.i]"), ["missing-key"]);
    assert_eq!(
        codes("[interfaces.i]\ngroups = []\nspeed = 1"),
        ["unknown-key"]
    );
    let twice =
        "[interfaces.a]\ndevice = \"e\"\ngroups = []\n[interfaces.b]\ndevice = \"e\"\ngroups = []";
    assert_eq!(codes(twice), ["duplicate-device"]);
}

#[test]
fn a_check_without_addresses_is_told_of_where_it_was_asked_for() {
    let text = |keys: &str| format!("[interfaces.i]\ngroups = []\n{keys}");
    const CHECK: &str = "source_dest_check = true";
    for (keys, expected) in [
        (
            format!("orientation = \"host\"\n{CHECK}"),
            vec!["no-effect"],
        ),
        (
            format!("orientation = \"host\"\naddresses = [\"10.0.0.1\"]\n{CHECK}"),
            vec![],
        ),
        // Those of an own device are asked for.
        (format!("orientation = \"own\"\n{CHECK}"), vec![]),
        ("orientation = \"host\"".to_owned(), vec![]),
        (
            "orientation = \"host\"\nsource_dest_check = false".to_owned(),
            vec![],
        ),
    ] {
        assert_eq!(codes(&text(&keys)), expected, "{keys}");
        assert!(checked(&[&text(&keys)]).model.is_some(), "{keys}");
    }
}

#[test]
fn groups_of_an_interface_are_limited() {
    let text = |count: usize, quotas: &str| {
        let names: Vec<_> = (0..count).map(|number| format!("g{number}")).collect();
        let groups = names
            .iter()
            .map(|name| format!("[groups.{name}]\negress = []\n"));
        let groups: String = groups.collect();
        format!("defaults.quotas = \"{quotas}\"\n{groups}[interfaces.i]\ngroups = {names:?}")
    };
    const CODE: &str = "SecurityGroupsPerInterfaceLimitExceeded";
    assert_eq!(codes(&text(5, "aws")), NONE);
    assert_eq!(codes(&text(16, "warn")), [CODE]);
    assert!(checked(&[&text(16, "warn")]).model.is_some());
    assert!(checked(&[&text(6, "aws")]).model.is_none());
    assert_eq!(codes(&text(17, "warn")), [CODE]);
    assert!(checked(&[&text(17, "warn")]).model.is_none());
}
