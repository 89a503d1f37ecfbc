//! The agent on the EC2 instance: starts an enclave, carries its traffic and
//! logs, and relays attestation.
//!
//! `parent-agent run IMAGE.eif` is one process per enclave. It reads the image,
//! whose metadata say what it asks of the host ([`image`]), claims a folder for
//! the enclave's sockets ([`state`]), starts it under a hypervisor
//! ([`hypervisor`]) through a guard process that cleans up if the agent is
//! killed ([`guard`]) or takes over one that a guard kept ([`attach`]), and
//! supervises it to its end ([`run`], with the rules in [`enclave`]). Meanwhile it
//! answers the heartbeat and serves the connections that the enclave
//! opens ([`channels`]), which on Nitro another process may pass on ([`dispatch`]),
//! carries those from outside to it ([`ingress`]), keeps its log records on disk
//! ([`log_spool`]) until they are where they should be ([`sink`]), tells the service
//! manager how it is ([`notify`]), and answers the other sub-commands ([`client`])
//! over the local API ([`api`]). `parent-agent logs` reads the spool itself
//! ([`logs`]).
//!
//! # Exit codes
//!
//! Each command ends with an [`Exit`]; for `run` the code tells how the enclave
//! ended. Standard output carries log records (or, with `--json`, every event),
//! standard error what is meant for people.

// Allowed for the device of the hypervisor `nitro` alone.
#![deny(unsafe_code)]

pub mod api;
pub mod attach;
mod aws;
pub mod bootstrap;
pub mod channels;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod console;
mod copy;
pub mod crash;
pub mod diagnostics;
pub mod digest;
pub mod dispatch;
mod duration;
pub mod enclave;
mod enclave_log;
mod error;
pub mod event;
mod exit;
pub mod fetch;
pub mod gate;
pub mod guard;
mod history;
pub mod hypervisor;
pub mod image;
pub mod ingress;
pub mod kernel_panic;
pub mod limit;
pub mod logs;
pub mod losses;
mod machine;
pub mod metrics;
mod names;
pub mod notify;
pub mod output;
mod proxy;
mod proxy_protocol;
mod pulse;
pub mod ramdisk;
mod recorder;
pub mod registry;
pub mod report;
pub mod resolve;
pub mod run;
pub mod run_config;
pub mod self_check;
mod session;
pub mod sink;
mod socket;
pub mod state;
pub mod status;
mod supervisor;
mod throttle;
pub mod traffic;
mod web;

pub use error::Error;
pub use exit::{EXIT_CODES, Exit};
