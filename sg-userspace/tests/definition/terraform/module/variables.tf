variable "region" {}

variable "environment" {
  type = string
}

variable "cidr" {
  type    = string
  default = "10.0.0.0/16"
}

variable "tiers" {
  type = map(object({
    description = optional(string, "a tier")
    ports       = list(number)
    open        = optional(bool, false)
  }))
}

locals {
  prefix = lower(replace("Shop ${var.environment}", " ", "-"))
}
