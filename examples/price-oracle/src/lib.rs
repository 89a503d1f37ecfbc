//! An example workload: prices that a client can hold the enclave to.
//!
//! At its start the service makes a signing key that never leaves the enclave.
//! It fetches prices over TLS that ends inside, from a source whose certificate
//! authority is part of the measured runtime configuration, and signs them.
//! It names the key as the enclave's identity, so that the document for any challenge
//! binds the key to the image and to that configuration: a client that verified one,
//! from the agent or from the service, can check every [`SignedQuote`] offline.
//!
//! | request | answer |
//! |---|---|
//! | `GET /health` | `{"status":"ok"}` |
//! | `GET /quote/BTC-USD` | a [`SignedQuote`] |
//! | `GET /attestation?nonce=HEX` | an attestation document that carries the nonce and the key |
//! | `GET /probe-egress` | how attempts to leave the enclave past its allowlist ended |
//!
//! It is an ordinary program: nothing in it speaks vsock, and all that it asks of an
//! enclave it asks over HTTP.

#![forbid(unsafe_code)]

pub mod config;
pub mod enclave_api;
pub mod http;
pub mod key;
pub mod names;
pub mod probe;
pub mod quote;
pub mod server;
pub mod source;
pub mod source_key;

pub use config::RuntimeConfig;
pub use key::SigningKey;
pub use quote::{Pair, Price, Quote, SignedQuote};
pub use server::Service;
