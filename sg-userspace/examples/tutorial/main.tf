# The group of a small web server, as people write it for AWS.

variable "anyone" {
  description = "Whom the server is for"
  default     = ["0.0.0.0/0"]
}

resource "aws_security_group" "web" {
  name        = "web"
  description = "HTTP and SSH in, everything out"

  ingress {
    description = "HTTP"
    from_port   = 80
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = var.anyone
  }

  ingress {
    description = "SSH"
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = var.anyone
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
