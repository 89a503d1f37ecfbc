variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "bucket_name" {
  description = "The bucket's name."
  type        = string
  nullable    = false
}

variable "partition" {
  description = "The partition: aws, aws-us-gov or aws-cn."
  type        = string
  nullable    = false
}

variable "account_id" {
  description = "The account that owns the key."
  type        = string
  nullable    = false
}

variable "create_lock_table" {
  description = "Whether to make a DynamoDB table for locks as well."
  type        = bool
  nullable    = false
  default     = false
}
