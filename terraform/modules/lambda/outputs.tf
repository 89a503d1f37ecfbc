output "function_names" {
  description = "The functions' names, by function."
  value       = { for key, function in aws_lambda_function.this : key => function.function_name }
}

output "function_arns" {
  description = "The functions' ARNs, by function."
  value       = { for key, function in aws_lambda_function.this : key => function.arn }
}

output "unhandled_queue_arn" {
  description = "The queue of events that could not be handled."
  value       = aws_sqs_queue.unhandled.arn
}

output "unhandled_queue_name" {
  description = "The queue of events that could not be handled."
  value       = aws_sqs_queue.unhandled.name
}
