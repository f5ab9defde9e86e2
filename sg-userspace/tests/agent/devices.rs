//! The agent while devices and namespaces come, go, move and change, one by one and many at once.

use std::{fs, process::Command, thread, time::Duration};

use crate::common::{
    agent::{Agent, LATER, replace},
    netns::{Enforcer, Namespace, answers, eventually, eventually_within, ip, veth},
    pair::{FAR, NEAR, Pair, web},
    require::{require, skip},
};
use sg_userspace::{
    attach::{EGRESS, INGRESS},
    pin::Pins,
};

fn interface(name: &str, device: &str, namespace: &str) -> String {
    format!(
        "[interfaces.{name}]\ndevice = \"{device}\"\nnetns = \"{namespace}\"\norientation = \"own\"\ngroups = [\"g\"]\n"
    )
}

fn applied(agent: &Agent) -> usize {
    let lines = agent.lines();
    let lines = lines.iter();
    lines
        .filter(|line| line.contains("applied generation"))
        .count()
}

#[test]
fn both_links_that_somebody_removes_are_attached_again_and_flows_stay() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    let agent = Agent::start(&enforcer, &definition, &[]);
    if enforcer.is_by_filters() {
        return skip("the kernel has no tcx, and filters outlive their pins");
    }
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));
    let pins = Pins::new(&enforcer.context.bpffs);
    for direction in [INGRESS, EGRESS] {
        fs::remove_file(pins.link(1, direction)).unwrap();
    }
    agent.says("web: a link that was removed is attached again");
    eventually("enforcement", || pair.far.connect_is_dropped(NEAR, 9090));
    assert!(answers(&mut stream));
    assert_eq!(
        enforcer.figure("web", "conntrack_created"),
        1,
        "the same flow"
    );
}

#[test]
fn a_burst_of_changes_is_a_few_generations() {
    require!(Root, Object);
    const DEVICES: usize = 30;
    let (near, far, enforcer) = (
        Namespace::new("near"),
        Namespace::new("far"),
        Enforcer::new(),
    );
    let devices: String = (0..DEVICES)
        .map(|number| interface(&format!("i{number}"), &format!("eth{number}"), &near.name))
        .collect();
    fs::write(&enforcer.file, web("g", 8080) + &devices).unwrap();
    let agent = Agent::spawn(&enforcer, &[]);
    agent.says("there is no device eth29");
    let batch: String = (0..DEVICES)
        .map(|number| {
            format!(
                "link add eth{number} netns {} type veth peer name eth{number} netns {}\n",
                near.name, far.name
            )
        })
        .collect();
    let file = enforcer.file.with_extension("batch");
    fs::write(&file, batch).unwrap();
    ip(&format!("-batch {}", file.display()));
    fs::remove_file(file).unwrap();
    let enforced = |count: usize| {
        let status = enforcer.sgctl(&["status"]);
        status.out.matches(": enforced\n").count() == count
    };
    eventually_within(LATER * 3, "all devices", || enforced(DEVICES));
    let after_devices = applied(&agent);
    assert!(
        after_devices <= 10,
        "{after_devices} generations for {DEVICES} devices"
    );

    // A hundred saves in two seconds.
    for port in 9000..9100 {
        replace(&enforcer.file, &(web("g", port) + &devices));
        thread::sleep(Duration::from_millis(20));
    }
    near.ip(&format!("addr add {NEAR}/24 dev eth0"));
    far.ip(&format!("addr add {FAR}/24 dev eth0"));
    for end in [&near, &far] {
        end.ip("link set eth0 up");
    }
    let _servers = [9000, 9099].map(|port| near.serve(NEAR, port));
    eventually_within(LATER, "the last rule", || far.connect(NEAR, 9099).is_ok());
    assert!(far.connect_is_dropped(NEAR, 9000));
    let for_files = applied(&agent) - after_devices;
    assert!(
        (1..=20).contains(&for_files),
        "{for_files} generations for 100 saves"
    );
}

#[test]
fn a_device_that_moves_to_where_the_definition_names_it_stays_what_it_is() {
    require!(Root, Object);
    let (pair, other, enforcer) = (Pair::new(), Namespace::new("other"), Enforcer::new());
    // It cannot keep its index.
    other.ip("link add br0 index 10 type bridge");
    let definition =
        |namespace: &Namespace| web("g", 8080) + &interface("web", "eth0", &namespace.name);
    let agent = Agent::start(&enforcer, &definition(&pair.near), &[]);
    if enforcer.is_by_filters() {
        return skip("the kernel has no tcx, and filters do not follow a device");
    }
    {
        let _server = pair.near.serve(NEAR, 8080);
        assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
    }
    pair.near.ip(&format!("link set eth0 netns {}", other.name));
    other.ip(&format!("addr add {NEAR}/24 dev eth0"));
    other.ip("link set eth0 up");
    let _servers = [8080, 9090].map(|port| other.serve(NEAR, port));
    agent.says("web: link lost");
    // Until somebody says where it is, nothing passes.
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    replace(&enforcer.file, &definition(&other));
    agent.says("web: its device has moved");
    eventually_within(LATER, "its policy", || pair.far.connect(NEAR, 8080).is_ok());
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    // It is the same interface, with the same figures.
    assert!(enforcer.figure("web", "conntrack_created") >= 2);
}

