locals {
  existing = one(data.aws_dynamodb_table.enclaves)
  created  = one(aws_dynamodb_table.enclaves)
}

output "enclaves_table_name" {
  description = "The table of enclaves."
  value       = local.existing != null ? local.existing.name : local.created.name
}

output "enclaves_table_arn" {
  description = "The table of enclaves."
  value       = local.existing != null ? local.existing.arn : local.created.arn
}

output "enclaves_stream_arn" {
  description = "Its stream."
  value       = local.existing != null ? local.existing.stream_arn : local.created.stream_arn
}

output "images_table_name" {
  description = "The table of published images."
  value       = aws_dynamodb_table.images.name
}

output "images_table_arn" {
  description = "The table of published images."
  value       = aws_dynamodb_table.images.arn
}
