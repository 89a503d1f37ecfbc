//! The control plane: what its Lambda functions and its Terraform runner do.
//!
//! A client writes a status into the table of enclaves. The [`trigger`] starts a
//! workflow for it; the workflow has the request judged by [`validation`], runs
//! Terraform, and waits at the [`gate`] for the enclave's document. Whatever fails
//! ends in [`failure`], and what even that misses is found by the [`monitor`]. The [`runner`] is what the
//! workflow starts to run Terraform.
//!
//! Which status may follow which is the table in [`status`]; each write is an
//! [`update::Update`], made only where its conditions hold. Decisions are functions
//! of what was read, and the [`store`] and [`workflows`] do the rest.

#![forbid(unsafe_code)]

pub mod attributes;
pub mod execution;
pub mod failure;
pub mod function;
pub mod gate;
pub mod instance_types;
pub mod item;
pub mod monitor;
pub mod request;
pub mod runner;
pub mod status;
pub mod store;
pub mod trigger;
pub mod update;
pub mod validation;
pub mod workflows;
