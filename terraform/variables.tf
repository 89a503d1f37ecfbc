# What the environments set. docs/terraform.md has them in a table.

variable "aws_region" {
  description = "The region of all resources."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.aws_region))
    error_message = "aws_region is ${var.aws_region}: it must be a region's name, as in us-west-2."
  }
}

variable "environment" {
  description = "The environment's name."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}$", var.environment)) && !endswith(var.environment, "-")
    error_message = "environment is ${var.environment}: it must be 1 to 12 of a-z, 0-9 and -, and begin with a letter, because names are built from it."
  }
}

variable "project_name" {
  description = "The project's name. All names begin with PROJECT-ENVIRONMENT."
  type        = string
  nullable    = false
  default     = "enclaves"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,17}$", var.project_name)) && !endswith(var.project_name, "-")
    error_message = "project_name is ${var.project_name}: it must be 1 to 18 of a-z, 0-9 and -, and begin with a letter, because names of buckets and roles are built from it."
  }
}

variable "existing_dynamodb_table_name" {
  description = "The table of enclaves, if another application owns it; null creates one."
  type        = string
  default     = null
}

variable "existing_dynamodb_kms_key_arn" {
  description = "The key that encrypts the existing table, if it has a customer-managed one."
  type        = string
  default     = null

  validation {
    condition     = var.existing_dynamodb_kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.existing_dynamodb_kms_key_arn))
    error_message = "existing_dynamodb_kms_key_arn must be a key's ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or an id."
  }
}

variable "status_index_name" {
  description = "The table's index with hash key `status` and range key `updated_at`."
  type        = string
  nullable    = false
  default     = "status-index"
}

variable "vpc_cidr" {
  description = "The network to create for runners and enclaves."
  type        = string
  nullable    = false
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && can(regex("/(1[6-9]|2[0-2])$", var.vpc_cidr))
    error_message = "vpc_cidr is ${var.vpc_cidr}: it must be an IPv4 network of /16 to /22, as in 10.0.0.0/16."
  }
}

variable "availability_zones" {
  description = "The zones of the subnets. Enclaves are launched in the first one."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.availability_zones) >= 2 && length(var.availability_zones) <= 8
    error_message = "availability_zones has ${length(var.availability_zones)} zones: 2 to 8 are needed, so that one zone's failure does not end the control plane."
  }

  validation {
    condition     = length(distinct(var.availability_zones)) == length(var.availability_zones) && alltrue([for zone in var.availability_zones : startswith(zone, var.aws_region)])
    error_message = "availability_zones must be different zones of ${var.aws_region}."
  }
}

variable "enable_nat_gateways" {
  description = "Whether private subnets reach the internet, through a NAT gateway in each zone. AWS's services do not need it."
  type        = bool
  nullable    = false
  default     = false
}

variable "enclave_egress" {
  description = "TCP destinations of enclaves' instances, apart from AWS's endpoints."
  type = list(object({
    description = string
    cidr        = string
    from_port   = number
    to_port     = number
  }))
  nullable = false
  default = [{
    description = "HTTPS"
    cidr        = "0.0.0.0/0"
    from_port   = 443
    to_port     = 443
  }]

  validation {
    condition     = alltrue([for rule in var.enclave_egress : can(cidrhost(rule.cidr, 0)) && rule.from_port >= 1 && rule.from_port <= rule.to_port && rule.to_port <= 65535])
    error_message = "Each rule of enclave_egress needs an IPv4 network, and ports from 1 to 65535, the lower one first."
  }

  validation {
    condition     = alltrue([for rule in var.enclave_egress : !endswith(rule.cidr, "/0") || rule.from_port == rule.to_port])
    error_message = "A rule of enclave_egress for the whole internet must name one port, not a range: list the ports that are needed, or narrow the network."
  }
}

variable "enclave_ingress" {
  description = "Who may connect to enclaves' instances by TCP: the ports that enclaves publish."
  type = list(object({
    description = string
    cidr        = string
    from_port   = number
    to_port     = number
  }))
  nullable = false
  default  = []

  validation {
    condition     = alltrue([for rule in var.enclave_ingress : can(cidrhost(rule.cidr, 0)) && rule.from_port >= 1 && rule.from_port <= rule.to_port && rule.to_port <= 65535])
    error_message = "Each rule of enclave_ingress needs an IPv4 network, and ports from 1 to 65535, the lower one first."
  }

  validation {
    condition     = alltrue([for rule in var.enclave_ingress : rule.to_port < 22 || rule.from_port > 22])
    error_message = "enclave_ingress admits port 22: there is no SSH on these instances. Use Session Manager: aws ssm start-session --target INSTANCE."
  }
}

