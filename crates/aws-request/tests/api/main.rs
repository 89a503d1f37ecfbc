//! Requests as a service sees them, and its answers: over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod faults;
mod sdk;
mod server;
mod services;
