variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "existing_table_name" {
  description = "The table of enclaves, if another application owns it; null makes one."
  type        = string
  default     = null
}

variable "status_index_name" {
  description = "The index by status and time of the last change."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key that tables made here are encrypted with."
  type        = string
  nullable    = false
}
