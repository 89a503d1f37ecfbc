# Whoever uses a role waits for its policy: services check rights when they are set up.
output "role_arns" {
  description = "The roles, by name."
  value       = { for name, role in aws_iam_role.this : name => role.arn }

  depends_on = [aws_iam_role_policy.this]
}

# Apart from the others, because keys' policies name it before its own policy can name
# the keys.
output "instance_role_arn" {
  description = "The role of enclaves' instances."
  value       = aws_iam_role.this["instance"].arn
}

output "flow_log_role_arn" {
  description = "The role that writes the network's flows."
  value       = aws_iam_role.this["flow-logs"].arn
}

output "instance_profile_name" {
  description = "The instance profile of enclaves' instances."
  value       = aws_iam_instance_profile.this.name
}
