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
//!
//! # What the workload is trusted with
//!
//! The workload is part of the measured image, and trusted with itself alone. It
//! may behave as badly as it likes, or be taken over by whoever sends it requests:
//! it can use up its own memory, processes, files and log, and end its own enclave.
//! It cannot open vsock, reach the security module but through the local API, see
//! or signal the init, or take the memory that the init needs.
//!
//! It has mount, PID, network, IPC and control group namespaces of its own, the capabilities that
//! the image names (none, for root neither, unless it names some), no way to new
//! ones, and a filter of its system calls. `confinement` is where all of this is
//! made, and says what it does not hold.
//!
//! The init's side of it: every descriptor is opened to be closed in the workload,
//! which reads from `/dev/null`; the init stays out of the workload's control group,
//! so a want of memory there ends processes of the workload only.
//!
//! # What happens when the init panics
//!
//! It should not; but a PID 1 that goes on after a broken invariant is worse
//! than one that ends. The reason goes to standard error, which is the console,
//! and to the agent as the enclave's last words, if the control connection takes
//! them at once; then the machine is reset. Where even that fails the process
//! aborts: the kernel panics, and resets the machine as its command line says.

mod allocator;
mod answers;
mod api;
mod args;
mod aws;
mod boot;
mod capacity;
mod clock;
mod companion;
mod conditions;
mod confinement;
mod control;
mod covered;
mod credentials;
mod disposition;
mod egress;
mod entropy;
mod error;
mod exit;
mod family;
mod forward;
mod health;
mod identity;
mod ingress;
mod kms;
mod limits;
mod logs;
mod machine;
mod mounts;
mod network;
mod notices;
mod notifications;
mod panic;
mod parent;
mod passing;
mod pressure;
mod probing;
mod readiness;
mod reaper;
mod registers;
mod restarts;
mod run;
mod runtime_config;
mod secrets;
mod security_module;
mod self_check;
mod services;
mod signals;
mod sim;
mod steps;
mod supervisor;
mod system;
mod trust;
mod workload;

pub use allocator::Erasing;
pub use args::{Arguments, Simulation, Users};
pub use exit::{EXIT_FAILED, EXIT_NAMESPACES, EXIT_ORDERLY, EXIT_USAGE};
pub use logs::{Piece, Records};
pub use run::main;
