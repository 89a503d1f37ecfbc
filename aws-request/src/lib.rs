//! Signed HTTP requests to AWS services, for the few calls that do not need an SDK
//! crate.

#![forbid(unsafe_code)]
