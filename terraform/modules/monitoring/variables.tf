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
  description = "The account."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key that notifications are encrypted with."
  type        = string
  nullable    = false
}

variable "alarm_emails" {
  description = "Who gets notifications by mail."
  type        = list(string)
  nullable    = false
}

variable "function_names" {
  description = "The functions, by name."
  type        = map(string)
  nullable    = false
}

variable "state_machine_arns" {
  description = "The state machines, by name."
  type        = map(string)
  nullable    = false
}

variable "table_names" {
  description = "The tables, by what they hold."
  type        = map(string)
  nullable    = false
}

variable "log_group_names" {
  description = "Log groups, by what writes to them."
  type        = map(string)
  nullable    = false
}

variable "unhandled_queue_name" {
  description = "The queue of events that could not be handled."
  type        = string
  nullable    = false
}

variable "cluster_name" {
  description = "The cluster that runs Terraform."
  type        = string
  nullable    = false
}

variable "failed_tasks_rule_name" {
  description = "The rule that matches tasks that failed."
  type        = string
  nullable    = false
}

variable "spool_alarm_bytes" {
  description = "Bytes in an instance's log spool that are an alarm."
  type        = number
  nullable    = false
}