variable "endpoint_extra_actions" {
  description = "Further calls of workloads that an endpoint permits, by endpoint, as in { secretsmanager = [\"secretsmanager:PutSecretValue\"] }."
  type        = map(list(string))
  nullable    = false
  default     = {}

  validation {
    condition     = alltrue([for action in flatten(values(var.endpoint_extra_actions)) : can(regex("^[a-z0-9-]+:[A-Za-z0-9]+$", action))])
    error_message = "endpoint_extra_actions must name single actions, as in kms:ReEncryptFrom, without wildcards."
  }
}

variable "workload_bucket_arns" {
  description = "Buckets of workloads that the S3 endpoint permits."
  type        = list(string)
  nullable    = false
  default     = []

  validation {
    condition     = alltrue([for arn in var.workload_bucket_arns : can(regex("^arn:[a-z-]+:s3:::[a-z0-9.-]+$", arn))])
    error_message = "workload_bucket_arns must be ARNs of buckets, as in arn:aws:s3:::example."
  }
}

variable "workload_keys" {
  description = "KMS keys that only attested enclaves use, by name: the accepted values of PCR0 (KMS also calls it ImageSha384), and of PCR8, the signing certificate, if any; and who encrypts, by ARN: without any, whom the account's IAM policies allow it."
  type = map(object({
    pcr0       = list(string)
    pcr8       = optional(list(string), [])
    encrypters = optional(list(string), [])
  }))
  nullable = false
  default  = {}

  validation {
    condition     = alltrue([for key in values(var.workload_keys) : length(key.pcr0) > 0 && alltrue([for pcr in concat(key.pcr0, key.pcr8) : can(regex("^[0-9a-f]{96}$", pcr))])])
    error_message = "Each of workload_keys needs at least one PCR0; a PCR is 96 hexadecimal digits in lower case, as in measurements.json."
  }

  validation {
    condition     = alltrue([for key in values(var.workload_keys) : alltrue([for pcr in concat(key.pcr0, key.pcr8) : !can(regex("^0+$", pcr))])])
    error_message = "A PCR of workload_keys is zero: that is the value of every enclave in debug mode, so that anybody could use the key."
  }

  validation {
    condition     = alltrue([for key in values(var.workload_keys) : alltrue([for arn in key.encrypters : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(root|(user|role)/[^*?\\s]+)$", arn))])])
    error_message = "The encrypters of workload_keys must be ARNs of accounts, users or roles, as in arn:aws:iam::123456789012:role/example."
  }
}

variable "terraform_runner_image_version" {
  description = "The runner's image: its digest (sha256:…), or a tag other than latest."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(sha256:[0-9a-f]{64}|[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$", var.terraform_runner_image_version)) && var.terraform_runner_image_version != "latest"
    error_message = "terraform_runner_image_version must be a digest (sha256:…) or a tag, and not latest: what deploys enclaves must not change by itself."
  }
}

variable "terraform_runner_cpu" {
  description = "CPU units of a task; 1024 are one CPU."
  type        = number
  nullable    = false
  default     = 1024

  validation {
    condition     = contains([512, 1024, 2048, 4096], var.terraform_runner_cpu)
    error_message = "terraform_runner_cpu is ${var.terraform_runner_cpu}: Fargate has 512, 1024, 2048 and 4096 (256 are too few for Terraform)."
  }
}

variable "terraform_runner_memory" {
  description = "Memory of a task, in MiB."
  type        = number
  nullable    = false
  default     = 2048

  validation {
    condition     = var.terraform_runner_memory % 1024 == 0 && var.terraform_runner_memory >= 2 * var.terraform_runner_cpu && var.terraform_runner_memory <= min(30720, 8 * var.terraform_runner_cpu) || (var.terraform_runner_cpu == 512 && contains([1024, 2048, 3072, 4096], var.terraform_runner_memory))
    error_message = "terraform_runner_memory is ${var.terraform_runner_memory}: with ${var.terraform_runner_cpu} CPU units Fargate takes multiples of 1024, from twice to eight times the units."
  }
}

variable "agent_sha256" {
  description = "The digest of parent-agent, which is stored as agents/DIGEST in the artifacts bucket."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.agent_sha256))
    error_message = "agent_sha256 must be 64 hexadecimal digits in lower case: sha256sum parent-agent."
  }
}

variable "machine_image_owners" {
  description = "Permitted owners of the machine images of instances: `amazon`, or account ids."
  type        = list(string)
  nullable    = false
  default     = ["amazon"]

  validation {
    condition     = length(var.machine_image_owners) > 0 && alltrue([for owner in var.machine_image_owners : can(regex("^(amazon|[0-9]{12})$", owner))])
    error_message = "machine_image_owners must be `amazon` or account ids of 12 digits, at least one."
  }
}

variable "functions_directory" {
  description = "The folder of the functions' archives: trigger.zip and the others of a release."
  type        = string
  nullable    = false
  default     = "../target/functions"

  validation {
    condition     = alltrue([for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"] : fileexists("${var.functions_directory}/${name}.zip")])
    error_message = "functions_directory is ${var.functions_directory}, which lacks some of trigger.zip, validation.zip, attestation-gate.zip, error-handler.zip and status-monitor.zip: build them with `cargo xtask functions`, or unpack a release there."
  }
}

variable "functions_architecture" {
  description = "The architecture that the functions are compiled for."
  type        = string
  nullable    = false
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.functions_architecture)
    error_message = "functions_architecture is ${var.functions_architecture}: Lambda has x86_64 and arm64."
  }
}

variable "reserved_concurrency" {
  description = "Reserved concurrency of each function, taken from the account's limit; -1 reserves nothing, which an account whose limit is low demands of all."
  type = object({
    trigger          = optional(number, 20)
    validation       = optional(number, 50)
    attestation_gate = optional(number, 50)
    error_handler    = optional(number, 20)
    status_monitor   = optional(number, 1)
  })
  nullable = false
  default  = {}

  validation {
    condition     = contains([-1, 1], var.reserved_concurrency.status_monitor)
    error_message = "reserved_concurrency.status_monitor is ${var.reserved_concurrency.status_monitor}: it must be 1, so that no two rounds meet, or -1 in an account that has nothing to reserve."
  }

  validation {
    condition     = alltrue([for number in values(var.reserved_concurrency) : number == -1 || number > 0])
    error_message = "reserved_concurrency must be -1 or more than 0: with 0 a function never runs."
  }
}

variable "deployment_timeout_seconds" {
  description = "How long Terraform may take to deploy an enclave."
  type        = number
  nullable    = false
  default     = 1800

  validation {
    condition     = var.deployment_timeout_seconds >= 300 && var.deployment_timeout_seconds <= 7200
    error_message = "deployment_timeout_seconds is ${var.deployment_timeout_seconds}: it must be 300 to 7200."
  }
}

variable "destroy_timeout_seconds" {
  description = "How long Terraform may take to destroy an enclave."
  type        = number
  nullable    = false
  default     = 1200

  validation {
    condition     = var.destroy_timeout_seconds >= 300 && var.destroy_timeout_seconds <= 7200
    error_message = "destroy_timeout_seconds is ${var.destroy_timeout_seconds}: it must be 300 to 7200."
  }
}

variable "attestation_timeout_seconds" {
  description = "How long an enclave may take to prove itself, from its instance's launch on."
  type        = number
  nullable    = false
  default     = 600

  validation {
    condition     = var.attestation_timeout_seconds >= 60 && var.attestation_timeout_seconds <= 3600
    error_message = "attestation_timeout_seconds is ${var.attestation_timeout_seconds}: it must be 60 to 3600."
  }
}

variable "reattestation_schedule" {
  description = "When deployed enclaves attest again: an EventBridge schedule expression."
  type        = string
  nullable    = false
  default     = "rate(1 hour)"

  validation {
    condition     = can(regex("^(rate\\([0-9]+ (minutes?|hours?|days?)\\)|cron\\(.+\\))$", var.reattestation_schedule))
    error_message = "reattestation_schedule is ${var.reattestation_schedule}: it must be rate(…) or cron(…)."
  }
}

variable "alarm_emails" {
  description = "Recipients of notifications by mail. Each address has to confirm."
  type        = list(string)
  nullable    = false
  default     = []

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "alarm_emails must be mail addresses."
  }
}

variable "spool_alarm_bytes" {
  description = "Bytes of log lines waiting on an instance that raise an alarm."
  type        = number
  nullable    = false
  default     = 268435456

  validation {
    condition     = var.spool_alarm_bytes > 0
    error_message = "spool_alarm_bytes must be more than 0."
  }
}

variable "log_retention_days" {
  description = "Retention of logs in days, the control plane's and the enclaves'."
  type        = number
  nullable    = false
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is ${var.log_retention_days}: CloudWatch has 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731 and some numbers of years."
  }
}

variable "log_level" {
  description = "The functions' log level: error, warn, info, debug or trace."
  type        = string
  nullable    = false
  default     = "info"

  validation {
    condition     = contains(["error", "warn", "info", "debug", "trace"], lower(var.log_level))
    error_message = "log_level is ${var.log_level}: it must be error, warn, info, debug or trace."
  }
}

variable "state_bucket_name" {
  description = "The bucket of Terraform's state, if its name is not the default of `bootstrap`."
  type        = string
  default     = null
}

variable "state_lock_table_name" {
  description = "The DynamoDB table of locks, if states are not locked in S3."
  type        = string
  default     = null
}

variable "additional_tags" {
  description = "Tags of all resources, in addition to Project, Environment and ManagedBy."
  type        = map(string)
  nullable    = false
  default     = {}

  validation {
    condition     = length(setintersection(keys(var.additional_tags), ["Project", "Environment", "ManagedBy", "EnclaveId", "Name"])) == 0
    error_message = "additional_tags sets Project, Environment, ManagedBy, EnclaveId or Name: roles' policies rely on them, so they are not free."
  }
}
