resource "aws_security_group" "a" {
  name = "a"
  ingress {
    from_port = 80,
  }
}
