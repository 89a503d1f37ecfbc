# Who reaches whom, and what the endpoints let through.

variables {
  name_prefix            = "p-e"
  partition              = "aws"
  region                 = "us-west-2"
  account_id             = "123456789012"
  vpc_cidr               = "10.0.0.0/16"
  availability_zones     = ["us-west-2a", "us-west-2b"]
  enable_nat_gateways    = false
  endpoint_extra_actions = { kms = ["kms:ReEncryptFrom"] }
  artifacts_bucket_arn   = "arn:aws:s3:::artifacts"
  state_bucket_arn       = "arn:aws:s3:::state"
  workload_bucket_arns   = ["arn:aws:s3:::theirs"]
  flow_log_group_arn     = "arn:aws:logs:us-west-2:123456789012:log-group:flows"
  flow_log_role_arn      = "arn:aws:iam::123456789012:role/flows"
  enclave_ingress        = []

  enclave_egress = [{ description = "HTTPS", cidr = "0.0.0.0/0", from_port = 443, to_port = 443 }]
}

run "network" {
  module {
    source = "./modules/networking"
  }

  assert {
    condition     = length(aws_subnet.private) == 2 && length(aws_subnet.public) == 2
    error_message = "There must be a private and a public subnet in each zone."
  }
  assert {
    condition     = length(distinct(concat([for s in aws_subnet.private : s.cidr_block], [for s in aws_subnet.public : s.cidr_block]))) == 4
    error_message = "Subnets must not share addresses."
  }
  assert {
    condition     = alltrue([for s in concat(values(aws_subnet.private), values(aws_subnet.public)) : s.map_public_ip_on_launch == false])
    error_message = "No subnet may give out public addresses."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.nat) == 0
    error_message = "Without NAT gateways no private subnet may have a route to the internet."
  }
  assert {
    condition     = toset([for route in aws_route_table.public.route : route.cidr_block]) == toset(["0.0.0.0/0"])
    error_message = "Public subnets must have one route out."
  }
  assert {
    condition     = toset(keys(aws_vpc_endpoint.interface)) == toset(["ec2", "ecr.api", "ecr.dkr", "kms", "lambda", "logs", "secretsmanager", "ssm", "ssmmessages", "states", "sts"])
    error_message = "An endpoint is missing, or one too many."
  }
  assert {
    condition     = alltrue([for e in values(aws_vpc_endpoint.interface) : e.private_dns_enabled && e.security_group_ids == toset([aws_security_group.endpoints.id])])
    error_message = "Each interface endpoint must answer to the service's own name, and belong to the endpoints' group."
  }
  assert {
    condition     = alltrue([for e in values(aws_vpc_endpoint.interface) : jsondecode(e.policy).Statement[0].Condition.StringEquals["aws:PrincipalAccount"] == "123456789012"])
    error_message = "Each interface endpoint must admit the account's own principals only."
  }
  assert {
    condition     = alltrue(flatten([for e in values(aws_vpc_endpoint.interface) : [for a in jsondecode(e.policy).Statement[0].Action : !strcontains(a, "*")]]))
    error_message = "No endpoint may let a whole service through."
  }
  assert {
    condition     = contains(jsondecode(aws_vpc_endpoint.interface["kms"].policy).Statement[0].Action, "kms:ReEncryptFrom") && !contains(jsondecode(aws_vpc_endpoint.interface["sts"].policy).Statement[0].Action, "kms:ReEncryptFrom")
    error_message = "An extra action must go to its own endpoint."
  }
  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && aws_vpc_endpoint.dynamodb.vpc_endpoint_type == "Gateway"
    error_message = "S3 and DynamoDB must have gateway endpoints."
  }
  assert {
    condition     = aws_vpc_endpoint.s3.route_table_ids == toset([for t in aws_route_table.private : t.id]) && aws_vpc_endpoint.dynamodb.route_table_ids == toset([for t in aws_route_table.private : t.id])
    error_message = "The gateway endpoints must be in every private route table."
  }
  assert {
    condition     = { for s in jsondecode(aws_vpc_endpoint.s3.policy).Statement : s.Sid => [s.Action, s.Resource] }.ImagesAndAgents == ["s3:GetObject", "arn:aws:s3:::artifacts/*"]
    error_message = "The S3 endpoint must let images and agents be read."
  }
  assert {
    condition     = { for s in jsondecode(aws_vpc_endpoint.s3.policy).Statement : s.Sid => s.Resource }.States == "arn:aws:s3:::state/*"
    error_message = "The S3 endpoint must let states through."
  }
  assert {
    condition     = { for s in jsondecode(aws_vpc_endpoint.s3.policy).Statement : s.Sid => s.Resource }.ImageLayers == ["arn:aws:s3:::prod-us-west-2-starport-layer-bucket/*"]
    error_message = "The S3 endpoint must let ECR's layers through, or no task starts."
  }
  assert {
    condition     = { for s in jsondecode(aws_vpc_endpoint.s3.policy).Statement : s.Sid => s.Resource }.Workloads == ["arn:aws:s3:::theirs", "arn:aws:s3:::theirs/*"]
    error_message = "The S3 endpoint must let the workloads' buckets through."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints["enclaves"].referenced_security_group_id == aws_security_group.enclaves.id && aws_vpc_security_group_ingress_rule.endpoints["runners"].referenced_security_group_id == aws_security_group.runners.id
    error_message = "The endpoints' group must admit enclaves and runners."
  }
  assert {
    condition     = alltrue([for r in values(aws_vpc_security_group_ingress_rule.endpoints) : r.from_port == 443 && r.to_port == 443 && r.ip_protocol == "tcp" && r.cidr_ipv4 == null])
    error_message = "The endpoints' group must admit port 443 only, and groups only."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.enclaves) == 0
    error_message = "By default nobody may connect to enclaves' instances."
  }
  assert {
    condition     = alltrue([for r in values(aws_vpc_security_group_egress_rule.enclaves) : r.from_port == 443 && r.to_port == 443])
    error_message = "By default enclaves' instances must reach port 443 only."
  }
  assert {
    condition     = length([for r in values(aws_vpc_security_group_egress_rule.to_gateways) : r if r.prefix_list_id != null && r.from_port == 443]) == 4
    error_message = "Enclaves and runners must reach S3 and DynamoDB."
  }
  assert {
    condition     = alltrue([for r in concat(values(aws_vpc_security_group_egress_rule.to_endpoints), values(aws_vpc_security_group_egress_rule.to_gateways), values(aws_vpc_security_group_egress_rule.enclaves)) : r.ip_protocol == "tcp"])
    error_message = "No rule may be for all protocols."
  }
  assert {
    condition     = aws_default_security_group.this.vpc_id == aws_vpc.this.id
    error_message = "The default group must be taken over, so that it is empty."
  }
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_flow_log.this.log_destination == "arn:aws:logs:us-west-2:123456789012:log-group:flows"
    error_message = "The network's flows must be logged."
  }
}

run "network_with_nat" {
  module {
    source = "./modules/networking"
  }
  variables {
    enable_nat_gateways = true
    enclave_ingress     = [{ description = "clients", cidr = "10.9.0.0/16", from_port = 8080, to_port = 8081 }]
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 2 && alltrue([for zone, gateway in aws_nat_gateway.this : gateway.subnet_id == aws_subnet.public[zone].id])
    error_message = "Each zone must have a NAT gateway of its own, in its public subnet."
  }
  assert {
    condition     = alltrue([for zone, route in aws_route.nat : route.route_table_id == aws_route_table.private[zone].id && route.nat_gateway_id == aws_nat_gateway.this[zone].id])
    error_message = "Each private subnet must leave through its own zone's gateway."
  }
  assert {
    condition     = [for r in values(aws_vpc_security_group_ingress_rule.enclaves) : "${r.cidr_ipv4} ${r.from_port}-${r.to_port}"] == ["10.9.0.0/16 8080-8081"]
    error_message = "Clients must be admitted where they are asked for, and nowhere else."
  }
}
