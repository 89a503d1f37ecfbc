"""Whether the roles that Terraform makes may do what they have to, and nothing else."""
