//! From an OCI image and `enclave.toml` to an enclave image, without Docker.
//!
//! The same inputs give the same bytes, on any machine, for any user: layers
//! are merged in memory rather than on a file system, entries are sorted, and
//! no time, inode number or owner of the building machine gets in.
//!
//! An image has two ramdisks, unpacked into one tree by the enclave's kernel:
//!
//! * the boot ramdisk: `init` (`enclave-init`), `dev/console`, mount points;
//! * the application's: `rootfs/` with the merged image, and
//!   [`manifest::MEASURED_CONFIG_PATH`].

#![forbid(unsafe_code)]

mod build;
mod container;
mod error;
mod kernel;
mod layer;
mod oci;
mod program;
mod ramdisk;
mod tree;
mod user;

pub use build::{Built, Inputs, SigningFiles, build, describe_image};
pub use error::BuildError;
