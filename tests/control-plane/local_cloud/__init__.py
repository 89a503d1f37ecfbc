"""The control plane on one machine: its functions and workflows as Terraform renders
them, on an emulator of AWS; its Terraform tasks and its instances as processes."""
