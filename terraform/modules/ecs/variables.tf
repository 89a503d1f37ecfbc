variable "name_prefix" {
  description = "What names begin with: project and environment."
  type        = string
  nullable    = false
}

variable "region" {
  description = "The region."
  type        = string
  nullable    = false
}

variable "image_version" {
  description = "The runner's image: a tag, or a digest that begins with sha256:."
  type        = string
  nullable    = false
}

variable "container_name" {
  description = "The container's name, by which the state machines add to its environment."
  type        = string
  nullable    = false
}

variable "cpu" {
  description = "CPU units of the task; 1024 are one CPU."
  type        = number
  nullable    = false
}

variable "memory" {
  description = "Memory of the task, in MiB."
  type        = number
  nullable    = false
}

variable "execution_role_arn" {
  description = "The role that starts the task."
  type        = string
  nullable    = false
}

variable "task_role_arn" {
  description = "The role that Terraform runs under."
  type        = string
  nullable    = false
}

variable "environment_variables" {
  description = "The container's environment that is the same for all enclaves."
  type        = map(string)
  nullable    = false
}

variable "log_group_name" {
  description = "The runner's log group."
  type        = string
  nullable    = false
}

variable "failed_tasks_log_group_arn" {
  description = "The log group of tasks that failed."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "The key that images are encrypted with."
  type        = string
  nullable    = false
}
