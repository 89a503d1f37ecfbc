output "bucket_name" {
  description = "The bucket's name."
  value       = module.bucket.name
}

output "kms_key_arn" {
  description = "The key that state is encrypted with."
  value       = aws_kms_key.state.arn
}

output "lock_table_name" {
  description = "The table of locks, or null."
  value       = one(aws_dynamodb_table.locks[*].name)
}
