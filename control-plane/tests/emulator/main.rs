//! The functions against an emulator of AWS: conditional writes under concurrency,
//! the gate with a software NSM, results signed in KMS.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod cloud;
mod gate;
mod sealing;
mod store;
mod trigger;
