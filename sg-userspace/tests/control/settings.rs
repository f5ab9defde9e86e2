//! What `sgctl status` says of an interface's settings is what the maps hold.

use serde_json::{Value, json};

use crate::common::{
    netns::{Enforcer, Namespace},
    pair::{Pair, denies_all},
    require::require,
};

/// `sgctl status --json` of the only interface.
fn status(enforcer: &Enforcer) -> Value {
    let said = enforcer.sgctl(&["status", "--json"]).ok();
    let status: Value = serde_json::from_str(&said.out).unwrap();
    status["interfaces"][0].clone()
}

#[test]
fn addresses_are_checked_where_they_are_known_and_it_is_not_declined() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let listed = "addresses = [\"10.77.0.2\"]\n";
    for (orientation, addresses, key, expected) in [
        ("host", listed, "", "on"),
        ("host", listed, "source_dest_check = false", "off"),
        ("host", listed, "source_dest_check = true", "on"),
        ("host", "", "", "addresses-unknown"),
        ("host", "", "source_dest_check = true", "addresses-unknown"),
        ("host", "", "source_dest_check = false", "off"),
        // The workload's own are read from its device.
        ("own", "", "", "off"),
        ("own", "", "source_dest_check = true", "on"),
        ("own", listed, "source_dest_check = true", "on"),
    ] {
        let interface = pair.interface("a", "[\"g\"]", &format!("{addresses}{key}"));
        let interface = interface.replace("\"own\"", &format!("\"{orientation}\""));
        let said = enforcer.apply(&(denies_all("g") + &interface), &[]).ok();
        let found = status(&enforcer);
        assert_eq!(found["source_dest_check"], expected, "{interface} {said:?}");
        let words = match expected {
            "addresses-unknown" => "check off: the workload's addresses are not known",
            "on" => "source and destination check on\n",
            _ => "source and destination check off\n",
        };
        let said = enforcer.sgctl(&["status"]).ok();
        assert!(said.out.contains(words), "no {words:?} in {said:?}");
    }
}

/// The loader decides for `own` only, and the check follows as if that had been given.
#[test]
fn an_orientation_that_is_not_given_has_the_same_default() {
    require!(Root, Object);
    let (namespace, enforcer) = (Namespace::new("both"), Enforcer::new());
    namespace.ip("link add one type veth peer name two");
    let with = |key: &str| {
        format!(
            "[interfaces.a]\ndevice = \"one\"\nnetns = \"{}\"\ngroups = []\n{key}",
            namespace.name
        )
    };
    for (key, expected) in [
        ("", "off"),
        ("source_dest_check = true", "on"),
        ("orientation = \"host\"\naddresses = [\"10.0.0.1\"]", "on"),
        ("addresses = [\"10.0.0.1\"]", "off"),
    ] {
        enforcer.apply(&with(key), &[]).ok();
        let found = status(&enforcer);
        assert_eq!(found["source_dest_check"], expected, "{key}");
        let host = key.contains("host");
        assert_eq!(found["orientation"], if host { "host" } else { "own" });
    }
}

