//! What stands in the kernel when `sgctl apply` has returned.

use std::{fs, net::Ipv6Addr, path::Path};

use aya::{maps::MapInfo, programs::ProgramInfo};
use sg_common::abi::{
    PROGRAM_CT_CONTROL, PROGRAM_TC_EGRESS, PROGRAM_XDP_INGRESS, PROGRAMS_LATER, map,
};
use sg_userspace::pin::Pins;

use crate::{
    common::{
        netns::{Enforcer, answers},
        require::require,
    },
    counters::Counters,
    link::{Family, Link, Orientation, anyone},
};

/// Bytes of a name in the kernel (`BPF_OBJ_NAME_LEN`, with its terminator).
const NAME: usize = 15;

#[test]
fn everything_is_pinned_under_its_name() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "xdp");
    link.enforce(&anyone("tcp", "8080"), "", "");
    let root = Pins::new(&link.enforcer.context.bpffs).root().to_owned();
    assert_eq!(names(&root.join("links")), ["1-egress", "1-ingress"]);
    let mut maps = map::ALL.to_vec();
    maps.sort_unstable();
    assert_eq!(names(&root.join("maps")), maps);
    for name in maps {
        let info = MapInfo::from_pin(root.join("maps").join(name)).unwrap();
        assert_eq!(info.name_as_str(), Some(&name[..name.len().min(NAME)]));
    }
    // Programs are loaded when they are needed, with those that they hand packets on to; one set for each
    // namespace, 0 stands for all.
    let mut judging = PROGRAMS_LATER.concat();
    judging.extend([PROGRAM_TC_EGRESS, PROGRAM_XDP_INGRESS]);
    for (set, programs) in [("ns0", vec![PROGRAM_CT_CONTROL]), ("ns1", judging)] {
        let set = root.join("progs").join(set);
        let mut expected = [&programs[..], &map::OF_A_SET].concat();
        expected.sort_unstable();
        assert_eq!(names(&set), expected);
        for name in programs {
            let info = ProgramInfo::from_pin(set.join(name)).unwrap();
            assert_eq!(info.name_as_str(), Some(name));
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn j10_who_stands_before_us_is_named_and_who_stands_behind_still_judges() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    let _servers = [7070, 8080, 9090].map(|port| link.workload.serve(Ipv6Addr::UNSPECIFIED, port));
    link.enforce(&(anyone("tcp", "8080") + &anyone("tcp", "9090")), "", "");
    let status = link.enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("stands before ours"), "{status:?}");

    let ahead = Enforcer::new();
    let rules = anyone("tcp", "7070") + &anyone("tcp", "8080");
    let groups = format!("[groups.g]\ningress = [{rules}]\negress = []\n");
    ahead
        .apply(&(groups + &link.interface("[\"g\"]", "")), &[])
        .ok();
    let status = link.enforcer.sgctl(&["status"]).ok();
    for chain in ["ingress chain of eth0", "egress chain of eth0"] {
        let warning = format!("stands before ours in the {chain}");
        assert!(status.out.contains(&warning), "{status:?}");
    }
    let status = ahead.sgctl(&["status"]).ok();
    assert!(!status.out.contains("stands before ours"), "{status:?}");

    let count = || {
        (
            Counters::read(&ahead, "w"),
            Counters::read(&link.enforcer, "w"),
        )
    };
    let address = Family::V4.workload();
    let before = count();
    let mut both = link.peer.connect(address, 8080).unwrap();
    assert!(answers(&mut both));
    assert!(link.peer.connect_is_dropped(address, 9090));
    let between = count();
    between.0.only(
        &before.0,
        "ingress",
        &["passed_new", "passed_established", "dropped_no_rule"],
    );
    between
        .1
        .only(&before.1, "ingress", &["passed_new", "passed_established"]);
    assert!(link.peer.connect_is_dropped(address, 7070));
    let after = count();
    assert_eq!(after.0.passed(&between.0, "ingress", "new"), 1);
    after.1.only(&between.1, "ingress", &["dropped_no_rule"]);

    ahead.sgctl(&["detach", "--all"]).ok();
    let status = link.enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("stands before ours"), "{status:?}");
    assert!(answers(&mut link.peer.connect(address, 9090).unwrap()));
    assert!(answers(&mut both));
}
