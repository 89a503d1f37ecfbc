output "enclaves_table_name" {
  description = "The table that clients write to."
  value       = module.dynamodb.enclaves_table_name
}

output "images_table_name" {
  description = "The table of published images."
  value       = module.dynamodb.images_table_name
}

output "state_machine_arns" {
  description = "The workflows."
  value       = module.step_functions.arns
}

output "function_names" {
  description = "The functions."
  value       = module.lambda.function_names
}

output "artifacts_bucket_name" {
  description = "Where images and agents are."
  value       = module.artifacts.bucket_name
}

output "runner_repository_url" {
  description = "Where the runner's image is pushed."
  value       = module.ecs.repository_url
}

output "runner_task_definition_arn" {
  description = "The task that runs Terraform."
  value       = module.ecs.task_definition_arn
}

output "vpc_id" {
  description = "The network."
  value       = module.networking.vpc_id
}

output "private_subnet_ids" {
  description = "The subnets of runners and enclaves."
  value       = module.networking.private_subnet_ids
}

output "enclaves_security_group_id" {
  description = "The shared group of enclaves' instances."
  value       = module.networking.enclaves_security_group_id
}

output "attestation_results_key_arn" {
  description = "The key that attestation results are signed with."
  value       = module.encryption.results_key_arn
}

output "workload_key_arns" {
  description = "The keys that only attested enclaves use."
  value       = module.encryption.workload_key_arns
}

output "alarm_topic_arn" {
  description = "The topic of notifications."
  value       = module.monitoring.topic_arn
}

output "dashboard_name" {
  description = "The dashboard."
  value       = module.monitoring.dashboard_name
}

output "control_plane_parameter" {
  description = "Where tools find these names."
  value       = aws_ssm_parameter.control_plane.name
}
