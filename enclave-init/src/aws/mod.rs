//! Calls to services of AWS that the init makes itself: HTTPS whose TLS ends here, over
//! connections that the agent carries, signed with the workload's credentials.
//!
//! The agent, and whoever controls the parent, sees which host is called, when, and how
//! many bytes; it can delay and end connections. It does know the credentials
//! (`docs/security-model.md`), and it can hand in others: which account answers is known
//! from ARNs in the answers, never from the credentials.

mod account;
mod attempts;
mod client;
mod connection;
mod error;
mod parameter;
mod refusal;
mod roots;
mod service;
mod sign;

pub(crate) use account::is_shared as is_of_same_account;
pub(crate) use attempts::Patience;
pub(crate) use client::{Answer, Client, append};
pub(crate) use connection::Load;
pub(crate) use error::CallError;
pub(crate) use parameter::Parameter;
pub(crate) use service::Service;
pub(crate) use sign::{ALGORITHM, Scope, Signable, Unsigned, digest};
