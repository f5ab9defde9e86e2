//! `sgctl convert`: where it writes, what it answers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, str};

const DEFINITION: &str = r#"
[groups.web]
ingress = [{ protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" }]
egress = []
[interfaces.eth0]
groups = ["web"]
"#;

/// An empty directory with a definition in it.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("convert")
        .join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("my.toml"), DEFINITION).unwrap();
    directory
}

fn convert(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sgctl"))
        .arg("convert")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn answer(output: &Output) -> (i32, &str, &str) {
    (
        output.status.code().unwrap(),
        str::from_utf8(&output.stdout).unwrap(),
        str::from_utf8(&output.stderr).unwrap(),
    )
}

#[test]
fn a_directory_is_made_for_its_owner_and_reads_as_the_same() {
    let place = directory("made");
    let printed = convert(&place, &["my.toml", "--to", "toml"]);
    let (code, expected, said) = answer(&printed);
    assert_eq!((code, said), (0, ""));
    let written = convert(&place, &["my.toml", "--to", "aws-json", "-o", "dump"]);
    assert_eq!(answer(&written).0, 0);
    let mode = |path: &str| fs::metadata(place.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("dump"), mode("dump/host.toml")), (0o700, 0o600));
    let back = convert(&place, &["dump", "--to", "toml"]);
    assert_eq!(answer(&back), (0, expected, ""));
}

#[test]
fn what_is_there_is_replaced_only_if_that_is_asked_for() {
    let place = directory("there");
    fs::create_dir(place.join("out")).unwrap();
    let arguments = ["my.toml", "--to", "toml", "-o", "out"];
    assert_eq!(answer(&convert(&place, &arguments)).0, 0);
    let file = place.join("out/definition.toml");
    fs::write(&file, "mine").unwrap();
    let refused = convert(&place, &arguments);
    let (code, _, said) = answer(&refused);
    assert_eq!(code, 2);
    assert!(said.contains("out is not empty"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    let mut forced = arguments.to_vec();
    forced.push("--force");
    assert_eq!(answer(&convert(&place, &forced)).0, 0);
    assert!(fs::read_to_string(&file).unwrap().contains("[groups.web]"));
    // Nobody's file elsewhere is written through a link.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(place.join("my.toml"), &file).unwrap();
    assert_eq!(answer(&convert(&place, &forced)).0, 2);
    assert_eq!(
        fs::read_to_string(place.join("my.toml")).unwrap(),
        DEFINITION
    );
}

#[test]
fn what_a_form_cannot_hold_is_said_and_answered() {
    let place = directory("beyond");
    let printed = convert(&place, &["my.toml", "--to", "terraform"]);
    let (code, text, said) = answer(&printed);
    assert_eq!(code, 0);
    assert!(
        text.starts_with("resource \"aws_security_group\" \"web\""),
        "{text}"
    );
    assert_eq!(
        said,
        "not printed, but written by -o DIR: interfaces, members elsewhere and settings of the host\n"
    );
    let of_family =
        DEFINITION.replace("cidr = \"0.0.0.0/0\"", "group = \"web\", family = \"ipv6\"");
    fs::write(place.join("my.toml"), of_family).unwrap();
    let printed = convert(&place, &["my.toml", "--to", "terraform"]);
    let (code, text, said) = answer(&printed);
    assert_eq!(code, 1);
    assert!(!text.contains("443"), "{text}");
    assert!(
        said.contains("left out: the ingress rule \"tcp 443, group web, ipv6 only\""),
        "{said}"
    );
    fs::write(place.join("my.toml"), "[groups.web]\n").unwrap();
    let refused = convert(&place, &["my.toml", "--to", "terraform"]);
    let (code, text, said) = answer(&refused);
    assert_eq!((code, text), (2, ""));
    assert!(said.contains("error[missing-egress]"), "{said}");
}
