//! The link from outside: every message, both sides of every hand-shake, and
//! peers that break the rules.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod compression;
mod endpoint;
mod ends;
mod frames;
mod hello;
mod messages;
mod samples;
mod transport;
mod wire_protocol;
