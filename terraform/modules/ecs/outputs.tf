output "cluster_arn" {
  description = "The cluster."
  value       = aws_ecs_cluster.this.arn
}

output "cluster_name" {
  description = "The cluster."
  value       = aws_ecs_cluster.this.name
}

output "task_definition_arn" {
  description = "The task definition, with its revision."
  value       = aws_ecs_task_definition.runner.arn
}

output "repository_url" {
  description = "Where the runner's image is pushed."
  value       = aws_ecr_repository.runner.repository_url
}

output "failed_tasks_rule_arn" {
  description = "The rule that matches tasks that failed."
  value       = aws_cloudwatch_event_rule.failed_tasks.arn
}

output "failed_tasks_rule_name" {
  description = "The same."
  value       = aws_cloudwatch_event_rule.failed_tasks.name
}
