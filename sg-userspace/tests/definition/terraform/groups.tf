# Every form in which a configuration writes groups and rules.

variable "vpc_id" {
  type    = string
  default = "vpc-0aaa0000000000001"
}

resource "aws_security_group" "front" {
  name        = "front"
  description = "What the world talks to"
  vpc_id      = var.vpc_id

  # the web, for all
  ingress {
    from_port        = 443
    to_port          = 443
    protocol         = "tcp"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }

  ingress {
    description     = "administration"
    from_port       = 22
    to_port         = 22
    protocol        = "tcp"
    cidr_blocks     = ["192.0.2.0/24", "198.51.100.7/32"]
    prefix_list_ids = [aws_ec2_managed_prefix_list.offices.id]
    security_groups = ["${aws_security_group.bastion.id}"]
    self            = true
  }

  egress {
    from_port        = 0
    to_port          = 0
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }

  tags = {
    Name               = "front"
    "sgctl:on_revoke"  = "reevaluate"
  }
}

# Blocks written as attributes, where all of them have to be there.
resource "aws_security_group" "bastion" {
  name   = "bastion"
  vpc_id = var.vpc_id
  ingress = [
    {
      description      = "from the offices"
      from_port        = 22
      to_port          = 22
      protocol         = "tcp"
      cidr_blocks      = []
      ipv6_cidr_blocks = []
      prefix_list_ids  = [aws_ec2_managed_prefix_list.offices.id]
      security_groups  = []
      self             = false
    },
  ]
  egress = []
}

# A group whose rules are resources of their own.
resource "aws_security_group" "app" {
  name   = "app"
  vpc_id = aws_security_group.front.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "app_from_front" {
  security_group_id            = aws_security_group.app.id
  referenced_security_group_id = aws_security_group.front.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8081
}

// health check
resource "aws_vpc_security_group_ingress_rule" "app_ping" {
  security_group_id = aws_security_group.app.id
  cidr_ipv4         = "10.0.0.0/8"
  ip_protocol       = "icmp"
  from_port         = 8
  to_port           = -1
}

resource "aws_vpc_security_group_egress_rule" "app_v6" {
  security_group_id = aws_security_group.app.id
  cidr_ipv6         = "2001:db8::/32"
  ip_protocol       = "-1"
}

resource "aws_vpc_security_group_egress_rule" "app_offices" {
  security_group_id = aws_security_group.app.id
  prefix_list_id    = aws_ec2_managed_prefix_list.offices.id
  ip_protocol       = "udp"
  from_port         = 53
  to_port           = 53
}

# The same in the older form.
resource "aws_security_group" "db" {
  name        = "db"
  description = "database"
}

resource "aws_security_group_rule" "db_in" {
  type                     = "ingress"
  from_port                = 3306
  to_port                  = 3306
  protocol                 = "tcp"
  security_group_id        = aws_security_group.db.id
  source_security_group_id = aws_security_group.app.id
}

resource "aws_security_group_rule" "db_self" {
  type              = "ingress"
  from_port         = 0
  to_port           = 65535
  protocol          = "tcp"
  security_group_id = aws_security_group.db.id
  self              = true
}

resource "aws_security_group_rule" "db_out" {
  type              = "egress"
  from_port         = 0
  to_port           = 0
  protocol          = "all"
  security_group_id = aws_security_group.db.id
  cidr_blocks       = ["10.0.0.0/8"]
}

resource "aws_default_security_group" "default" {
  vpc_id = var.vpc_id
  ingress {
    protocol  = -1
    self      = true
    from_port = 0
    to_port   = 0
  }
  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_ec2_managed_prefix_list" "offices" {
  name           = "offices"
  address_family = "IPv4"
  max_entries    = 5
  entry {
    cidr        = "203.0.113.16/28"
    description = "north"
  }
}

resource "aws_ec2_managed_prefix_list_entry" "south" {
  prefix_list_id = aws_ec2_managed_prefix_list.offices.id
  cidr           = "198.51.100.0/24"
}

resource "aws_network_interface" "app" {
  subnet_id       = "subnet-0ddd0000000000001"
  private_ips     = ["10.0.2.10"]
  security_groups = [aws_security_group.app.id]
}

resource "aws_network_interface_sg_attachment" "app_db" {
  security_group_id    = aws_security_group.db.id
  network_interface_id = aws_network_interface.app.id
}

resource "aws_instance" "front" {
  ami                    = data.aws_ami.latest.id
  instance_type          = "t3.micro"
  private_ip             = "10.0.1.10"
  vpc_security_group_ids = [aws_security_group.front.id]
  user_data              = templatefile("init.sh", { port = 443 })
}

data "aws_ami" "latest" {
  most_recent = true
}
