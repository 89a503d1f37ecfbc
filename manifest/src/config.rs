//! The two documents that an enclave image carries.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::network::{EgressRule, IngressRule, Network};
use crate::workload::{Logs, Workload};

/// Where the measured configuration lies in the application ramdisk.
pub const MEASURED_CONFIG_PATH: &str = "enclave/config.json";
/// The key of the host configuration in the EIF's `CustomMetadata`.
pub const HOST_CONFIG_KEY: &str = "Host";
/// The version that both documents carry.
pub const CONFIG_SCHEMA: u32 = 1;
/// The largest document that is read.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;

/// Why a configuration in an image could not be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Larger than [`MAX_CONFIG_BYTES`].
    #[error(
        "the image's configuration has {0} bytes, more than the {MAX_CONFIG_BYTES} that are allowed"
    )]
    TooLarge(usize),
    /// Not the JSON that this version writes.
    #[error(
        "the image's configuration cannot be read: {0}; build the image again with this version's image-builder"
    )]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the image's configuration has schema {found}, this program knows {CONFIG_SCHEMA}: use an image-builder and a program of the same release"
    )]
    Schema {
        /// The version found.
        found: u32,
    },
}

/// What the enclave is bound to do: part of the application ramdisk, so PCR0
/// and PCR2 cover it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredConfig {
    /// [`CONFIG_SCHEMA`].
    pub schema: u32,
    /// The enclave's name.
    pub name: String,
    /// What runs.
    pub workload: Workload,
    /// Its network.
    pub network: Network,
    /// Its log policy.
    pub logs: Logs,
}

impl MeasuredConfig {
    /// Reads the document from the bytes of [`MEASURED_CONFIG_PATH`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        let config: Self = parse(bytes)?;
        check_schema(config.schema)?;
        Ok(config)
    }

    /// The bytes to write at [`MEASURED_CONFIG_PATH`]; the same for equal values.
    pub fn to_json(&self) -> Result<Vec<u8>, ConfigError> {
        Ok(serde_json::to_vec(self)?)
    }
}

/// What the parent instance needs to know of an image. Not measured: it must
/// never be trusted inside the enclave, or by a verifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// [`CONFIG_SCHEMA`].
    pub schema: u32,
    /// The enclave's name.
    pub name: String,
    /// Virtual CPUs to start it with.
    pub cpus: u32,
    /// Memory to start it with, in MiB.
    pub memory_mib: u32,
    /// Ports to open for it.
    pub ingress: Vec<IngressRule>,
    /// Destinations to connect it to.
    pub egress: Vec<EgressRule>,
}

impl HostConfig {
    /// Reads the document from the value under [`HOST_CONFIG_KEY`].
    pub fn from_value(value: &serde_json::Value) -> Result<Self, ConfigError> {
        let config = Self::deserialize(value)?;
        check_schema(config.schema)?;
        Ok(config)
    }
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, ConfigError> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge(bytes.len()));
    }
    Ok(serde_json::from_slice(bytes)?)
}

fn check_schema(found: u32) -> Result<(), ConfigError> {
    if found == CONFIG_SCHEMA {
        Ok(())
    } else {
        Err(ConfigError::Schema { found })
    }
}
