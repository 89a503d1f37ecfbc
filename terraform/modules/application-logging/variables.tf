variable "names" {
  description = "Log groups' names, by what writes to them."
  type        = map(string)
  nullable    = false
}

variable "retention_days" {
  description = "Days that events are kept."
  type        = number
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key that events are encrypted with."
  type        = string
  nullable    = false
}
