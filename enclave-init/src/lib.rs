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
//! The workload is part of the measured image, and one domain of trust with the
//! init. As in any container its user keeps it from nothing that root may do if
//! that user is root: it has all capabilities then, which in an enclave reach no
//! further than the enclave. Another user has none; programs of the image with
//! the set-user-ID bit work as in any container. `/dev/nsm` is root's, so other
//! users ask the local API. A workload may behave as badly as it likes: it can
//! use up its own places and its own log, and end its own enclave.
//!
//! When memory runs out the kernel kills the workload, which is restarted by its
//! policy: it never chooses a machine's PID 1. Every descriptor of the init is
//! closed in the workload, which reads from `/dev/null`.
//!
//! # What happens when the init panics
//!
//! It should not; but a PID 1 that goes on after a broken invariant is worse
//! than one that ends. The reason goes to standard error, which is the console,
//! and to the agent as the enclave's last words, if the control connection takes
//! them at once; then the machine is reset. Where even that fails the process
//! aborts: the kernel panics, and resets the machine as its command line says.

mod api;
mod args;
mod boot;
mod clock;
mod control;
mod egress;
mod entropy;
mod error;
mod forward;
mod health;
mod ingress;
mod limits;
mod logs;
mod machine;
mod mounts;
mod network;
mod notices;
mod panic;
mod parent;
mod pressure;
mod reaper;
mod registers;
mod run;
mod security_module;
mod self_check;
mod signals;
mod sim;
mod supervisor;
mod trust;
mod workload;

pub use args::{Arguments, Simulation};
pub use logs::{Piece, Records};
pub use run::{EXIT_FAILED, EXIT_NAMESPACES, EXIT_ORDERLY, EXIT_USAGE, main};
