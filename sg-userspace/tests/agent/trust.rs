//! Files that the agent follows, and does not follow everywhere.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
};

use crate::common::{
    agent::{Agent, LATER, replace},
    netns::{Enforcer, answers, eventually_within},
    pair::{NEAR, Pair, web},
    require::require,
};

#[test]
fn n4_a_file_that_others_could_have_written_does_not_come_into_force() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("web", "[\"g\"]", "");
    let agent = Agent::start(&enforcer, &(web("g", 8080) + &interface), &[]);
    // A stranger puts a file in its place, or is let write to it.
    for user in [65_534, 0] {
        let seen = agent.lines().len();
        let new = enforcer.file.with_extension("new");
        fs::write(&new, web("g", 9090) + &interface).unwrap();
        fs::set_permissions(
            &new,
            Permissions::from_mode(if user == 0 { 0o666 } else { 0o644 }),
        )
        .unwrap();
        chown(&new, Some(user), None).unwrap();
        fs::rename(&new, &enforcer.file).unwrap();
        let said = agent.says_after(seen, "reload failed, what was in force stays");
        assert!(said.contains("is not taken for a definition"), "{said}");
        assert!(pair.far.connect_is_dropped(NEAR, 9090));
        assert!(answers(&mut pair.far.connect(NEAR, 8080).unwrap()));
        replace(&enforcer.file, &(web("g", 8080) + &interface));
        agent.says_after(seen, "applied generation");
    }
    // To take the permission away is a change like any other.
    fs::write(&enforcer.file, web("g", 9090) + &interface).unwrap();
    eventually_within(LATER, "the new rule", || {
        pair.far.connect(NEAR, 9090).is_ok()
    });
    let seen = agent.lines().len();
    fs::set_permissions(&enforcer.file, Permissions::from_mode(0o646)).unwrap();
    agent.says_after(seen, "reload failed");
    fs::set_permissions(&enforcer.file, Permissions::from_mode(0o644)).unwrap();
    agent.says_after(seen, "applied generation");
}
