//! The verification service: challenges, verification and signed results over
//! HTTP. `docs/attest-service.md` describes it for those who call and run it.
//!
//! [`Service::open`] reads everything and finds every mistake in the
//! configuration; [`Service::run`] serves until it is told to stop.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use attestation::Roots;
//! use attestation_results::Issuer;
//! use attestation_service::{Config, Service, listen};
//! use tokio::sync::mpsc;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let service = Service::open(Config {
//!     policies: "/etc/attest/policies".into(),
//!     inline_policies: false,
//!     data: "/var/lib/attest".into(),
//!     roots: Roots::aws(),
//!     issuer: Issuer {
//!         developer: "Example Ltd".to_owned(),
//!         url: None,
//!         lifetime: Duration::from_secs(300),
//!     },
//!     rotation_period: Duration::from_secs(30 * 24 * 60 * 60),
//!     challenge_lifetime: Duration::from_secs(300),
//!     verifications: 256,
//!     connections: 512,
//!     connections_per_client: 128,
//!     rate: 100,
//!     behind_proxy: None,
//!     drain: Duration::from_secs(10),
//! })?;
//! let listener = listen("127.0.0.1:8080".parse()?)?;
//! let (_commands, receiver) = mpsc::channel(1);
//! service.run(listener, None, receiver, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod access_log;
mod api;
mod appraiser;
mod challenges;
mod clients;
mod clock;
mod connections;
mod crowd;
mod limits;
mod metrics;
mod note;
mod policies;
mod problem;
mod request;
mod service;
mod shared;
mod store;
mod stream;
mod swap;
mod upkeep;
mod watch;

pub use challenges::ChallengeKeyError;
pub use clients::ForwardedHeader;
pub use policies::PolicySetError;
pub use service::{Config, Service, ServiceError, listen};
pub use store::StoreError;
pub use upkeep::Command;

/// What the fuzz targets and tests look at besides.
#[doc(hidden)]
pub mod internal {
    pub use crate::limits::MAX_BODY;
    pub use crate::policies::MAX_NAME;
    pub use crate::problem::Problem;
    pub use crate::request::{ChallengeRequest, NonceChoice, PolicyChoice, VerifyRequest};
}
