//! `attest serve` from outside: the real program, real sockets, real signals.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod challenges;
mod command;
mod crowd;
mod drain;
mod enclave;
mod http;
mod limits;
mod openapi;
mod policies;
mod relying_party;
mod results;
mod server;
mod verify;
