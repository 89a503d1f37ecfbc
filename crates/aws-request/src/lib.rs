//! Signed HTTP requests to AWS services, for the few calls that do not need an SDK
//! crate: objects in S3, Lambda functions, log events, parameters, secrets,
//! instances, KMS signatures and tokens for registries.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
//! let client = aws_request::Client::new(&config)?;
//! let value = client.ssm().parameter("/payments/configuration").await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] has the region, credentials, endpoint and time limits of an
//! [`SdkConfig`](aws_config::SdkConfig), and sends over the HTTP stack that the
//! SDK crates use. It signs with Signature Version 4, and tries again what may be
//! tried again: what a service has throttled, and, for requests that may arrive
//! twice without harm, also what failed on the way.
//!
//! | limit | value |
//! |---|---|
//! | attempts | 4, unless the `SdkConfig` gives another number |
//! | pause before another attempt | random, at most 0.2 s, doubling, at most 5 s; never less than `Retry-After` says, up to 20 s |
//! | time to connect | 5 s, unless the `SdkConfig` gives another |
//! | time to the first byte of the answer | 30 s, or what a call needs |
//! | silence within an answer | 30 s |
//! | bytes of an answer that is held in memory | 1 MiB, for Lambda's 7 MiB |

#![forbid(unsafe_code)]

mod client;
mod credentials;
pub mod ec2;
pub mod ecr;
mod endpoint;
mod error;
mod json;
pub mod kms;
pub mod lambda;
pub mod logs;
mod refusal;
mod request;
mod response;
mod retry;
pub mod s3;
pub mod secrets;
mod sign;
pub mod ssm;
mod xml;

pub use client::{Client, ConfigError};
pub use endpoint::Service;
pub use error::Error;
pub use request::{Body, Request, percent_encode};
pub use response::{Download, Response};
