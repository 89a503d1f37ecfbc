output "bucket_name" {
  description = "The bucket of Terraform's state."
  value       = module.state_backend.bucket_name
}

output "lock_table_name" {
  description = "The table of locks, or null."
  value       = module.state_backend.lock_table_name
}
