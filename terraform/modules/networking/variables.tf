variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "partition" {
  description = "The partition: aws, aws-us-gov or aws-cn."
  type        = string
  nullable    = false
}

variable "region" {
  description = "The region."
  type        = string
  nullable    = false
}

variable "account_id" {
  description = "The account whose principals the endpoints admit."
  type        = string
  nullable    = false
}

variable "vpc_cidr" {
  description = "The network."
  type        = string
  nullable    = false
}

variable "availability_zones" {
  description = "The zones to have subnets in."
  type        = list(string)
  nullable    = false
}

variable "enable_nat_gateways" {
  description = "Whether private subnets reach the internet, through a NAT gateway in each zone."
  type        = bool
  nullable    = false
}

variable "enclave_egress" {
  description = "Where enclaves' instances connect to, apart from AWS's endpoints."
  type = list(object({
    description = string
    cidr        = string
    from_port   = number
    to_port     = number
  }))
  nullable = false
}

variable "enclave_ingress" {
  description = "Who connects to enclaves' instances."
  type = list(object({
    description = string
    cidr        = string
    from_port   = number
    to_port     = number
  }))
  nullable = false
}

variable "endpoint_extra_actions" {
  description = "Calls of workloads that an endpoint lets through as well, by endpoint."
  type        = map(list(string))
  nullable    = false
}

variable "artifacts_bucket_arn" {
  description = "The bucket of images and agents."
  type        = string
  nullable    = false
}

variable "state_bucket_arn" {
  description = "The bucket of Terraform's state."
  type        = string
  nullable    = false
}

variable "workload_bucket_arns" {
  description = "Buckets that workloads use."
  type        = list(string)
  nullable    = false
}

variable "flow_log_group_arn" {
  description = "The log group of the network's flows."
  type        = string
  nullable    = false
}

variable "flow_log_role_arn" {
  description = "The role that writes them."
  type        = string
  nullable    = false
}
