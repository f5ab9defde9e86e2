//! What is refused: devices, directories, pins, writers, definitions.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::common::{
    netns::{Enforcer, answers, unique},
    pair::{NEAR, Pair, web},
    require::require,
};
use sg_userspace::{pin::Pins, state::Lock};

#[test]
fn a7_j6_j11_devices_that_cannot_be_judged_are_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    pair.near.ip("link add br0 type bridge");
    pair.near.ip("tuntap add dev tun0 mode tun");
    pair.near.ip("tuntap add dev tap0 mode tap");
    let with = |device: &str, orientation: &str| {
        let name = &pair.near.name;
        let interface = format!(
            "[interfaces.a]\ndevice = \"{device}\"\nnetns = \"{name}\"\ngroups = [\"g\"]\n{orientation}"
        );
        enforcer.apply(&(web("g", 8080) + &interface), &[])
    };
    with("br0", "").fails(&["br0 is a bridge", "ports"]);
    with("lo", "").fails(&["lo is the loopback device"]);
    with("tun0", "").fails(&["tun0 carries no Ethernet header"]);
    with("tap0", "").fails(&["tap0 is a tap", "orientation"]);
    with("eth0", "").fails(&["eth0 is a veth whose peer", "orientation"]);
    with("eth9", "").fails(&["no device eth9"]);
    with("br0", "orientation = \"host\"").fails(&["br0 is a bridge"]);
    assert!(!enforcer.context.bpffs.exists(), "nothing was made");
}

#[test]
fn j11_a_device_on_top_of_another_comes_with_a_caution() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    pair.near.ip("link add link eth0 name mac0 type macvlan");
    let name = &pair.near.name;
    let interface =
        format!("[interfaces.a]\ndevice = \"mac0\"\nnetns = \"{name}\"\ngroups = [\"g\"]\n");
    let said = enforcer.apply(&(web("g", 8080) + &interface), &[]).ok();
    let words =
        "mac0 is a macvlan: traffic of the device below that does not pass it is not judged";
    assert!(
        said.err.contains(words) || said.out.contains(words),
        "{said:?}"
    );
}

#[test]
fn n1_a_hostile_pin_directory_is_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    // Something must have mounted the file system before a directory can stand in the way.
    enforcer.apply(&definition, &[]).ok();
    enforcer.sgctl(&["detach", "--all"]).ok();
    let base = &enforcer.context.bpffs;
    fs::create_dir(base).unwrap();
    fs::set_permissions(base, fs::Permissions::from_mode(0o777)).unwrap();
    enforcer
        .apply(&definition, &[])
        .fails(&["mode 0777", "0700"]);
    fs::set_permissions(base, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(base, Some(65534), Some(65534)).unwrap();
    enforcer.apply(&definition, &[]).fails(&["uid 65534"]);
    fs::remove_dir(base).unwrap();
    std::os::unix::fs::symlink("/sys/fs/bpf", base).unwrap();
    enforcer.apply(&definition, &[]).fails(&["symbolic link"]);
    fs::remove_file(base).unwrap();
    enforcer.apply(&definition, &[]).ok();
}

#[test]
fn n1_a_directory_in_somebody_elses_is_refused() {
    require!(Root);
    let (pair, mut enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    let theirs = enforcer.context.state_dir.clone();
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    enforcer.context.state_dir = theirs.join("state");
    let said = enforcer.apply(&definition, &[]);
    fs::remove_dir_all(&theirs).unwrap();
    said.fails(&["belongs to somebody else"]);
}

#[test]
fn m4_a_pinned_map_of_another_shape_is_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 9090);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let maps = Pins::new(&enforcer.context.bpffs).root().join("maps");
    fs::remove_file(maps.join("CLASSES")).unwrap();
    fs::hard_link(maps.join("GENERATION"), maps.join("CLASSES")).unwrap_or_else(|_| {
        let map = aya::maps::MapData::from_pin(maps.join("GENERATION")).unwrap();
        map.pin(maps.join("CLASSES")).unwrap();
    });
    let said = enforcer.apply(&definition, &[]);
    said.fails(&["CLASSES", "4", "32", "sgctl detach --all"]);
    // It goes on judging by what is loaded.
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    enforcer.sgctl(&["detach", "--all"]).ok();
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let _held = Lock::take(&enforcer.context.state_dir).unwrap();
    let pid = std::process::id().to_string();
    enforcer
        .apply(&definition, &[])
        .fails(&["another sgctl", &pid]);
    enforcer
        .sgctl(&["detach", "a"])
        .fails(&["another sgctl", &pid]);
    enforcer.sgctl(&["status"]).ok();
    enforcer.sgctl(&["stats"]).ok();
}

#[test]
fn pins_without_their_state_are_not_touched() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 9090);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    fs::remove_file(enforcer.context.state_dir.join("state.json")).unwrap();
    enforcer
        .apply(&definition, &[])
        .fails(&["state", "sgctl detach --all"]);
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    enforcer.sgctl(&["detach", "--all"]).ok();
    assert!(answers(&mut pair.far.connect(NEAR, 9090).unwrap()));
}

#[test]
fn l14_a_definition_with_mistakes_changes_nothing() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let wrong = web("g", 8080) + &pair.interface("a", "[\"missing\"]", "");
    enforcer
        .apply(&wrong, &[])
        .fails(&["missing", "nothing was changed"]);
    assert!(!enforcer.context.bpffs.exists());
    let elsewhere = unique("nowhere");
    let wrong = web("g", 8080)
        + &format!(
            "[interfaces.a]\ndevice = \"eth0\"\nnetns = \"{elsewhere}\"\ngroups = [\"g\"]\n"
        );
    enforcer.apply(&wrong, &[]).fails(&[&elsewhere]);
    assert!(!enforcer.context.bpffs.exists());
}
