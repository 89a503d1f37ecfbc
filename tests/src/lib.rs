//! What the end-to-end tests and the figures share: the programs under test,
//! the image that they run, and the agent as a child process.
//!
//! `cargo xtask test` builds everything and names it in the environment:
//!
//! | variable | what it names |
//! |---|---|
//! | `ENCLAVE_TEST_PROGRAMS` | the folder with the programs of the release profile |
//! | `ENCLAVE_TEST_KERNEL` | the enclave's kernel |
//! | `ENCLAVE_TEST_QEMU` | QEMU with the `nitro-enclave` machine |
//! | `ENCLAVE_TEST_VSOCK_DEVICE` | `vhost-device-vsock` |
//! | `ENCLAVE_TEST_PARENT_KERNEL` | a parent instance's kernel, with its modules beside it |
//! | `ENCLAVE_TEST_PYTHON` | the interpreter of the tests' Python environment |

#![forbid(unsafe_code)]

pub mod agent;
pub mod emulator;
pub mod image;
pub mod machine;
pub mod nitro;
pub mod process;
pub mod programs;

pub use agent::Agent;
pub use image::{Signing, Workload};
pub use machine::Machine;
pub use programs::{Hypervisor, Programs};
