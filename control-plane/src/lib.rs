//! The control plane: what its Lambda functions and its Terraform runner do.

#![forbid(unsafe_code)]

pub mod runner;
