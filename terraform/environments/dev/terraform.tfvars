aws_region         = "us-west-2"
environment        = "dev"
vpc_cidr           = "10.16.0.0/16"
availability_zones = ["us-west-2a", "us-west-2b"]

enable_nat_gateways    = false
log_retention_days     = 7
reattestation_schedule = "rate(6 hours)"
