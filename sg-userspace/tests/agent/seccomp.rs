//! The agent under the system calls that its unit lets it make, and no others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::process::CommandExt as _,
    process::Command,
};

use rustix::process::Signal;

use crate::{
    common::{
        agent::{Agent, LATER, replace},
        netns::{Enforcer, eventually_within},
        pair::{NEAR, Pair, web},
        require::{require, skip},
    },
    service::of_unit,
};

/// Numbers of system calls by name, of this machine's headers.
fn numbers() -> Option<BTreeMap<String, u32>> {
    let places = [
        "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "/usr/include/asm/unistd_64.h",
    ];
    let text = places
        .iter()
        .find_map(|place| fs::read_to_string(place).ok())?;
    let numbers = text.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    });
    Some(numbers.collect())
}

/// The system calls of a set of systemd's, sets in it included; a name without `@` is itself.
fn calls_of(set: &str) -> Option<BTreeSet<String>> {
    if !set.starts_with('@') {
        return Some([set.to_owned()].into());
    }
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", set])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout)
        .ok()
        .filter(|_| output.status.success())?;
    let mut calls = BTreeSet::new();
    let members = text.lines().skip(1).map(str::trim);
    for member in members.filter(|member| !member.is_empty() && !member.starts_with('#')) {
        calls.extend(calls_of(member)?);
    }
    Some(calls)
}

/// What the unit allows: what is listed, less what is listed after `~`.
fn allowed() -> Option<BTreeSet<String>> {
    let mut allowed = BTreeSet::new();
    let mut forbids = false;
    for word in of_unit("SystemCallFilter") {
        // Of each line of the unit the first word says which it is.
        forbids |= word.starts_with('~');
        let calls = calls_of(word.trim_start_matches('~'))?;
        if forbids {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.extend(calls);
        }
    }
    // These systemd allows whatever the filter says.
    allowed.extend(calls_of("@default")?);
    Some(allowed)
}

/// A program of classic BPF that answers EPERM to all calls but these (seccomp(2)).
fn filter(allowed: &BTreeSet<u32>) -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const IS: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const ANSWER: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // `nr` is the first word of `struct seccomp_data`.
    let mut program = vec![step(LOAD, 0, 0, 0)];
    for number in allowed {
        program.push(step(IS, 0, 1, *number));
        program.push(step(ANSWER, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(step(
        ANSWER,
        0,
        0,
        libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
    ));
    program
}

fn confine(command: &mut Command, program: Vec<libc::sock_filter>) {
    let confine = move || {
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: the filter lives as long as this closure, and the kernel copies it.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if done {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: makes system calls only.
    unsafe { command.pre_exec(confine) };
}

#[test]
fn n3_the_system_calls_of_the_unit_are_enough() {
    require!(Root, Object);
    let (Some(numbers), Some(allowed)) = (numbers(), allowed()) else {
        return skip("there is no systemd-analyze, or no header with the numbers of system calls");
    };
    let program = |allowed: &BTreeSet<String>| {
        let allowed = allowed.iter().filter_map(|name| numbers.get(name).copied());
        filter(&allowed.collect())
    };
    for forbidden in [
        "mount",
        "ptrace",
        "init_module",
        "chown",
        "setuid",
        "keyctl",
        "reboot",
    ] {
        assert!(!allowed.contains(forbidden), "{forbidden}");
    }
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("web", "[\"g\"]", "");
    fs::write(&enforcer.file, web("g", 8080) + &interface).unwrap();
    let more = ["--metrics", "127.0.0.1:0", "--detach-on-exit"];
    let mut agent = Agent::spawn_as(&enforcer, &more, |command| {
        confine(command, program(&allowed));
    });
    agent.says("applied generation 1");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    replace(&enforcer.file, &(web("g", 9090) + &interface));
    eventually_within(LATER, "the new rule", || {
        pair.far.connect(NEAR, 9090).is_ok()
    });
    pair.near.ip("addr add 10.77.0.100/24 dev eth0");
    agent.says("web: addresses changed");
    agent.signal(Signal::HUP);
    agent.says("applied generation 3");
    replace(
        &enforcer.file,
        &(web("g", 9090) + &interface + "hook = \"xdp\"\n"),
    );
    eventually_within(LATER, "XDP", || {
        enforcer
            .sgctl(&["status"])
            .out
            .contains("ingress by xdp: as asked")
    });
    crate::common::agent::request(agent.metrics(), "GET", "/metrics");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    agent.says("web: detached");
    let lines = agent.lines();
    assert_eq!(lines.iter().find(|line| line.contains("os error 1)")), None);

    // The filter is one: without what makes it the agent, it is none.
    let mut less = allowed;
    less.remove("bpf");
    let mut agent = Agent::spawn_as(&enforcer, &[], |command| {
        confine(command, program(&less));
    });
    assert_eq!(agent.wait().code(), Some(2));
    agent.says("os error 1)");
}
