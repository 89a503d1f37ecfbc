output "arns" {
  description = "The state machines, by name."
  value       = { for key, machine in aws_sfn_state_machine.this : key => machine.arn }
}
