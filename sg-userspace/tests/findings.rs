//! What `sgctl check` finds beyond mistakes, how that is switched and passed on, and the tests of a policy.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A directory of its own with a definition that is right, and open.
struct Case(PathBuf);

const OPEN: &str = r#"
[groups.web]
ingress = [
    { protocol = "tcp", ports = 443, cidr = "0.0.0.0/0" },
    { protocol = "tcp", ports = 22, cidr = "0.0.0.0/0" },
]
egress = []
[interfaces.eth0]
groups = ["web"]
"#;

impl Case {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("findings-{name}"));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let case = Self(directory);
        case.write("sg.toml", OPEN);
        case
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    fn sgctl(&self, arguments: &[&str]) -> Answer {
        let output: Output = Command::new(env!("CARGO_BIN_EXE_sgctl"))
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .unwrap();
        Answer {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Answer {
    code: i32,
    out: String,
    err: String,
}

#[test]
fn findings_are_switched_by_code() {
    let case = Case::new("switched");
    let plain = case.sgctl(&["check", "sg.toml"]);
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(
        plain.out.starts_with("1 file: ok, 1 warning\n"),
        "{plain:?}"
    );
    assert!(plain.err.contains("warning[open-management-port]: management port 22 is open to the world\n --> sg.toml:5:5\n"), "{plain:?}");

    let denied = case.sgctl(&["check", "--deny", "open-management-port", "sg.toml"]);
    assert_eq!(denied.code, 1, "{denied:?}");
    assert!(
        denied.err.contains("error[open-management-port]"),
        "{denied:?}"
    );

    let allowed = case.sgctl(&["check", "--allow", "open-management-port", "sg.toml"]);
    assert_eq!((allowed.code, allowed.err.as_str()), (0, ""));

    let other = case.sgctl(&["check", "--management-port", "443", "sg.toml"]);
    assert!(
        other.err.contains("management port 443") && !other.err.contains("port 22"),
        "{other:?}"
    );

    let unknown = case.sgctl(&["check", "--deny", "open-managment-port", "sg.toml"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.err.contains("no such code"), "{unknown:?}");
}

#[test]
fn errors_cannot_be_allowed() {
    let case = Case::new("errors");
    case.write("sg.toml", "[groups.web]\n");
    let answer = case.sgctl(&["check", "--allow", "missing-egress", "sg.toml"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.err.contains("error[missing-egress]"), "{answer:?}");
}

#[test]
fn sarif_says_what_and_where() {
    let case = Case::new("sarif");
    case.write("tests.toml", "tests = [{ from = \"internet\", to = \"group:web\", protocol = \"tcp\", port = 22, family = \"ipv4\", expect = \"deny\" }]\n");
    let answer = case.sgctl(&["check", "--sarif", "sg.toml", "tests.toml"]);
    assert_eq!((answer.code, answer.err.as_str()), (1, ""));
    let log: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let found = &run["results"][0];
    assert_eq!(
        (&found["ruleId"], &found["level"]),
        (&"test-failed".into(), &"error".into())
    );
    let place = &found["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "tests.toml");
    assert_eq!(
        (
            &place["region"]["startLine"],
            &place["region"]["startColumn"]
        ),
        (&1.into(), &10.into())
    );
    let index = usize::try_from(found["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "test-failed");
}

#[test]
fn tests_pass_and_fail_and_keep_a_definition_out() {
    let case = Case::new("tests");
    let tests = |port: u16, expect: &str| {
        format!(
            "[[tests]]\nname = \"the world\"\nfrom = \"internet\"\nto = \"group:web\"\nprotocol = \"tcp\"\nport = {port}\nfamily = \"ipv4\"\nexpect = \"{expect}\"\n"
        )
    };
    case.write("tests.toml", &(tests(443, "allow") + &tests(80, "deny")));
    let passed = case.sgctl(&["test", "sg.toml", "tests.toml"]);
    assert_eq!(passed.code, 0, "{passed:?}");
    assert_eq!(
        passed.out,
        "ok      the world: allow tcp 443 from internet to group:web over IPv4\n\
         ok      the world: deny tcp 80 from internet to group:web over IPv4\n\
         2 passed, 0 failed\n"
    );

    case.write("tests.toml", &(tests(443, "allow") + &tests(22, "deny")));
    let failed = case.sgctl(&["test", "sg.toml", "tests.toml"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.out.contains("FAILED  the world: deny tcp 22 from internet to group:web over IPv4\n        tests.toml:9: IPv4 from "), "{failed:?}");
    assert!(
        failed
            .out
            .contains(" to eth0 is allowed by ingress of web (sg.toml:5)\n1 passed, 1 failed\n"),
        "{failed:?}"
    );

    let json = case.sgctl(&["test", "--json", "sg.toml", "tests.toml"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["passed"], &json["tests"][1]["passed"]),
        (&1.into(), &false.into())
    );

    // Nothing is attached, and nothing is even looked at: state and pins would be made here.
    for command in [["apply", "--trust-files"], ["plan", "--detach-missing"]] {
        let mut arguments = vec!["--state-dir", "state", "--bpffs", "bpf"];
        arguments.extend(command);
        arguments.extend(["sg.toml", "tests.toml"]);
        let refused = case.sgctl(&arguments);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(
            refused
                .err
                .contains("error[test-failed]: expected: the world: deny tcp 22"),
            "{refused:?}"
        );
        assert!(!case.0.join("state").exists() && !case.0.join("bpf").exists());
    }

    // The address of eth0 is not known.
    let private = OPEN.replace(
        "cidr = \"0.0.0.0/0\" },\n]\negress = []",
        "cidr = \"0.0.0.0/0\" },\n]\negress = [{ protocol = \"all\", cidr = \"10.0.0.0/8\" }]",
    );
    assert_ne!(private, OPEN);
    case.write("private.toml", &private);
    case.write("tests.toml", "tests = [{ from = \"group:web\", to = \"interface:eth0\", protocol = \"all\", expect = \"deny\" }]\n");
    let undecided = case.sgctl(&["test", "private.toml", "tests.toml"]);
    assert_eq!(undecided.code, 1, "{undecided:?}");
    assert!(
        undecided.out.contains(
            "IPv4 tcp 22 from eth0 to eth0 cannot be decided: the addresses of eth0 are not known"
        ),
        "{undecided:?}"
    );

    let broken = case.sgctl(&["test", "tests.toml"]);
    assert_eq!(broken.code, 2, "{broken:?}");
    assert!(broken.err.contains("InvalidGroup.NotFound"), "{broken:?}");
}
