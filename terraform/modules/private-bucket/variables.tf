variable "name" {
  description = "The bucket's name."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key that objects are encrypted with."
  type        = string
  nullable    = false
}

variable "noncurrent_version_days" {
  description = "Days that an overwritten or deleted object's versions are kept."
  type        = number
  nullable    = false
}

variable "kept_noncurrent_versions" {
  description = "Old versions of each object that are kept for longer."
  type        = number
  nullable    = false
}
