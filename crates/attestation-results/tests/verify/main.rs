//! What a relying party accepts, and what it refuses by which rule.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod expectations;
mod token;
mod world;
