//! What may leave the enclave, and what may come in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::units::Port;

/// The most egress rules in one manifest.
pub const MAX_EGRESS_RULES: usize = 256;
/// The most ingress ports in one manifest.
pub const MAX_INGRESS_RULES: usize = 64;
/// The longest host name (RFC 1035, section 2.3.4, without the root's dot).
const MAX_HOST_BYTES: usize = 253;
/// The longest label of a host name (RFC 1035, section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// The `[network]` table: both lists are empty unless given, so an enclave has
/// no network until its manifest says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Destinations that the workload may open TCP connections to.
    pub egress: Vec<EgressRule>,
    /// Ports that the parent instance opens on the workload's behalf.
    pub ingress: Vec<IngressRule>,
}

impl Network {
    /// Whether a rule allows a connection to `host` on `port`. A trailing dot
    /// and the letters' case make no difference.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.egress.iter().any(|rule| rule.matches(host, port))
    }
}

/// Why an egress rule could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EgressError {
    /// There is no `:port` after the host.
    #[error("`{0}` has no port: write `host:port`, as in `kms.us-west-2.amazonaws.com:443`")]
    NoPort(String),
    /// What follows the last colon is not a port.
    #[error("`{0}` does not end in a port from 1 to 65535")]
    Port(String),
    /// The host is not a DNS name, a `*.` pattern or an IPv4 address.
    #[error(
        "`{0}` is not a host: write a DNS name, a pattern such as `*.example.com`, or an IPv4 address"
    )]
    Host(String),
}

/// One allowed destination: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EgressRule {
    host: HostPattern,
    port: Port,
}

impl EgressRule {
    /// The hosts that the rule allows.
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// The port that the rule allows.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Whether the rule allows a connection to `host` on `port`.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.port.get() == port && self.host.matches(host)
    }
}

/// A DNS name, all names below one, or an IPv4 address. Kept in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name or address.
    Exact(String),
    /// Every name that ends in a dot and this suffix; the suffix itself is not matched.
    Below(String),
}

impl HostPattern {
    /// Whether `host` is one that the pattern allows.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match self {
            Self::Exact(name) => *name == host,
            Self::Below(suffix) => host
                .strip_suffix(suffix.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(is_host_name),
        }
    }
}

impl FromStr for EgressRule {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| EgressError::NoPort(text.to_owned()))?;
        let port = port
            .parse()
            .map_err(|_| EgressError::Port(text.to_owned()))?;
        let lower = host.to_ascii_lowercase();
        let host = match lower.strip_prefix("*.") {
            Some(suffix) if is_host_name(suffix) => HostPattern::Below(suffix.to_owned()),
            None if is_host_name(&lower) => HostPattern::Exact(lower),
            _ => return Err(EgressError::Host(host.to_owned())),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Exact(name) => write!(f, "{name}:{}", self.port),
            HostPattern::Below(suffix) => write!(f, "*.{suffix}:{}", self.port),
        }
    }
}

impl TryFrom<String> for EgressRule {
    type Error = EgressError;

    fn try_from(text: String) -> Result<Self, EgressError> {
        text.parse()
    }
}

impl From<EgressRule> for String {
    fn from(rule: EgressRule) -> Self {
        rule.to_string()
    }
}

/// One port opened on the parent instance and carried to the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// The port that the parent instance listens on.
    pub port: Port,
    /// The port inside the enclave, on its loopback address.
    pub to: Port,
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 bytes: DNS
/// names as they are used (RFC 1123, section 2.1, and underscores), and IPv4
/// addresses, whose labels are digits.
fn is_host_name(name: &str) -> bool {
    name.len() <= MAX_HOST_BYTES
        && name.split('.').all(|label| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}