#[test]
fn a_device_that_takes_name_and_index_of_one_that_moves_away_is_attached() {
    require!(Root, Object);
    let (pair, other, enforcer) = (Pair::new(), Namespace::new("other"), Enforcer::new());
    let definition = web("g", 8080) + &interface("web", "eth0", &pair.near.name);
    let agent = Agent::start(&enforcer, &definition, &[]);
    // They do not follow a device.
    let by_filters = enforcer.is_by_filters();
    // Faster than anybody looks.
    let there = Namespace::new("there");
    let batch = format!(
        "link set eth0 netns {0}\nlink add eth0 index 10 type veth peer name eth0 netns {1}\naddr add {NEAR}/24 dev eth0\nlink set eth0 up\n",
        other.name, there.name
    );
    let file = enforcer.file.with_extension("batch");
    fs::write(&file, batch).unwrap();
    pair.near.ip(&format!("-batch {}", file.display()));
    fs::remove_file(file).unwrap();
    there.ip(&format!("addr add {FAR}/24 dev eth0"));
    there.ip("link set eth0 up");
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    agent.says("web (eth0): attached");
    eventually_within(LATER, "enforcement of the new one", || {
        there.connect(NEAR, 8080).is_ok() && there.connect_is_dropped(NEAR, 9090)
    });
    if by_filters {
        return;
    }
    // And the one that moved goes on.
    other.ip(&format!("addr add {NEAR}/24 dev eth0"));
    other.ip("link set eth0 up");
    let _more = [8080, 9090].map(|port| other.serve(NEAR, port));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
}

#[test]
fn a_namespace_that_comes_late_goes_and_comes_back_is_followed() {
    require!(Root, Object);
    let (far, enforcer) = (Namespace::new("far"), Enforcer::new());
    let late = Namespace::new("late");
    let name = late.name.clone();
    drop(late);
    fs::write(
        &enforcer.file,
        web("g", 8080) + &interface("web", "eth0", &name),
    )
    .unwrap();
    let agent = Agent::spawn(&enforcer, &[]);
    agent.says("there is no device eth0");
    for _ in 0..2 {
        let seen = agent.lines().len();
        ip(&format!("netns add {name}"));
        let near = Namespace { name: name.clone() };
        // The kernel takes its time to end the namespace before, and the other end of its device.
        let show = || Command::new("ip").args(["link", "show", "eth0"]).output();
        eventually("the end of the device before", || {
            !far.run(show).unwrap().status.success()
        });
        veth(&near, &far, "eth0", 10);
        near.ip(&format!("addr add {NEAR}/24 dev eth0"));
        far.ip(&format!("addr add {FAR}/24 dev eth0"));
        agent.says_after(seen, "web (eth0): attached");
        enforcer.sgctl(&["wait", "web"]).ok();
        {
            let _servers = [8080, 9090].map(|port| near.serve(NEAR, port));
            assert!(answers(&mut far.connect(NEAR, 8080).unwrap()));
            assert!(far.connect_is_dropped(NEAR, 9090));
        }
        let seen = agent.lines().len();
        drop(near);
        agent.says_after(seen, "web: link lost");
    }
}

/// A FIFO where a namespace should be must not stop the agent, nor a file.
#[test]
fn what_is_no_namespace_is_waited_for() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let fifo = enforcer.file.with_extension("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let definition = web("g", 8080)
        + &pair.interface("web", "[\"g\"]", "")
        + &interface("odd", "eth0", fifo.to_str().unwrap())
        + &interface("other", "eth0", enforcer.file.to_str().unwrap());
    let agent = Agent::start(&enforcer, &definition, &[]);
    fs::remove_file(&fifo).unwrap();
    agent.says("odd: there is no device eth0");
    agent.says("other: there is no device eth0");
    enforcer.sgctl(&["wait", "web"]).ok();
    let said = enforcer.sgctl(&["apply", enforcer.file.to_str().unwrap()]);
    said.fails(&["another sgctl"]);
}
