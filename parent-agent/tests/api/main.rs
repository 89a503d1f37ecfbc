//! The agent from outside: the real program, real processes, real sockets. The
//! init of these tests' images only waits; the tests themselves speak in its
//! place over the sockets that it would use.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agent;
mod attach;
mod attest;
mod bad_input;
mod bootstrap;
mod cloudwatch;
mod configuration;
mod counts;
mod credentials;
mod datagrams;
mod dispatch;
mod egress;
mod fake_aws;
mod fake_registry;
mod fetch_faults;
mod fetching;
mod floods;
mod gate;
mod hostile_enclave;
mod image;
mod ingress;
mod instance;
mod keys;
mod lifecycle;
mod logs;
mod losses;
mod metadata;
mod multi_enclave;
mod notify;
mod readers;
mod registry;
mod sealed_secrets;
mod self_check;
mod sim_users;
mod spool;
mod syslog_and_otlp;
