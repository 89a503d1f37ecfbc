variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "role_arns" {
  description = "The roles, by state machine."
  type        = map(string)
  nullable    = false
}

variable "log_group_arns" {
  description = "The log groups, by state machine."
  type        = map(string)
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key that definitions and executions are encrypted with."
  type        = string
  nullable    = false
}

variable "definition_variables" {
  description = "What the definitions refer to."
  type = object({
    partition                   = string
    cluster_arn                 = string
    task_definition_arn         = string
    container_name              = string
    subnet_ids                  = list(string)
    runner_security_group_id    = string
    validation_function_arn     = string
    gate_function_arn           = string
    error_handler_function_arn  = string
    table_name                  = string
    deployment_timeout_seconds  = number
    destroy_timeout_seconds     = number
    attestation_timeout_seconds = number
    heartbeat_seconds           = number
    retry_max_attempts          = number
    retry_interval_seconds      = number
  })
  nullable = false
}
