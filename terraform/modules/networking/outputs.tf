output "vpc_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "The private subnets, in the order of the zones."
  value       = [for zone in var.availability_zones : aws_subnet.private[zone].id]
}

output "enclaves_security_group_id" {
  description = "The shared group of enclaves' instances."
  value       = aws_security_group.enclaves.id
}

output "runners_security_group_id" {
  description = "The group of runners."
  value       = aws_security_group.runners.id
}

output "endpoints_security_group_id" {
  description = "The group of the endpoints."
  value       = aws_security_group.endpoints.id
}
