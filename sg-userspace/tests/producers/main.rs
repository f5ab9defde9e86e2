//! Definitions that programs of others write: moto stands for AWS, and the AWS CLI and boto3 create groups in it and
//! ask for them. What they print is read, and compared with what was created. And what a parser of another's reads
//! of Terraform's language, compared with ours.
//!
//! `cargo xtask setup` installs the programs; without them these tests are skipped.

#[path = "../common/require.rs"]
#[expect(unused_macros, reason = "what is required here is told in other words")]
mod require;

mod asked;
mod hcl;
mod server;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use asked::Asked;
use server::Server;
use sg_userspace::{
    definition::{self, Device, Severity, render, source},
    model::Model,
};

/// The environment that `cargo xtask setup` installs them in.
fn environment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python")
}

/// An empty directory of a test's own.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory can be made");
    directory
}

/// The model of a directory, in which nothing is wrong, without the files of a name.
#[track_caller]
fn model(directory: &Path, without: Option<&str>, device: Option<&Device>) -> Model {
    let mut sources = source::read(&[directory.to_owned()]).expect("the files can be read");
    sources.retain(|source| without.is_none_or(|name| !source.name.ends_with(name)));
    let devices = || Ok(device.cloned().into_iter().collect());
    let checked = definition::check_on(&sources, &devices);
    let found = render(&checked.diagnostics);
    assert_eq!(
        definition::count(&checked.diagnostics, Severity::Error),
        0,
        "{found}"
    );
    assert_eq!(
        definition::count(&checked.diagnostics, Severity::Warning),
        0,
        "{found}"
    );
    checked.model.expect("there are no errors")
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {said}",
        output.status
    );
    output
}

#[test]
fn what_the_aws_cli_and_boto3_print_is_what_was_created() {
    if !environment().join("installed.txt").is_file() {
        require::skip("needs programs of others: `cargo xtask setup` installs them");
        return;
    }
    let server = Server::start();
    let by_boto = directory("producers-boto3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers/create.py");
    let created = succeeds(server.command("python").arg(script).arg(&by_boto));
    let asked: Asked = serde_json::from_slice(&created.stdout).expect("what was asked for");
    // The server keeps descriptions of what groups are peers of in one of its two answers, those of lists in none.
    asked.compare(&model(&by_boto, None, None), &["cidr", "cidr6"]);
    let groups = model(&by_boto, Some("/rules.json"), None);
    asked.compare(&groups, &["cidr", "cidr6", "group"]);

    let by_cli = directory("producers-aws-cli").join("it's $HOME");
    let sgctl = env!("CARGO_BIN_EXE_sgctl");
    let mut import = Command::new(sgctl);
    import
        .args(["import", "aws", "--region", server::REGION])
        .arg(&by_cli);
    let script = succeeds(&mut import).stdout;
    let script = String::from_utf8(script).expect("a script is text");
    succeeds(server.command("/bin/sh").args(["-c", &script]));
    let read = model(&by_cli, None, None);
    asked.compare(&read, &["cidr", "cidr6"]);
    compare_ids(&read, &by_cli);
    succeeds(Command::new(sgctl).arg("check").arg(&by_cli));

    let own = asked.device("bastion-1");
    let bound = model(&by_cli, None, Some(&own));
    let interface = &bound.interfaces[&own.name];
    assert_eq!(interface.groups, ["bastion"]);
    assert_eq!(interface.settings.source_dest_check, Some(true));
    assert_eq!(
        interface.addresses.as_deref(),
        Some(&["10.1.0.30".parse().unwrap()][..])
    );
    let own = asked.device("web-2");
    let check = model(&by_cli, None, Some(&own)).interfaces[&own.name]
        .settings
        .source_dest_check;
    assert_eq!(check, Some(false));
}

/// Every rule has the id that the server gave it, and no rule of the server's is missing.
fn compare_ids(model: &Model, directory: &Path) {
    let rules = fs::read_to_string(directory.join("security-group-rules.json")).unwrap();
    let rules: serde_json::Value = serde_json::from_str(&rules).unwrap();
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let given: BTreeSet<_> = rules["SecurityGroupRules"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|rule| (text(&rule["GroupId"]), text(&rule["SecurityGroupRuleId"])))
        .collect();
    let mut read = BTreeSet::new();
    for (name, group) in &model.groups {
        for rule in group.ingress.iter().chain(&group.egress) {
            read.insert((model.ids.groups[name].clone(), rule.id.to_string()));
        }
    }
    assert_eq!(read, given);
}
