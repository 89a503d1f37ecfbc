//! Key policies from outside: read, evaluated, written and reviewed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod calls;
mod evaluate;
mod examples;
mod grammar;
mod random;
mod review;
mod written;
