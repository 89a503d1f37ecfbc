//! From a container image and `enclave.toml` to an enclave image, without Docker.
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
//!
//! Files, directories, symbolic links, hard links and pipes of the layers are
//! there with their owners and modes. Times are those of 1970. Extended
//! attributes, which a ramdisk cannot hold, and device nodes, which the
//! enclave's init makes itself, are left out, which is noted. Memory does not grow with the
//! size of an image, only with the number of its files, which is limited.

#![forbid(unsafe_code)]

mod access;
mod archive;
mod attestation;
mod build;
mod compression;
mod config;
mod container;
mod contents;
mod description;
mod difference;
mod digest;
mod docker;
mod dynamic;
mod elf;
mod enclave_kms;
mod entry;
mod error;
mod fields;
mod files;
mod healthcheck;
mod image;
mod kernel;
mod keys;
mod kms;
mod kms_policy;
mod large_file;
mod layer;
mod layout;
mod left_out;
mod libraries;
mod list;
mod loader;
mod memory;
mod node;
mod parts;
mod path;
mod platform;
mod program;
mod ramdisk;
mod released;
mod rootfs;
mod secrets;
mod source;
mod spool;
mod step;
mod storage;
mod stored;
mod tree;
mod user;
mod whiteout;

pub use build::{BuildTime, Built, Inputs, SigningFiles, build};
pub use description::{Description, Init, describe_image};
pub use difference::{
    Change, Difference, FileDifference, RegisterDifference, SectionDifference, compare_images,
};
pub use error::BuildError;
pub use kms_policy::{KeyPolicyInputs, review_key_policy, write_key_policy};
pub use platform::{Platform, PlatformError};
pub use step::Step;
