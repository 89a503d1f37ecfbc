variable "bucket_name" {
  description = "The bucket's name."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key that objects are encrypted with."
  type        = string
  nullable    = false
}
