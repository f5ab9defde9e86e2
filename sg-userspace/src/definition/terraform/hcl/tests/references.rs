//! Resources that refer to each other, and how many of them there are.

use super::lines;

#[test]
fn ids_that_are_not_known_yet_are_addresses() {
    let text = r#"
resource "aws_vpc" "main" {
  cidr_block = "10.1.0.0/16"
}
resource "aws_subnet" "a" {
  count      = 2
  vpc_id     = aws_vpc.main.id
  cidr_block = cidrsubnet(aws_vpc.main.cidr_block, 8, count.index)
}
resource "aws_security_group" "web" {
  name   = "web"
  vpc_id = "${aws_vpc.main.id}"
}
resource "aws_security_group" "app" {
  name        = "${aws_security_group.web.name}-app"
  vpc_id      = aws_security_group.web.vpc_id
  owner       = aws_security_group.web.owner_id
  description = aws_security_group.web.tags_all
  ingress {
    security_groups = [aws_security_group.web.id, aws_security_group.elsewhere.id]
    cidr_blocks     = aws_subnet.a[*].cidr_block
    prefix_list_ids = [data.aws_prefix_list.s3.id]
    known           = aws_vpc.main.id != ""
    same            = aws_vpc.main.id == aws_security_group.app_id
  }
}
resource "aws_security_group_rule" "r" {
  security_group_id        = aws_security_group.web.id
  source_security_group_id = aws_security_group.web.arn
  cidr_blocks              = [for s in aws_subnet.a : s.cidr_block]
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_security_group.web {name=\"web\" vpc_id=\"aws_vpc.main.id\"}",
            "aws_security_group.app {description=?aws_security_group.web.tags_all ingress=[{cidr_blocks=[\"10.1.0.0/24\" \"10.1.1.0/24\"] known=true prefix_list_ids=[?data.aws_prefix_list.s3.id] same=?aws_vpc.main.id security_groups=[\"aws_security_group.web\" ?aws_security_group.elsewhere.id]}] name=\"web-app\" owner=\"aws_security_group.web.owner_id\" vpc_id=\"aws_vpc.main.id\"}",
            "aws_security_group_rule.r {cidr_blocks=[\"10.1.0.0/24\" \"10.1.1.0/24\"] security_group_id=\"aws_security_group.web\" source_security_group_id=\"aws_security_group.web.arn\"}",
        ]
    );
}

#[test]
fn instances_have_keys() {
    let text = r#"
variable "tiers" {
  default = { app = 8080, db = 5432 }
}
resource "aws_security_group" "tier" {
  for_each = var.tiers
  name     = each.key
}
resource "aws_vpc_security_group_ingress_rule" "r" {
  for_each                     = aws_security_group.tier
  security_group_id            = each.value.id
  from_port                    = var.tiers[each.key]
  referenced_security_group_id = aws_security_group.tier["db"].id
}
resource "aws_security_group" "n" {
  count = length(var.tiers)
  name  = "n${count.index}"
}
resource "aws_network_interface" "i" {
  for_each        = toset(["x \"y\""])
  security_groups = concat(aws_security_group.n[*].id, values(aws_security_group.tier)[*].id)
}
resource "aws_security_group" "none" {
  count = 0
}
resource "aws_network_interface" "maybe" {
  security_groups = compact([try(aws_security_group.none[0].id, ""), one(aws_security_group.none[*].id)])
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_security_group.tier[\"app\"] {name=\"app\"}",
            "aws_security_group.tier[\"db\"] {name=\"db\"}",
            "aws_vpc_security_group_ingress_rule.r[\"app\"] {from_port=8080 referenced_security_group_id=\"aws_security_group.tier[\\\"db\\\"]\" security_group_id=\"aws_security_group.tier[\\\"app\\\"]\"}",
            "aws_vpc_security_group_ingress_rule.r[\"db\"] {from_port=5432 referenced_security_group_id=\"aws_security_group.tier[\\\"db\\\"]\" security_group_id=\"aws_security_group.tier[\\\"db\\\"]\"}",
            "aws_security_group.n[0] {name=\"n0\"}",
            "aws_security_group.n[1] {name=\"n1\"}",
            "aws_network_interface.i[\"x \\\"y\\\"\"] {security_groups=[\"aws_security_group.n[0]\" \"aws_security_group.n[1]\" \"aws_security_group.tier[\\\"app\\\"]\" \"aws_security_group.tier[\\\"db\\\"]\"]}",
            "aws_network_interface.maybe {security_groups=[]}",
        ]
    );
}

