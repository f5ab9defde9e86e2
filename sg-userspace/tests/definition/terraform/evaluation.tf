# What Terraform would refuse as well.

locals {
  ports = [80, 443]
  a     = local.b
  b     = local.a
}

resource "aws_security_group" "a" {
  name   = "a"
  egress = []

  ingress {
    from_port   = local.ports[2]
    to_port     = local.prots
    protocol    = "tcp"
    cidr_blocks = concat("10.0.0.0/8", [])
  }

  ingress {
    from_port   = local.a
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = [cidrsubnet("10.0.0.0/8", 25, 0), cidrhost("10.0.0.0", 1)]
  }
}

resource "aws_security_group" "b" {
  for_each = ["x"]
  name     = each.key
  egress   = []
}
