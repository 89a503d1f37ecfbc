//! Calls to AWS's services: what those with an SDK crate of AWS's have in common, and
//! signed HTTP requests for those whose SDK crate costs more than the one or two calls
//! that are made.
//!
//! CloudWatch Logs, DynamoDB, KMS, SNS and Step Functions are asked with AWS's crates.
//! They get their connections from [`http_client`], and [`Error::of_call`] gives their
//! errors the words of all others. The rest are here:
//!
//! | service | operations | source of its SDK crate |
//! |---|---|---|
//! | EC2 | `DescribeInstances`, `StartInstances`, `StopInstances` | ten minutes of compilation |
//! | ECR | `GetAuthorizationToken` | 5.4 MB |
//! | Lambda | `Invoke` | 9.8 MB |
//! | S3 | `GetObject`, `HeadObject`, `PutObject` | 15.1 MB |
//! | Systems Manager | `GetParameter` | 18.8 MB |
//!
//! For comparison, the crates that are used, and the processor time that rustc takes to
//! check their types, as lints do. The code for tests, which is not optimized, takes it
//! once more: 46.5 s for `aws-sdk-cloudwatchlogs`.
//!
//! | crate | source | processor time |
//! |---|---|---|
//! | `aws-sdk-sns` | 3.3 MB | 6.5 s |
//! | `aws-sdk-sfn` | 3.8 MB | 7.8 s |
//! | `aws-sdk-kms` | 6.3 MB | 12.4 s |
//! | `aws-sdk-dynamodb` | 7.9 MB | 14.5 s |
//! | `aws-sdk-cloudwatchlogs` | 9.6 MB | 23.0 s |
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
//! SDK crates use, through the same proxies. It signs with Signature Version 4, by the
//! service's time where that is minutes from this host's, and tries again what may be
//! tried again: what a service has throttled, and, for requests that may arrive twice
//! without harm, also what failed on the way.
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
mod clock;
mod credentials;
pub mod ec2;
pub mod ecr;
mod endpoint;
mod error;
mod http_client;
mod json;
pub mod lambda;
mod refusal;
mod request;
mod response;
mod retry;
pub mod s3;
mod sdk;
mod sign;
pub mod ssm;
mod xml;

/// Credentials of AWS.
pub use aws_credential_types::Credentials;
pub use client::{Client, ConfigError, check};
pub use credentials::Provider;
pub use endpoint::Service;
pub use error::Error;
pub use http_client::{http_client, http_client_with};
pub use request::{Body, Request};
pub use response::{Download, Response};
