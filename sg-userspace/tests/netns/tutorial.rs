//! The tutorial, as it is written: its commands in their order, with traffic between them.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{
    netns::{Enforcer, answers, unique},
    pair::{FAR, NEAR, Pair},
    require::require,
};

/// A copy of the tutorial for one namespace, with an `sgctl` that has pins and state of its own.
struct Tutorial {
    directory: PathBuf,
    steps: Vec<String>,
}

impl Tutorial {
    fn new(enforcer: &Enforcer, pair: &Pair) -> Self {
        let directory = env::temp_dir().join(unique("tutorial"));
        fs::create_dir(&directory).unwrap();
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tutorial");
        let read = |name: &str| fs::read_to_string(original.join(name)).unwrap();
        fs::write(directory.join("main.tf"), read("main.tf")).unwrap();
        let netns = format!("netns = \"{}\"", pair.near.name);
        let host = read("host.toml").replace("netns = \"tutorial\"", &netns);
        fs::write(directory.join("host.toml"), host).unwrap();
        let context = &enforcer.context;
        let program = format!(
            "#!/bin/sh\nexec '{}' --bpffs '{}' --state-dir '{}' \"$@\"\n",
            env!("CARGO_BIN_EXE_sgctl"),
            context.bpffs.display(),
            context.state_dir.display()
        );
        let path = directory.join("sgctl");
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let text = read("README.md");
        let blocks = text.split("```sh\n").skip(1);
        let steps = blocks.map(|rest| rest.split("```").next().unwrap().to_owned());
        Self {
            directory,
            steps: steps.collect(),
        }
    }

    /// Runs the commands of a step and returns what they print.
    #[track_caller]
    fn step(&self, number: usize) -> String {
        let path = format!("{}:{}", self.directory.display(), env::var("PATH").unwrap());
        let done = Command::new("sh")
            .args([
                "-e",
                "-c",
                &format!("exec 2>&1\n{}", self.steps[number - 1]),
            ])
            .env("PATH", path)
            .current_dir(&self.directory)
            .output()
            .unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "step {number}: {said}");
        said
    }
}

impl Drop for Tutorial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn the_tutorial_goes_as_it_is_written() {
    require!(Root, Object);
    let pair = Pair::new();
    let enforcer = Enforcer::new();
    let tutorial = Tutorial::new(&enforcer, &pair);
    assert_eq!(tutorial.steps.len(), 5);
    let _servers = [80, 22, 3306].map(|port| pair.near.serve(NEAR, port));
    let _outside = pair.far.serve(FAR, 8080);

    let said = tutorial.step(1);
    assert!(said.contains("warning[open-management-port]"), "{said}");
    assert!(said.contains("note[open-egress]"), "{said}");
    assert!(said.contains("2 passed, 0 failed"), "{said}");

    tutorial.step(2);
    let mut ssh = pair.far.connect(NEAR, 22).unwrap();
    assert!(answers(&mut ssh));
    assert!(answers(&mut pair.far.connect(NEAR, 80).unwrap()));
    assert!(pair.far.connect_is_dropped(NEAR, 3306));
    assert!(answers(&mut pair.near.connect(FAR, 8080).unwrap()));

    let said = tutorial.step(3);
    assert!(said.contains("tcp 80"), "{said}");
    assert!(pair.far.connect_is_dropped(NEAR, 80));
    assert!(answers(&mut ssh), "what is tracked lives");
    assert!(answers(&mut pair.far.connect(NEAR, 22).unwrap()));
    assert!(answers(&mut pair.near.connect(FAR, 8080).unwrap()));

    tutorial.step(4);
    assert!(answers(&mut ssh), "answers belong to tracked flows");
    assert!(answers(&mut pair.far.connect(NEAR, 22).unwrap()));
    assert!(pair.near.connect_is_dropped(FAR, 8080));
    assert!(enforcer.figure("eth0", "egress_dropped_no_rule_packets") > 0);

    tutorial.step(5);
    assert!(answers(&mut pair.far.connect(NEAR, 80).unwrap()));
}
