//! The builder from outside: the real program, on images that the tests make.
//! Nothing boots here: a kernel is a header, an init and a workload are too.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod archives;
mod attestation;
mod bad_image;
mod bad_input;
mod bad_program;
mod configuration;
mod contents;
mod describe;
mod diff;
mod enclave_kms;
mod image;
mod keys;
mod kms_policy;
mod layer;
mod libraries;
mod limits;
mod makers;
mod merge;
mod notes;
mod one_meaning;
mod oracle;
mod platforms;
mod project;
mod ramdisk;
mod readers;
mod reproducible;
mod rootfs;
mod sealed_secrets;
mod sources;
mod workloads;
