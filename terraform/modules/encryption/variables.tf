variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "partition" {
  description = "The partition: aws, aws-us-gov or aws-cn."
  type        = string
  nullable    = false
}

variable "region" {
  description = "The region."
  type        = string
  nullable    = false
}

variable "account_id" {
  description = "The account that owns the keys."
  type        = string
  nullable    = false
}

variable "instance_role_arn" {
  description = "The role of enclaves' instances, under which enclaves call KMS."
  type        = string
  nullable    = false
}

variable "workload_keys" {
  description = "Keys that only attested enclaves use, by name: the accepted values of PCR0 (which KMS also calls ImageSha384), and of PCR8, the signing certificate, if any; and who encrypts, by ARN: without any, whom the account's IAM policies allow it."
  type = map(object({
    pcr0       = list(string)
    pcr8       = optional(list(string), [])
    encrypters = optional(list(string), [])
  }))
  nullable = false
  default  = {}
}
