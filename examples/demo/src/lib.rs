//! What the demo and the end-to-end tests share.

#![forbid(unsafe_code)]

pub mod leftovers;
pub mod oci;
