//! Expressions, templates and types.

use super::{lines, values};

#[test]
fn operators_bind_and_answer_as_in_the_language() {
    values(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 % 4 - 1", "2"),
        ("10 / 4", "2.5"),
        ("-(2 - 5)", "3"),
        ("\"2\" + 3", "5"),
        ("1 == 1.0", "true"),
        ("\"1\" == 1", "false"),
        ("null == null", "true"),
        ("local.ports == [80, 443]", "true"),
        ("{ a = 1 } == { a = 2 }", "false"),
        ("2 < 3 && !(2 >= 3) || false", "true"),
        ("true ? \"yes\" : \"no\"", "\"yes\""),
        ("1 > 2 ? 1 : 2 > 1 ? 3 : 4", "3"),
        // The side that does not decide is not looked at.
        ("false && local.ports[9] == 1", "false"),
        ("true ? 1 : local.ports[9]", "1"),
        ("false && var.unknown", "false"),
        ("var.unknown || true", "true"),
        ("var.unknown && true", "?var.unknown"),
        ("var.unknown == 1", "?var.unknown"),
        ("1 + var.unknown", "?var.unknown"),
        ("!var.unknown ? 1 : 2", "?var.unknown"),
    ]);
}

#[test]
fn collections_and_the_way_into_them() {
    values(&[
        ("local.names.a", "\"one\""),
        ("local.names[\"b\"]", "\"two\""),
        ("local.ports[1]", "443"),
        ("local.ports.0", "80"),
        ("local.deep.x.y[*].z", "[1 2]"),
        ("local.deep.x.y.*.z", "[1 2]"),
        ("local.deep.x[\"y\"][0].z", "1"),
        ("local.deep.x.y.*.z[1]", "2"),
        ("null[*]", "[]"),
        ("\"a\"[*]", "[\"a\"]"),
        ("{ (local.names.a) = 1, \"k 2\" : 2 }", "{k 2=2 one=1}"),
        ("[for p in local.ports : p + 1]", "[81 444]"),
        ("[for i, p in local.ports : i]", "[0 1]"),
        (
            "[for k, v in local.names : \"${k}=${v}\"]",
            "[\"a=one\" \"b=two\"]",
        ),
        ("[for p in local.ports : p if p > 100]", "[443]"),
        (
            "{ for k, v in local.names : v => k }",
            "{one=\"a\" two=\"b\"}",
        ),
        ("{ for p in [1, 2, 3] : p % 2 => p... }", "{0=[2] 1=[1 3]}"),
        (
            "[for a in local.nested : [for b in a : upper(b)]]",
            "[[\"A\" \"B\"] [] [\"C\"]]",
        ),
        ("var.unknown[0].name", "?var.unknown[0].name"),
        ("[for x in var.unknown : x]", "?var.unknown"),
        ("[1, var.unknown]", "[1 ?var.unknown]"),
    ]);
}

#[test]
fn text_is_put_together() {
    values(&[
        ("\"a${1 + 1}b\"", "\"a2b\""),
        ("\"${local.ports}\"", "[80 443]"),
        ("\"$${x} %%{y} \\\"\\u00e9\\n\"", "\"${x} %{y} \\\"é\\n\""),
        ("\"%{ if true }yes%{ else }no%{ endif }\"", "\"yes\""),
        ("\"%{ if false }yes%{ endif }!\"", "\"!\""),
        (
            "\"%{ for p in local.ports }${p},%{ endfor }\"",
            "\"80,443,\"",
        ),
        ("\"%{ for i, p in local.ports }${i}%{ endfor }\"", "\"01\""),
        ("\"a ${~ 1 ~} b\"", "\"a1b\""),
        ("<<E\n  a ${local.names.a}\nE\n", "\"  a one\\n\""),
        ("<<-E\n    a\n      b\n    E\n", "\"a\\n  b\\n\""),
        (
            "<<-E\n    %{ for p in local.ports ~}\n    ${p}\n    %{ endfor ~}\n    E\n",
            "\"80\\n443\\n\"",
        ),
        ("\"a-${var.unknown}\"", "?var.unknown"),
        ("\"a-${aws_vpc.v.id}\"", "?aws_vpc.v.id"),
    ]);
}

