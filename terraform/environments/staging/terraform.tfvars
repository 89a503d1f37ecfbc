aws_region         = "us-west-2"
environment        = "staging"
vpc_cidr           = "10.32.0.0/16"
availability_zones = ["us-west-2a", "us-west-2b"]

enable_nat_gateways    = false
log_retention_days     = 30
reattestation_schedule = "rate(1 hour)"
