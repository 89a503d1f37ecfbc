//! What the demo, the local KMS and the end-to-end tests share.

#![forbid(unsafe_code)]

pub mod authority;
pub mod kms;
pub mod leftovers;
pub mod oci;
mod private_file;
pub mod signed;
