# One group for all enclaves' instances, one for runners, and one for the endpoints,
# which admits both. Nothing has to be added by hand for a new enclave.

resource "aws_security_group" "enclaves" {
  # checkov:skip=CKV2_AWS_5: the stack of each enclave attaches it
  name        = "${var.name_prefix}-enclaves"
  description = "Instances that hold enclaves"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name_prefix}-enclaves" }
}

resource "aws_security_group" "runners" {
  # checkov:skip=CKV2_AWS_5: the state machines attach it to each task
  name        = "${var.name_prefix}-runners"
  description = "Tasks that run Terraform"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name_prefix}-runners" }
}

resource "aws_security_group" "endpoints" {
  name        = "${var.name_prefix}-endpoints"
  description = "Endpoints of AWS services"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name_prefix}-endpoints" }
}

locals {
  callers = {
    enclaves = aws_security_group.enclaves.id
    runners  = aws_security_group.runners.id
  }
  gateways = {
    s3       = aws_vpc_endpoint.s3.prefix_list_id
    dynamodb = aws_vpc_endpoint.dynamodb.prefix_list_id
  }
  gateway_rules = {
    for pair in setproduct(keys(local.callers), keys(local.gateways)) :
    join("-", pair) => { group = local.callers[pair[0]], prefix_list = local.gateways[pair[1]], service = pair[1] }
  }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = local.callers

  security_group_id            = aws_security_group.endpoints.id
  referenced_security_group_id = each.value
  description                  = "HTTPS from ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "to_endpoints" {
  for_each = local.callers

  security_group_id            = each.value
  referenced_security_group_id = aws_security_group.endpoints.id
  description                  = "HTTPS to the endpoints"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "to_gateways" {
  for_each = local.gateway_rules

  security_group_id = each.value.group
  prefix_list_id    = each.value.prefix_list
  description       = "HTTPS to ${each.value.service}"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "enclaves" {
  for_each = { for rule in var.enclave_egress : "${rule.cidr}-${rule.from_port}-${rule.to_port}" => rule }

  security_group_id = aws_security_group.enclaves.id
  cidr_ipv4         = each.value.cidr
  description       = each.value.description
  ip_protocol       = "tcp"
  from_port         = each.value.from_port
  to_port           = each.value.to_port
}

resource "aws_vpc_security_group_ingress_rule" "enclaves" {
  for_each = { for rule in var.enclave_ingress : "${rule.cidr}-${rule.from_port}-${rule.to_port}" => rule }

  security_group_id = aws_security_group.enclaves.id
  cidr_ipv4         = each.value.cidr
  description       = each.value.description
  ip_protocol       = "tcp"
  from_port         = each.value.from_port
  to_port           = each.value.to_port
}
