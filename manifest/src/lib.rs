//! `enclave.toml` and the two configurations derived from it.
//!
//! A person writes a [`Manifest`]. `image-builder` combines it with the OCI
//! image's own configuration and writes two documents into the enclave image:
//!
//! * [`MeasuredConfig`] goes into the application ramdisk, at
//!   [`MEASURED_CONFIG_PATH`], so PCR2 covers it: an attested image proves its
//!   own command line, user, egress allowlist and log policy. `enclave-init`
//!   reads it.
//! * [`HostConfig`] goes into the EIF's metadata section, which nothing
//!   measures. It holds only what the parent instance needs to start the image
//!   and to carry its traffic. `parent-agent` reads it.
//!
//! Values are parsed once, here: a port is a [`Port`], a length of time a
//! [`Interval`], an allowed destination an [`EgressRule`].

#![forbid(unsafe_code)]

mod config;
mod network;
mod source;
mod units;
mod workload;

pub use config::{
    CONFIG_SCHEMA, ConfigError, HOST_CONFIG_KEY, HostConfig, MAX_CONFIG_BYTES,
    MEASURED_CONFIG_PATH, MeasuredConfig,
};
pub use network::{
    EgressRule, HostPattern, IngressRule, MAX_EGRESS_RULES, MAX_INGRESS_RULES, Network,
};
pub use source::{Enclave, ImageReference, Manifest, ManifestError, WorkloadSource};
pub use units::{Backoff, Interval, Port, UnitError};
pub use workload::{
    Health, HealthProbe, LogRelease, Logs, Restart, RestartPolicy, User, UserSource, Workload,
    WorkloadKind,
};