#[test]
fn how_many_there_are_must_be_known() {
    let text = r#"
resource "aws_security_group" "a" {
  for_each = toset(data.aws_subnets.all.ids)
}
resource "aws_security_group" "b" {
  count = var.enabled ? 1 : 0
}
resource "aws_security_group" "c" {
  for_each = toset([aws_vpc.v.id])
}
resource "aws_security_group" "d" {
  for_each = ["a"]
}
resource "aws_security_group" "e" {
  count    = 1.5
}
resource "aws_security_group" "f" {
  count    = 1
  for_each = {}
}
resource "aws_vpc" "v" {}
resource "aws_subnet" "s" {
  for_each = data.aws_zones.all.names
}
resource "aws_network_interface" "i" {
  subnet_id       = aws_subnet.s["a"].id
  security_groups = [for g in aws_security_group.b : g.id]
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_network_interface.i {security_groups=?var.enabled subnet_id=?data.aws_zones.all.names[\"a\"].id}",
            "error[unknown-value] main.tf:3:14 how many of `aws_security_group.a` there are is not known from this file: `data.aws_subnets.all.ids`",
            "error[unknown-value] main.tf:6:11 how many of `aws_security_group.b` there are is not known from this file: `var.enabled`",
            "error[unknown-value] main.tf:9:14 how many of `aws_security_group.c` there are is not known from this file: `aws_vpc.v.id`",
            "error[wrong-type] main.tf:12:14 `for_each` must be a map or a set of strings, not a list",
            "error[wrong-type] main.tf:15:14 `count` must be a whole number from 0, not 1.5",
            "error[evaluation] main.tf:19:14 `count` and `for_each` exclude each other",
        ]
    );
}

#[test]
fn other_resources_that_have_groups_are_told_of() {
    let text = r#"
resource "aws_lb" "a" {
  for_each        = data.x.y
  security_groups = ["sg-1"]
}
resource "aws_lb" "b" {
  security_groups = []
}
resource "aws_eks_cluster" "c" {
  vpc_config {
    security_group_ids = [local.x]
  }
}
resource "aws_vpc" "d" {
  cidr_block = nonsense
}
module "groups" {
  source = "./groups"
}
"#;
    assert_eq!(
        lines(&[("main.tf", text)]),
        [
            "aws_lb.a {security_groups=?aws_lb.a.security_groups}",
            "aws_eks_cluster.c {security_group_ids=?aws_eks_cluster.c.security_group_ids}",
            "warning[not-carried-over] main.tf:17:1 the module `groups` is not read: groups, rules and interfaces in it are not seen",
        ]
    );
}

#[test]
fn values_stand_where_they_are_written() {
    let text = "locals {\n  office = \"10.0.0.1/8\"\n}\nresource \"aws_security_group\" \"t\" {\n  name = local.office\n  x    = concat([local.office], [\"a\"])\n  y    = upper(\"b\")\n  z    = aws_vpc.v.id\n}\n";
    let (resources, _) = super::read(&[("main.tf", text)]);
    let attributes = resources[0].attributes.map().unwrap();
    let line = |at: crate::definition::tree::At| {
        let own = &text[at.start as usize..at.end as usize];
        format!(
            "{own}@{}",
            text[..at.start as usize].matches('\n').count() + 1
        )
    };
    let places: Vec<String> = attributes.iter().map(|(_, node)| line(node.at)).collect();
    assert_eq!(
        places,
        [
            "\"10.0.0.1/8\"@2",
            "concat([local.office], [\"a\"])@6",
            "upper(\"b\")@7",
            "aws_vpc.v.id@8"
        ]
    );
    let elements = attributes[1].1.list().unwrap();
    assert_eq!(line(elements[0].at), "\"10.0.0.1/8\"@2");
    assert_eq!(
        line(resources[0].at),
        "resource \"aws_security_group\" \"t\"@4"
    );
}
