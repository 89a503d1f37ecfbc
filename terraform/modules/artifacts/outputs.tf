output "bucket_name" {
  description = "The bucket's name."
  value       = module.bucket.name
}

output "bucket_arn" {
  description = "The bucket's ARN."
  value       = module.bucket.arn
}
