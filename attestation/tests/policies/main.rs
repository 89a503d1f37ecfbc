//! What policies accept, and policies as files.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod demands;
mod enclave;
mod images;
mod nonces;
mod texts;
