//! The control plane: what its Lambda functions do.
//!
//! A client writes a status into the table of enclaves. The [`trigger`] starts a
//! workflow for it; the workflow has the request judged by [`validation`], runs
//! Terraform, and waits at the [`gate`] for the enclave's document. Whatever fails
//! ends in [`failure`], and what even that misses is found by the [`monitor`].
//!
//! Items, and who may write what to them, are [`control_plane_model`]'s. Decisions are
//! functions of what was read; the model's store and [`workflows`] do the rest.

#![forbid(unsafe_code)]

pub mod failure;
pub mod function;
pub mod gate;
pub mod monitor;
pub mod trigger;
pub mod validation;
pub mod workflows;
