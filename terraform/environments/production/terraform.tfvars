aws_region         = "us-west-2"
environment        = "production"
vpc_cidr           = "10.48.0.0/16"
availability_zones = ["us-west-2a", "us-west-2b", "us-west-2c"]

enable_nat_gateways    = true
log_retention_days     = 365
reattestation_schedule = "rate(1 hour)"
