output "data_key_arn" {
  description = "The key for data at rest."
  value       = aws_kms_key.data.arn
}

output "results_key_arn" {
  description = "The key that attestation results are signed with."
  value       = aws_kms_key.results.arn
}

output "workload_key_arns" {
  description = "The workloads' keys, by name."
  value       = { for name, key in aws_kms_key.workload : name => key.arn }
}
