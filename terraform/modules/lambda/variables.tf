variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "functions_directory" {
  description = "Where the functions' archives are: NAME.zip each."
  type        = string
  nullable    = false
}

variable "architecture" {
  description = "What the functions are compiled for: x86_64 or arm64."
  type        = string
  nullable    = false
}

variable "descriptions" {
  description = "What each function does, by function."
  type        = map(string)
  nullable    = false
}

variable "role_arns" {
  description = "The roles, by function."
  type        = map(string)
  nullable    = false
}

variable "log_group_names" {
  description = "The log groups, by function."
  type        = map(string)
  nullable    = false
}

variable "environment_variables" {
  description = "The functions' environment."
  type        = map(string)
  nullable    = false
}

variable "stream_arn" {
  description = "The stream of the table of enclaves."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key for data at rest."
  type        = string
  nullable    = false
}

variable "reattestation_schedule" {
  description = "When deployed enclaves attest again: a schedule expression of EventBridge."
  type        = string
  nullable    = false
}

variable "reserved_concurrency" {
  description = "How many of each function run at once, at most and at least."
  type = object({
    trigger          = number
    validation       = number
    attestation_gate = number
    error_handler    = number
    status_monitor   = number
  })
  nullable = false
}