#[test]
fn what_has_no_value_says_where_and_why() {
    values(&[
        (
            "local.ports[2]",
            "error[evaluation] main.tf:2:10 there is no element 2 in a list of 2",
        ),
        (
            "local.names.zzz",
            "error[unknown-name] main.tf:2:10 there is no `zzz` here",
        ),
        (
            "local.deep.x.yy",
            "error[unknown-name] main.tf:2:10 there is no `yy` here; did you mean `y`?",
        ),
        (
            "toset(local.ports)[0]",
            "error[wrong-type] main.tf:2:10 elements of a set have no index",
        ),
        (
            "1 + \"x\"",
            "error[wrong-type] main.tf:2:14 a side of `+` must be a number, not a string",
        ),
        (
            "\"a${local.ports}\"",
            "error[wrong-type] main.tf:5:11 what stands in a text must be a string, not a list",
        ),
        (
            "web",
            "error[unknown-name] main.tf:2:10 `web` is no name that is known here",
        ),
        (
            "1 / 0",
            "error[evaluation] main.tf:2:10 this has no finite value",
        ),
        (
            "{ for p in [1, 1] : p => p }",
            "error[evaluation] main.tf:2:30 the key `1` comes twice",
        ),
        (
            "concat([1], 2)",
            "error[wrong-type] main.tf:2:22 an argument of `concat` must be a list, not a number",
        ),
    ]);
}

#[test]
fn try_and_can_catch_what_has_no_value() {
    values(&[
        ("try(local.ports[2], local.names.zz, 7)", "7"),
        ("can(local.ports[2])", "false"),
        ("can(local.ports[1])", "true"),
        ("can(var.unknown)", "?var.unknown"),
        ("try(var.unknown, 1)", "?var.unknown"),
    ]);
}

#[test]
fn what_goes_round_in_a_circle_is_an_error() {
    let text = r#"
locals {
  a = local.b
  b = "x${local.a}"
}
resource "aws_security_group" "t" {
  name = local.a
}
resource "aws_security_group" "u" {
  count = length(aws_security_group.u)
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_security_group.t {name=?an expression with an error}",
            "error[cycle] main.tf:4:11 `local.a` refers to itself",
            "error[cycle] main.tf:10:18 how many of `aws_security_group.u` there are depends on itself",
        ]
    );
}

#[test]
fn blocks_become_lists_and_comments_descriptions() {
    let text = r#"
# not a description of a group
resource "aws_security_group" "t" {
  name = "t"

  # the web,
  # for all
  ingress {
    from_port   = 80
    cidr_blocks = ["0.0.0.0/0"]
  }
  ingress { // ssh
    description = null
  }
  ingress {
    description = "own"
  } # not this
  egress = []
  lifecycle {
    create_before_destroy = true
  }
  timeouts { create = "1m" }
  depends_on = [aws_vpc.v]
}
// by hand
resource "aws_security_group_rule" "r" {
  type = "ingress"
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_security_group.t {egress=[] ingress=[{cidr_blocks=[\"0.0.0.0/0\"] description=\"the web, for all\" from_port=80} {description=\"ssh\"} {description=\"own\"}] name=\"t\"}",
            "aws_security_group_rule.r {description=\"by hand\" type=\"ingress\"}",
        ]
    );
}

#[test]
fn dynamic_blocks_are_as_many_as_their_collection_has() {
    let text = r#"
locals {
  rules = { web = { port = 80, from = ["10.0.0.0/8"] }, ssh = { port = 22, from = [] } }
}
resource "aws_security_group" "t" {
  dynamic "ingress" {
    for_each = local.rules
    content {
      description = ingress.key
      from_port   = ingress.value.port
      cidr_blocks = ingress.value.from
    }
  }
  dynamic "egress" {
    for_each = toset(["b", "a"])
    iterator = it
    # each
    content {
      to_port = "${it.key}${it.value}"
    }
  }
}
resource "aws_ec2_managed_prefix_list" "l" {
  dynamic "entry" {
    for_each = [["a", "b"], ["c"]]
    iterator = outer
    content {
      cidr = outer.key
      dynamic "inner" {
        for_each = outer.value
        content {
          x = "${outer.key}${inner.key}${inner.value}"
        }
      }
    }
  }
}
resource "aws_security_group" "u" {
  dynamic "ingress" {
    for_each = data.aws_subnets.all.ids
    content {}
  }
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_security_group.t {egress=[{description=\"each\" to_port=\"aa\"} {description=\"each\" to_port=\"bb\"}] ingress=[{cidr_blocks=[] description=\"ssh\" from_port=22} {cidr_blocks=[\"10.0.0.0/8\"] description=\"web\" from_port=80}]}",
            "aws_ec2_managed_prefix_list.l {entry=[{cidr=0 inner=[{x=\"00a\"} {x=\"01b\"}]} {cidr=1 inner=[{x=\"10c\"}]}]}",
            "aws_security_group.u {ingress=?data.aws_subnets.all.ids}",
        ]
    );
}

#[test]
fn a_dynamic_block_over_nothing_is_no_block() {
    let text = r#"
variable "none" {
  default = []
}
resource "aws_security_group" "t" {
  name = "t"
  dynamic "egress" {
    for_each = var.none
    content {}
  }
}
resource "aws_security_group" "u" {
  egress = []
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_security_group.t {name=\"t\"}",
            "aws_security_group.u {egress=[]}",
        ]
    );
}
