//! A hostile workload in a real enclave: every way out of its confinement,
//! everything that it can exhaust, and everything that others can exhaust from
//! outside.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod exhaustion;
mod hostile;
mod kernel_memory;
mod local_api;
mod namespaces;
mod traffic;
mod ways_out;
