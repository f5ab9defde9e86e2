//! What asks for more than there is ends in an error, soon.

use std::time::{Duration, Instant};

use super::lines;

fn refused(text: &str) -> String {
    let begun = Instant::now();
    let mut found = lines(&[("main.tf", text)]);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(300), "{took:?}");
    found.retain(|line| line.starts_with("error["));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn of_expression(expression: &str) -> String {
    refused(&format!(
        "resource \"aws_security_group\" \"t\" {{\n  name = {expression}\n}}\n"
    ))
}

#[test]
fn values_are_bounded() {
    for (expression, expected) in [
        (
            "length(range(1000000000))",
            "error[evaluation] main.tf:2:17 `range`: more than 1024 values, which Terraform refuses",
        ),
        (
            "length(setproduct(range(1000), range(1000), range(1000)))",
            "error[too-large] main.tf:2:17 a value that consists of more than",
        ),
        ("format(\"%1000000000d\", 1)", ""),
        (
            "[for a in range(1024) : [for b in range(1024) : [for c in range(1024) : a]]]",
            "error[too-large]",
        ),
        (
            "length([for a in range(1024) : [for b in range(1024) : [for c in range(1024) : a] if false] if false])",
            "",
        ),
        (
            "length([for a in range(1024) : [for b in range(1024) : [for c in range(1024) : 1]] == [] if true])",
            "error[too-large]",
        ),
        (
            "replace(join(\"\", [for a in range(1000) : \"aaaaaaaaaa\"]), \"a\", join(\"\", [for a in range(1000) : \"aaaaaaaaaa\"]))",
            "error[too-large] main.tf:2:10 a string of more than 1048576 bytes",
        ),
    ] {
        if expected.is_empty() {
            let found = lines(&[(
                "main.tf",
                &format!("resource \"aws_security_group\" \"t\" {{\n  name = {expression}\n}}\n"),
            )]);
            assert!(!found[0].contains("error"), "{expression}: {found:?}");
            continue;
        }
        let found = of_expression(expression);
        assert!(found.starts_with(expected), "{expression}: {found}");
    }
}

#[test]
fn what_doubles_is_bounded() {
    for (start, next, expected) in [
        (
            "\"ab\"",
            "\"${local.aN}${local.aN}\"",
            "a string of more than 1048576 bytes",
        ),
        (
            "[1]",
            "[local.aN, local.aN]",
            "a value that consists of more than 1000000 values",
        ),
        (
            "[1]",
            "concat(local.aN, local.aN)",
            "a value that consists of more than 1000000 values",
        ),
        ("[1]", "[local.aN]", "values nested deeper than 62 levels"),
        (
            "{ k = 1 }",
            "{ a = local.aN, b = local.aN }",
            "a value that consists of more than",
        ),
    ] {
        let mut text = format!("locals {{\n  a0 = {start}\n");
        for number in 1..100 {
            let own = next.replace("aN", &format!("a{}", number - 1));
            text += &format!("  a{number} = {own}\n");
        }
        text += "}\nresource \"aws_security_group\" \"t\" {\n  name = local.a99\n}\n";
        let found = refused(&text);
        assert!(found.starts_with("error[too-large] "), "{found}");
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn long_ways_and_many_instances_are_bounded() {
    let mut text = String::from("locals {\n  a0 = 1\n");
    for number in 1..20_000 {
        text += &format!("  a{number} = local.a{}\n", number - 1);
    }
    text += "}\nresource \"aws_security_group\" \"t\" {\n  name = local.a19999\n}\n";
    let found = refused(&text);
    assert!(
        found.contains("expressions refer to each other over more than 1000 levels"),
        "{found}"
    );

    let found = refused("resource \"aws_security_group\" \"t\" {\n  count = 100001\n}\n");
    assert!(
        found.contains("more than 100000 instances of resources"),
        "{found}"
    );
    let found = refused(
        "resource \"aws_security_group\" \"s\" {\n}\nresource \"aws_security_group\" \"t\" {\n  count = 1e300\n}\n",
    );
    assert!(
        found.contains("more than 100000 instances of resources"),
        "{found}"
    );

    let found = refused(
        "resource \"aws_security_group\" \"t\" {\n  dynamic \"ingress\" {\n    for_each = setproduct(range(1000), range(300))\n    content {\n      from_port = 1\n      x = ingress.value\n      y = ingress.value\n    }\n  }\n}\n",
    );
    assert!(found.contains("error[too-large]"), "{found}");
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for (open, close) in [
        ("[", "]"),
        ("(", ")"),
        ("{ a = ", "}"),
        ("!", ""),
        ("\"${", "}\""),
        ("f(", ")"),
    ] {
        let text = format!(
            "locals {{\n  a = {}1{}\n}}\n",
            open.repeat(20_000),
            close.repeat(20_000)
        );
        let found = refused(&text);
        assert!(found.contains("error[syntax]"), "{open}: {found}");
    }
    let blocks = format!("{}{}", "a {\n".repeat(20_000), "}\n".repeat(20_000));
    assert!(refused(&blocks).contains("error[syntax]"));
}

#[test]
fn many_rules_are_read() {
    let text = r#"
resource "aws_security_group" "t" {
  name = "t"
}
resource "aws_vpc_security_group_ingress_rule" "r" {
  count             = 20000
  security_group_id = aws_security_group.t.id
  ip_protocol       = "tcp"
  from_port         = count.index % 65536
  to_port           = count.index % 65536
  cidr_ipv4         = cidrsubnet("10.0.0.0/8", 24, count.index)
}
"#;
    let begun = Instant::now();
    let found = lines(&[("main.tf", text)]);
    assert_eq!(found.len(), 20_001);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(300), "{took:?}");
}
