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
  description = "Who asked for the enclave; only for the runner's log."
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
  description = "The network; the subnet says which."
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
  description = "batch, service or daemon; what the image says counts."
  type        = string
  default     = null
}

variable "health_check_path" {
  description = "As requested; what the image says counts."
  type        = string
  default     = null
}

variable "health_check_interval" {
  description = "As requested; what the image says counts."
  type        = string
  default     = null
}

variable "aws_services" {
  description = "Of the AWS services in the image's manifest those that are open; all of them if the list is empty."
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
  description = "The enclave's image: the reference that was asked for, and what it stood for when it was."
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
  description = "What the enclave is told at its start, and PCR16 proves."
  type        = string
  nullable    = false
}

variable "log_retention_days" {
  description = "Days that the enclave's logs are kept."
  type        = number
  nullable    = false
}

variable "root_volume_gib" {
  description = "The root volume, in GiB: the image, and log lines that wait."
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
