//! What runs an enclave on its host.
//!
//! One way to run enclaves is a [`hypervisor`]: Nitro hardware, QEMU's machine of the
//! same kind, or a simulation; all start the same [`image`]. What a hypervisor starts
//! belongs to a [`guard`], a small process of the agent's own program that cleans up
//! if the agent is killed, or keeps the enclave for the next one. Who runs, and where
//! its sockets are, is [`state`] on the disk; what an enclave prints is its
//! [`console`].
//!
//! Guard, tether, security module, what makes a simulated enclave's files and users, and
//! the owner of a Nitro enclave are sub-commands
//! of the program that uses this crate, which has to offer them: `guard DIRECTORY`
//! ([`guard::serve`]), `tether` ([`guard::TetherArgs`]), `software-nsm`
//! ([`hypervisor::SoftwareNsmArgs`]), `sim-tree` ([`hypervisor::SimTreeArgs`]),
//! `sim-users` ([`hypervisor::hold_sim_users`]) and `nitro-enclave`
//! ([`hypervisor::NitroEnclaveArgs`]).
//!
//! `unsafe` is in the device of the hypervisor `nitro` alone, whose driver is called
//! with pointers.

#![deny(unsafe_code)]

pub mod console;
pub mod duration;
pub mod guard;
pub mod hypervisor;
pub mod image;
pub mod pulse;
pub mod ramdisk;
pub mod state;
