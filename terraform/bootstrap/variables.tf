variable "aws_region" {
  description = "The region of the bucket."
  type        = string
  nullable    = false
}

variable "environment" {
  description = "The environment's name, as in the control plane's."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}$", var.environment))
    error_message = "environment is ${var.environment}: it must be 1 to 12 of a-z, 0-9 and -, and begin with a letter."
  }
}

variable "project_name" {
  description = "The project's name, as in the control plane's."
  type        = string
  nullable    = false
  default     = "enclaves"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,17}$", var.project_name))
    error_message = "project_name is ${var.project_name}: it must be 1 to 18 of a-z, 0-9 and -, and begin with a letter."
  }
}

variable "create_lock_table" {
  description = "Whether to make a DynamoDB table for locks, for those who do not lock in S3."
  type        = bool
  nullable    = false
  default     = false
}
