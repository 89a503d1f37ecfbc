//! PID 1 inside the enclave.
//!
//! The boot is a list of steps, each timed and fail-closed: when one fails, the
//! reason goes to the parent and the console, and the enclave powers off.
//! Afterwards the init reaps orphans, restarts the workload by its policy,
//! carries its logs and connections, answers attestation challenges, and shuts
//! everything down in order when told.
//!
//! Started as PID 1 it takes the machine for an enclave. Started as
//! `init sim …` it makes namespaces for itself first; the rest is the same.

mod api;
mod args;
mod boot;
mod control;
mod egress;
mod entropy;
mod error;
mod forward;
mod health;
mod ingress;
mod logs;
mod mounts;
mod network;
mod parent;
mod run;
mod security_module;
mod sim;
mod workload;

pub use args::{Arguments, Simulation};
pub use run::{EXIT_FAILED, EXIT_NAMESPACES, EXIT_ORDERLY, EXIT_USAGE, main};
