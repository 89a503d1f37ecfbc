# The runner writes these as terraform.tfvars.json. What a request may ask for is checked
# before, by the validation function; a destroy has to work for requests that would not
# be accepted any more, so that little is checked here.

variable "enclave_id" {
  description = "The enclave's id."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", var.enclave_id))
    error_message = "enclave_id is ${var.enclave_id}: it must be 1 to 128 letters, digits, `-`, `_` and `.`, and begin with a letter or a digit."
  }
}

variable "wallet_address" {
  description = "The wallet that requested the enclave; only for the runner's log."
  type        = string
  default     = ""
}

variable "environment" {
  description = "The environment, as in the control plane."
  type        = string
  nullable    = false
}

variable "project_name" {
  description = "The project, as in the control plane."
  type        = string
  nullable    = false
}

variable "aws_region" {
  description = "The region."
  type        = string
  nullable    = false
}

variable "vpc_id" {
  description = "The network; the subnet determines it."
  type        = string
  nullable    = false
}

variable "subnet_id" {
  description = "The subnet to launch the instance in."
  type        = string
  nullable    = false
}

variable "security_group_id" {
  description = "The shared group of enclaves' instances."
  type        = string
  nullable    = false
}

variable "instance_profile_name" {
  description = "The instance profile of enclaves' instances."
  type        = string
  nullable    = false
}

variable "instance_type" {
  description = "The instance's type."
  type        = string
  nullable    = false
}

variable "cpu_count" {
  description = "CPUs of the enclave."
  type        = number
  nullable    = false
}

variable "memory_mib" {
  description = "Memory of the enclave, in MiB."
  type        = number
  nullable    = false
}

variable "enable_debug" {
  description = "Whether the enclave has a console, and registers of zeros that prove nothing."
  type        = bool
  nullable    = false
  default     = false
}

variable "workload_type" {
  description = "batch, service or daemon, as requested; the image's manifest takes precedence."
  type        = string
  default     = null
}

variable "health_check_path" {
  description = "As requested; the image's manifest takes precedence."
  type        = string
  default     = null
}

variable "health_check_interval" {
  description = "As requested; the image's manifest takes precedence."
  type        = string
  default     = null
}

variable "aws_services" {
  description = "Which AWS services of the image's manifest are open; all of them if the list is empty."
  type        = list(string)
  nullable    = false
  default     = []
}

variable "expose_ports" {
  description = "Ports of the enclave that its instance publishes under the same numbers."
  type        = list(number)
  nullable    = false
  default     = []
}

variable "image" {
  description = "The enclave's image: the requested reference, and the image that it stood for at that time."
  type = object({
    reference = string
    bucket    = string
    key       = string
    sha256    = string
    size      = number
  })
  nullable = false
}

variable "agent" {
  description = "The agent's program."
  type = object({
    bucket = string
    key    = string
    sha256 = string
  })
  nullable = false
}

variable "gate_function_name" {
  description = "The function that attests the enclave."
  type        = string
  nullable    = false
}

variable "runtime_configuration" {
  description = "The runtime configuration, which PCR16 proves."
  type        = string
  nullable    = false
}

variable "log_retention_days" {
  description = "Retention of the enclave's logs in days."
  type        = number
  nullable    = false
}

variable "root_volume_gib" {
  description = "The root volume in GiB, for the image and waiting log lines."
  type        = number
  nullable    = false
  default     = 20
}

variable "additional_tags" {
  description = "Tags for everything, besides Project, Environment, EnclaveId and ManagedBy."
  type        = map(string)
  nullable    = false
  default     = {}
}
