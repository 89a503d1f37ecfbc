output "names" {
  description = "Log groups' names, by what writes to them."
  value       = { for key, group in aws_cloudwatch_log_group.this : key => group.name }
}

output "arns" {
  description = "Log groups' ARNs, by what writes to them."
  value       = { for key, group in aws_cloudwatch_log_group.this : key => group.arn }
}
