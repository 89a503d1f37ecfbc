//! The agent on the EC2 instance: starts an enclave, carries its traffic and
//! logs, and relays attestation.
//!
//! `parent-agent run IMAGE.eif` is one process per enclave ([`run`]). Its command
//! line, the configuration document ([`config`]) and the image
//! ([`enclave_host::image`]), which may have to be fetched ([`image_fetch`]),
//! make one configuration that does not change ([`run_config`]). It claims a folder
//! for the enclave's sockets ([`enclave_host::state`]) and starts the enclave under a
//! hypervisor ([`enclave_host::hypervisor`]), through a guard process that cleans up
//! if the agent is killed ([`enclave_host::guard`]), or takes over one that a guard
//! kept ([`attach`]).
//!
//! A session then serves the enclave to its end, whose rules are in [`enclave`]. It
//! answers the heartbeat and serves the connections that the enclave opens
//! ([`channels`]), which on Nitro another process may pass on ([`dispatch`]), carries
//! those from outside to it ([`ingress`]), keeps its log records on disk
//! ([`log_spool`]) until they are where they should be ([`log_sinks`]), shows its documents
//! to a control plane ([`gate`]), tells the service manager how it is ([`notify`]), and
//! answers the other sub-commands ([`client`]) over the local API ([`api`]).
//! `parent-agent logs` reads the spool itself ([`logs`]).
//!
//! # Exit codes
//!
//! Each command ends with an [`Exit`]; for `run` the code tells how the enclave
//! ended. Standard output carries log records (or, with `--json`, every event),
//! standard error what is meant for people.

#![forbid(unsafe_code)]

pub mod api;
pub mod attach;
pub mod bootstrap;
pub mod channels;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod connect_to;
mod copy;
pub mod crash;
pub mod credentials;
pub mod diagnostics;
pub mod dispatch;
pub mod enclave;
mod enclave_log;
mod error;
pub mod event;
mod exit;
pub mod gate;
pub mod history;
pub mod ingress;
pub mod kernel_panic;
pub mod kms;
pub mod limit;
pub mod logs;
mod machine;
pub mod metrics;
pub mod notify;
mod proxy;
mod proxy_protocol;
mod recorder;
pub mod report;
pub mod resolve;
pub mod run;
pub mod run_config;
pub mod self_check;
mod session;
mod signals;
mod socket;
pub mod status;
mod supervisor;
mod throttle;
pub mod traffic;

pub use error::Error;
pub use exit::{EXIT_CODES, Exit};
