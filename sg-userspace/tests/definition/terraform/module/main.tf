terraform {
  required_version = ">= 1.5"
}

provider "aws" {
  region = var.region
}

resource "aws_vpc" "main" {
  cidr_block = var.cidr
}

resource "aws_subnet" "private" {
  count      = 2
  vpc_id     = aws_vpc.main.id
  cidr_block = cidrsubnet(aws_vpc.main.cidr_block, 8, count.index)
}

resource "aws_security_group" "tier" {
  for_each    = var.tiers
  name        = "${local.prefix}-${each.key}"
  description = each.value.description
  vpc_id      = aws_vpc.main.id

  dynamic "ingress" {
    for_each = each.value.ports
    iterator = port
    content {
      description = format("%s %d", each.key, port.value)
      from_port   = port.value
      to_port     = port.value
      protocol    = "tcp"
      cidr_blocks = each.value.open ? ["0.0.0.0/0"] : aws_subnet.private[*].cidr_block
    }
  }

  egress = []
}

# What watches the tiers, its rules resources of their own.
resource "aws_security_group" "monitoring" {
  name   = "${local.prefix}-monitoring"
  vpc_id = aws_vpc.main.id
}

resource "aws_vpc_security_group_egress_rule" "monitoring" {
  for_each = { for pair in setproduct(keys(var.tiers), ["tcp", "udp"]) : join("-", pair) => pair }

  security_group_id            = aws_security_group.monitoring.id
  referenced_security_group_id = aws_security_group.tier[each.value[0]].id
  description                  = "exporters of ${each.key}"
  ip_protocol                  = each.value[1]
  from_port                    = 9100
  to_port                      = 9100 + length(var.tiers)
}

output "ids" {
  value = [for group in aws_security_group.tier : group.id]
}
