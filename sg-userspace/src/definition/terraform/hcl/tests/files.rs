//! Files of a module: variables and their values, and what is wrong with files.

use super::lines;

const MAIN: &str = r#"
resource "aws_security_group" "t" {
  name = var.name
}
variable "name" {
  type    = string
  default = "default"
}
"#;

#[test]
fn values_of_variables_come_from_files_in_their_order() {
    let name = |files: &[(&str, &str)]| {
        let files = [&[("d/main.tf", MAIN)], files].concat();
        lines(&files).join("\n")
    };
    let named = |name: &str| format!("aws_security_group.t {{name=\"{name}\"}}");
    assert_eq!(name(&[]), named("default"));
    assert_eq!(name(&[("d/terraform.tfvars", "name = \"t\"")]), named("t"));
    assert_eq!(
        name(&[
            ("d/b.auto.tfvars", "name = \"b\""),
            ("d/a.auto.tfvars", "name = \"a\""),
            ("d/terraform.tfvars", "name = \"t\""),
        ]),
        named("b")
    );
    assert_eq!(
        name(&[
            ("given/e/1.tfvars", "name = \"first\""),
            ("given/e/0.tfvars.json", "{\"name\": \"second\"}"),
            ("d/a.auto.tfvars", "name = \"a\""),
        ]),
        named("second")
    );
    assert_eq!(
        name(&[("d/prod.tfvars", "name = \"p\"")]),
        format!(
            "{}\nwarning[not-carried-over] d/prod.tfvars:1:1 the values of this file are not used",
            named("default")
        )
    );
    assert_eq!(
        name(&[
            ("d/prod.tfvars", "name = \"p\""),
            ("given/d/prod.tfvars", "name = \"p\"")
        ]),
        named("p")
    );
    assert_eq!(
        name(&[("d/terraform.tfvars", "nmae = 1")]),
        format!(
            "{}\nwarning[unknown-variable] d/terraform.tfvars:1:1 no variable `nmae` is declared",
            named("default")
        )
    );
}

#[test]
fn variables_have_types() {
    let text = |kind: &str, value: &str| {
        format!(
            "variable \"v\" {{\n  type = {kind}\n  default = {value}\n}}\nresource \"aws_security_group\" \"t\" {{\n  v = var.v\n}}\n"
        )
    };
    for (kind, value, expected) in [
        ("string", "80", "\"80\""),
        ("\"string\"", "80", "\"80\""),
        ("number", "\"80\"", "80"),
        ("bool", "\"true\"", "true"),
        ("any", "[1, \"a\"]", "[1 \"a\"]"),
        ("list(string)", "[1, true]", "[\"1\" \"true\"]"),
        ("list", "[1]", "[1]"),
        ("set(number)", "[3, \"1\", 3]", "[1 3]"),
        ("map(list(number))", "{ a = [\"1\"] }", "{a=[1]}"),
        ("tuple([string, number])", "[1, \"2\"]", "[\"1\" 2]"),
        (
            "object({ a = number, b = optional(string), c = optional(list(number), [7]) })",
            "{ a = \"1\", z = 2 }",
            "{a=1 b=null c=[7]}",
        ),
        (
            "list(object({ p = optional(number, 1 + 1) }))",
            "[{}, { p = null }]",
            "[{p=2} {p=2}]",
        ),
    ] {
        let found = lines(&[("main.tf", &text(kind, value))]);
        assert_eq!(
            found,
            [format!("aws_security_group.t {{v={expected}}}")],
            "{kind}"
        );
    }
    for (kind, value, expected) in [
        (
            "number",
            "\"x\"",
            "wrong-type] main.tf:3:13 `var.v` must be a number, not a string",
        ),
        (
            "list(number)",
            "[1, [2]]",
            "wrong-type] main.tf:3:17 `var.v[1]` must be a number, not a list",
        ),
        (
            "list(string)",
            "{}",
            "wrong-type] main.tf:3:13 `var.v` must be a list, not a map",
        ),
        (
            "map(string)",
            "\"a\"",
            "wrong-type] main.tf:3:13 `var.v` must be a map, not a string",
        ),
        (
            "object({ a = number })",
            "{}",
            "missing-key] main.tf:3:13 `var.v.a` is missing",
        ),
    ] {
        let found = lines(&[("main.tf", &text(kind, value))]);
        assert_eq!(found[1], format!("error[{expected}"), "{kind}");
        assert_eq!(found.len(), 2, "{found:?}");
    }
}

