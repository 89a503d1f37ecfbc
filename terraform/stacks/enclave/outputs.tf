output "instance_id" {
  description = "The instance."
  value       = aws_instance.this.id
}

output "private_ip" {
  description = "Its address."
  value       = aws_instance.this.private_ip
}

output "log_group_name" {
  description = "The enclave's log group."
  value       = aws_cloudwatch_log_group.this.name
}
