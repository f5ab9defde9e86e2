//! A first apply of which a call fails: nothing is enforced afterwards, and nothing is left.

use std::{collections::BTreeMap, fs, net::IpAddr};

use sg_userspace::{session::Context, status};

use crate::{
    common::{
        netns::{Enforcer, answers},
        pair::{NEAR, NEAR6, Pair, web},
        require::require,
    },
    scale::{self, Random},
    supervisor::{self, Calls, Fault},
};

/// That the devices are as if nobody had ever been there.
#[track_caller]
fn is_untouched(enforcer: &Enforcer, pair: &Pair, call: &str) {
    let Context {
        bpffs, state_dir, ..
    } = &enforcer.context;
    assert!(!bpffs.exists(), "{call}: pins are left");
    let files = fs::read_dir(state_dir).into_iter().flatten();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = files
        .filter(|name| {
            !["lock", "history", "definition"]
                .iter()
                .any(|kept| name.starts_with(kept))
        })
        .collect();
    assert!(left.is_empty(), "{call}: {left:?}");
    let status = status::read(&enforcer.context).unwrap();
    assert_eq!(
        (status.generation, status.interfaces.len()),
        (0, 0),
        "{call}"
    );
    // What the definition denies.
    for address in [IpAddr::from(NEAR), NEAR6.into()] {
        let mut stream = pair.far.connect(address, 9090).unwrap();
        assert!(answers(&mut stream), "{call}");
    }
}

fn each(calls: Calls, error: i32) {
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let random = &mut Random::new();
    let _servers = [IpAddr::from(NEAR), NEAR6.into()].map(|address| pair.near.serve(address, 9090));
    // Another device of the same namespace, which needs no programs of its own.
    pair.near.ip("link add eth1 type veth peer name eth2");
    let first = pair.interface("one", "[\"g\"]", "");
    let second = first
        .replace("\"eth0\"", "\"eth1\"")
        .replace(".one]", ".two]");
    let definition = web("g", 8080) + &first + &second;
    fs::write(&enforcer.file, &definition).unwrap();
    let file = enforcer.file.to_str().unwrap();
    let attempt = |fault| supervisor::run(enforcer.command(&["apply", file]), calls, fault);
    let watched = attempt(None);
    let count = watched.calls;
    watched.answer.ok();
    enforcer.sgctl(&["detach", "--all"]).ok();
    is_untouched(&enforcer, &pair, "none failed");
    let mut outcomes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for at in scale::some_calls(count, random) {
        let watched = attempt(Some((at, Fault::Error(error))));
        let call = format!("call {at} of {count}, {:?}", watched.failed);
        let answer = &watched.answer;
        let outcome = match answer.code {
            2 => {
                assert!(!answer.err.trim().is_empty(), "{call}: {answer:?}");
                assert!(
                    !answer.err.contains("could not be taken back"),
                    "{call}: {answer:?}"
                );
                is_untouched(&enforcer, &pair, &call);
                "failed"
            }
            0 => {
                let status = status::read(&enforcer.context).unwrap();
                assert!(status.is_enforced(), "{call}: {status:#?}");
                assert!(pair.far.connect_is_dropped(NEAR, 9090), "{call}");
                enforcer.sgctl(&["detach", "--all"]).ok();
                is_untouched(&enforcer, &pair, &call);
                "none needed it"
            }
            _ => panic!("{call}: {answer:?}"),
        };
        outcomes.entry(outcome).or_default().push(at);
    }
    println!("{calls:?} of {count}: {outcomes:?}");
    assert!(outcomes.contains_key("failed"), "{outcomes:?}");
    enforcer.sgctl(&["apply", file]).ok();
}

#[test]
fn m8_whichever_bpf_call_of_a_first_apply_fails_nothing_is_half_attached() {
    require!(Root, Object);
    each(Calls::Bpf, libc::ENOMEM);
}

#[test]
fn m8_whichever_file_call_of_a_first_apply_fails_nothing_is_half_attached() {
    require!(Root, Object);
    each(Calls::Files, libc::EIO);
}
