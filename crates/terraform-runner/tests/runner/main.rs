//! The Terraform runner, with a stand-in for Terraform that does what a test says,
//! and with a stand-in for the workflow.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod ending;
mod locking;
mod running;
mod workflow;
mod world;
