//! The init from outside: the real program under `sim`, in real namespaces, with
//! a real workload. The tests are the agent and the NSM.
//!
//! They need user namespaces, as `sim` does, and nothing else: they pass as root
//! and as any other user.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agent;
mod attestation;
mod attested_channel;
mod boot;
mod clients;
mod clock;
mod companion;
mod confinement;
mod control;
mod credentials;
mod datagrams;
mod description;
mod egress;
mod enclave;
mod environment;
mod hand_over;
mod health;
mod hostile_agent;
mod ingress;
mod keys;
mod kms;
mod kms_command;
mod kms_faults;
mod kms_memory;
mod kms_world;
mod local_api;
mod logs;
mod losses;
mod malformed;
mod module;
mod network;
mod processes;
mod records;
mod refusals;
mod registers;
mod restarts;
mod sealed_secrets;
mod secrets;
mod self_check;
mod shutdown;
mod tls;
mod verify;
mod workloads;
