variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "project_name" {
  description = "The project, by whose tag instances are told from others."
  type        = string
  nullable    = false
}

variable "environment" {
  description = "The environment, likewise."
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
  description = "The account."
  type        = string
  nullable    = false
}

variable "descriptions" {
  description = "What each role is for, by role."
  type        = map(string)
  nullable    = false
}

variable "function_arns" {
  description = "The functions, by name."
  type        = map(string)
  nullable    = false
}

variable "state_machine_arns" {
  description = "The state machines, by name."
  type        = map(string)
  nullable    = false
}

variable "log_group_arns" {
  description = "Log groups, by what writes to them."
  type        = map(string)
  nullable    = false
}

variable "enclaves_table_arn" {
  description = "The table of enclaves."
  type        = string
  nullable    = false
}

variable "status_index_name" {
  description = "Its index by status."
  type        = string
  nullable    = false
}

variable "stream_arn" {
  description = "Its stream."
  type        = string
  nullable    = false
}

variable "images_table_arn" {
  description = "The table of published images."
  type        = string
  nullable    = false
}

variable "unhandled_queue_arn" {
  description = "The queue of events that could not be handled."
  type        = string
  nullable    = false
}

variable "topic_arn" {
  description = "The topic of notifications."
  type        = string
  nullable    = false
}

variable "data_key_arn" {
  description = "The key for data at rest."
  type        = string
  nullable    = false
}

variable "results_key_arn" {
  description = "The key that attestation results are signed with."
  type        = string
  nullable    = false
}

variable "state_bucket_arn" {
  description = "The bucket of Terraform's state."
  type        = string
  nullable    = false
}

variable "state_key_arn" {
  description = "The key that state is encrypted with."
  type        = string
  nullable    = false
}

variable "artifacts_bucket_arn" {
  description = "The bucket of images and agents."
  type        = string
  nullable    = false
}

variable "cluster_arn" {
  description = "The cluster that runs Terraform."
  type        = string
  nullable    = false
}

variable "cluster_name" {
  description = "The same."
  type        = string
  nullable    = false
}

variable "task_family" {
  description = "The task definition's family."
  type        = string
  nullable    = false
}

variable "repository_name" {
  description = "The repository of the runner's image."
  type        = string
  nullable    = false
}

variable "subnet_ids" {
  description = "The subnets that enclaves' instances are launched into."
  type        = list(string)
  nullable    = false
}

variable "enclaves_security_group_id" {
  description = "The group that they are launched with."
  type        = string
  nullable    = false
}

variable "image_owners" {
  description = "Who may own the machine images that they are launched from."
  type        = list(string)
  nullable    = false
}

variable "existing_table_key_arn" {
  description = "The key of a table of enclaves that another application owns, if it has one of its own."
  type        = string
  default     = null
}

variable "lock_table_arn" {
  description = "The table of locks, if Terraform locks there."
  type        = string
  default     = null
}
