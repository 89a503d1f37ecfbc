//! The control plane's items: what is in the table of enclaves and in that of images,
//! and who may write what.
//!
//! Which status may follow which is the table in [`status`]; each write is an
//! [`update::Update`], made only where its conditions hold, and the [`store`] makes
//! it. A client's [`request`] is in the item; what came of it is an [`item::Enclave`].
//! What functions and programs for people have in common besides is here as well:
//! [`clients`] of AWS's services, the [`environment`], and the [`log`].

#![forbid(unsafe_code)]

pub mod attributes;
pub mod caught;
pub mod clients;
pub mod environment;
pub mod execution;
mod failure;
pub mod instance_types;
mod instant;
pub mod item;
pub mod log;
pub mod request;
pub mod sealing;
pub mod status;
pub mod store;
pub mod update;

pub use failure::Failure;
