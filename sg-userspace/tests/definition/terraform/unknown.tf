# What the text does not say, where it matters and where it does not.

variable "office" {
  type = string
}

data "aws_vpc" "main" {
  default = true
}

module "network" {
  source = "./network"
}

resource "aws_security_group" "a" {
  name   = "a"
  vpc_id = data.aws_vpc.main.id

  ingress {
    from_port       = 443
    to_port         = 443
    protocol        = "tcp"
    cidr_blocks     = [data.aws_vpc.main.cidr_block, "${var.office}/32"]
    security_groups = [module.network.group_id]
  }

  ingress {
    from_port   = local.missing
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = ["10.0.0.0/8"]
  }

  dynamic "egress" {
    for_each = data.aws_vpc.main.cidr_block_associations
    content {
      from_port   = 0
      to_port     = 0
      protocol    = "-1"
      cidr_blocks = [egress.value.cidr_block]
    }
  }
}

resource "aws_vpc_security_group_ingress_rule" "b" {
  count             = length(data.aws_vpc.main.tags)
  security_group_id = aws_security_group.a.id
  ip_protocol       = "-1"
  cidr_ipv4         = "10.0.0.0/8"
}

resource "aws_vpc_security_group_ingress_rule" "c" {
  count             = 3
  security_group_id = aws_security_group.a.id
  ip_protocol       = "-1"
  cidr_ipv4         = data.aws_vpc.main.cidr_block
}

resource "aws_lb" "d" {
  security_groups = [aws_security_group.a.id]
}