#[test]
fn a_variable_without_a_value_is_unknown_where_it_is_read() {
    let text = "variable \"v\" {}\nvariable \"n\" {\n  nullable = false\n  default = 1\n}\nresource \"aws_security_group\" \"t\" {\n  v = var.v.x\n  n = var.n\n  o = var.o\n}\n";
    assert_eq!(
        lines(&[("main.tf", text), ("terraform.tfvars", "n = null\n")]),
        ["aws_security_group.t {n=1 o=?var.o v=?var.v.x}"]
    );
}

#[test]
fn each_directory_is_a_module() {
    let file = |name: &str| {
        format!(
            "locals {{\n  n = \"{name}\"\n}}\nresource \"aws_security_group\" \"t\" {{\n  name = local.n\n}}\n"
        )
    };
    assert_eq!(
        lines(&[("a/x.tf", &file("a")), ("b/x.tf", &file("b"))]),
        [
            "aws_security_group.t {name=\"a\"}",
            "aws_security_group.t {name=\"b\"}"
        ]
    );
    assert_eq!(
        lines(&[("a/x.tf", &file("a")), ("a/y.tf", &file("b"))])[1..],
        [
            "error[duplicate-name] a/y.tf:2:3 `local.n` is declared twice",
            "error[duplicate-name] a/y.tf:4:1 `aws_security_group.t` is declared twice",
        ]
    );
}

#[test]
fn what_is_not_the_language_is_located() {
    for (text, expected) in [
        ("resource \"a\" {", "syntax] main.tf:1:"),
        ("\u{feff}locals {\n  a = = 1\n}\n", "syntax] main.tf:2:7"),
        ("locals {\n  a = \"ü\" \"b\"\n}\n", "syntax] main.tf:2:11"),
        (
            "a = 1\n",
            "syntax] main.tf:1:1 `a` stands outside of all blocks",
        ),
        (
            "resource \"x\" {\n}\n",
            "syntax] main.tf:1:1 a `resource` block has not 1 labels",
        ),
        (
            "resorce \"x\" \"y\" {\n}\n",
            "unknown-key] main.tf:1:1 there are no `resorce` blocks",
        ),
        ("locals {\n  a = 1\n  a = 2\n}\n", "syntax] main.tf:3:3"),
    ] {
        let found = lines(&[("main.tf", text)]);
        assert!(
            found[0].starts_with(&format!("error[{expected}")),
            "{text}: {found:?}"
        );
    }
    let json = "{\"resource\": {}}";
    let found = lines(&[("main.tf.json", json)]);
    assert_eq!(
        found,
        ["error[not-carried-over] main.tf.json:1:1 JSON as Terraform's language is not read"]
    );
}

#[test]
fn blocks_that_say_nothing_of_groups_have_no_effect() {
    let text = r#"
terraform {
  required_version = ">= 1.0"
  backend "s3" {}
}
provider "aws" {
  region = nonsense
}
output "o" {
  value = aws_security_group.gone[9].id
}
moved {
  from = aws_security_group.a
  to   = aws_security_group.b
}
import {
  to = aws_security_group.b
  id = "sg-1"
}
check "c" {
  assert {
    condition     = false
    error_message = "no"
  }
}
data "aws_vpc" "v" {
  count = nonsense
}
"#;
    assert_eq!(lines(&[("main.tf", text)]), [""; 0]);
}

#[test]
fn no_damage_to_a_file_is_a_crash() {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/definition/terraform/module/main.tf"
    ));
    let signs = [
        "{", "}", "[", "\"", "${", "%{ if", "~}", ".*", "[*]", "=", "...", "ü", "",
    ];
    let mut evaluated = 0;
    // What begins with a brace is taken for JSON.
    for (number, place) in (1..text.len()).step_by(7).enumerate() {
        let sign = signs[number % signs.len()];
        let damaged = [&text[..place], sign, &text[place + 1..]].concat();
        for text in [&*damaged, &text[..place]] {
            let found = lines(&[("main.tf", text)]);
            evaluated += usize::from(!found.iter().any(|line| line.contains("[syntax]")));
        }
    }
    assert!(evaluated > 20, "{evaluated} were still of the language");
}