#[test]
fn revocation_and_ethertypes_are_shown_as_they_are_in_force() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let with = |on_revoke: &str, groups: &str, ethertypes: &str| {
        let cuts =
            denies_all("cuts").replace("ingress", &format!("on_revoke = \"{on_revoke}\"\ningress"));
        let more = format!("ethertypes = {ethertypes}");
        cuts + &denies_all("keeps") + &pair.interface("a", groups, &more)
    };
    for (on_revoke, groups, expected) in [
        ("reevaluate", "[\"keeps\", \"cuts\"]", "reevaluate"),
        ("reevaluate", "[\"keeps\"]", "keep"),
        ("keep", "[\"cuts\"]", "keep"),
    ] {
        enforcer.apply(&with(on_revoke, groups, "[]"), &[]).ok();
        let found = status(&enforcer);
        assert_eq!(found["on_revoke"], expected, "{on_revoke} {groups}");
        assert_eq!(found["ethertypes"], json!([]));
        let said = enforcer.sgctl(&["status"]).ok();
        let words = format!("    on_revoke {expected}: ");
        assert!(said.out.contains(&words), "{said:?}");
        assert!(!said.out.contains("ethertypes"), "{said:?}");
    }
    let definition = with("reevaluate", "[\"cuts\"]", "[0x88cc, 0x0600]");
    enforcer.apply(&definition, &[]).ok();
    assert_eq!(status(&enforcer)["ethertypes"], json!([0x0600, 0x88cc]));
    let said = enforcer.sgctl(&["status"]).ok();
    assert!(
        said.out.contains("    ethertypes 0x0600, 0x88cc pass\n"),
        "{said:?}"
    );

    // An interface that the definition names no longer keeps them.
    let other = Pair::new();
    let definition = denies_all("cuts") + &other.interface("b", "[\"cuts\"]", "");
    assert_eq!(enforcer.apply(&definition, &[]).code, 2);
    let found = status(&enforcer);
    assert_eq!(
        (&found["name"], &found["orphan"]),
        (&json!("a"), &json!(true))
    );
    assert_eq!(found["on_revoke"], "reevaluate");
    assert_eq!(found["ethertypes"], json!([0x0600, 0x88cc]));
}

/// As JSON always, as text if they are not at their defaults.
#[test]
fn other_settings_are_shown_as_they_are_in_force() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let with = |keys: &str| {
        let conntrack = "[conntrack]\nallowance = 5000\n";
        conntrack.to_owned() + &denies_all("g") + &pair.interface("a", "[\"g\"]", keys)
    };
    enforcer.apply(&with(""), &[]).ok();
    let said = enforcer.sgctl(&["status"]).ok();
    let first = status(&enforcer);
    let timeout = |status: &Value, name: &str| status["timeouts"][name].clone();
    assert_eq!(timeout(&first, "tcp_established"), 432_000);
    assert_eq!(first["timeouts"].as_object().unwrap().len(), 11);
    for (keys, key, value, words) in [
        (
            "track = \"always\"",
            "track",
            json!("always"),
            "track always: no flow goes untracked",
        ),
        (
            "tcp_loose = true",
            "tcp_loose",
            json!(true),
            "tcp_loose true: a rule may open TCP in its middle",
        ),
        (
            "icmp_errors = \"strict\"",
            "icmp_errors",
            json!("strict"),
            "icmp_errors strict: ICMP errors pass by rule only",
        ),
        (
            "dhcp = false",
            "dhcp",
            json!(false),
            "dhcp false: DHCP passes by rule only",
        ),
        (
            "mld = false",
            "mld",
            json!(false),
            "mld false: MLD passes by rule only",
        ),
        (
            "nd_redirect = true",
            "nd_redirect",
            json!(true),
            "nd_redirect true: ICMPv6 redirects pass towards the workload",
        ),
        ("allowance = 700", "allowance", json!(700), "allowance 700"),
        ("reserve = 40", "reserve", json!(40), "reserve 40"),
    ] {
        let line = format!("    {words}\n");
        assert!(!said.out.contains(&line), "{key}: {said:?}");
        assert_ne!(first[key], value, "{key}");
        enforcer.apply(&with(keys), &[]).ok();
        let mut found = status(&enforcer);
        assert_eq!(found[key], value);
        let said = enforcer.sgctl(&["status"]).ok();
        assert!(said.out.contains(&line), "{key}: {said:?}");
        // And nothing else.
        found[key] = first[key].clone();
        assert_eq!(found, first, "{key}");
    }
    let keys = "timeouts = { profile = \"nitro-v6\", udp = 60, udp_stream = 180 }";
    enforcer.apply(&with(keys), &[]).ok();
    let found = status(&enforcer);
    assert_eq!(timeout(&found, "tcp_established"), 350);
    assert_eq!(timeout(&found, "udp"), 60);
    let said = enforcer.sgctl(&["status"]).ok();
    let line = "    timeouts tcp_established 350 s, udp 60 s\n";
    assert!(said.out.contains(line), "{said:?}");
}
