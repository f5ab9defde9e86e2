//! A first apply of which a call fails: nothing is enforced afterwards, and nothing is left.

use std::{collections::BTreeMap, fs};

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
fn is_untouched(enforcer: &Enforcer, pairs: &[Pair], call: &str) {
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
    for pair in pairs {
        // What the definition denies.
        assert!(
            answers(&mut pair.far.connect(NEAR, 9090).unwrap()),
            "{call}"
        );
        assert!(
            answers(&mut pair.far.connect(NEAR6, 9090).unwrap()),
            "{call}"
        );
    }
}

fn each(calls: Calls, error: i32) {
    let (pairs, enforcer) = ([Pair::new(), Pair::new()], Enforcer::new());
    let random = &mut Random::new();
    let _servers: Vec<_> = pairs
        .iter()
        .flat_map(|pair| [pair.near.serve(NEAR, 9090), pair.near.serve(NEAR6, 9090)])
        .collect();
    let definition = web("g", 8080)
        + &pairs[0].interface("one", "[\"g\"]", "hook = \"tc\"")
        + &pairs[1].interface("two", "[\"g\"]", "hook = \"tc\"");
    fs::write(&enforcer.file, &definition).unwrap();
    let file = enforcer.file.to_str().unwrap();
    let attempt = |fault| supervisor::run(enforcer.command(&["apply", file]), calls, fault);
    let watched = attempt(None);
    let count = watched.calls;
    watched.answer.ok();
    enforcer.sgctl(&["detach", "--all"]).ok();
    is_untouched(&enforcer, &pairs, "none failed");
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
                is_untouched(&enforcer, &pairs, &call);
                "failed"
            }
            0 => {
                let status = status::read(&enforcer.context).unwrap();
                assert!(status.is_enforced(), "{call}: {status:#?}");
                assert!(pairs[0].far.connect_is_dropped(NEAR, 9090), "{call}");
                enforcer.sgctl(&["detach", "--all"]).ok();
                is_untouched(&enforcer, &pairs, &call);
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
