//! Where a connection of the workload's goes.

use std::fmt;

use link::Channel;
use link::target::MAX_HOST;
use manifest::{HostPattern, Network, Protocol, host_spelling};

/// A host and a port. Another spelling of the host would have a share of the places of
/// its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    host: String,
    port: u16,
    protocol: Protocol,
}

impl Destination {
    /// Where a connection goes; none if the host is no name and no address.
    pub(super) fn new(host: &str, port: u16) -> Option<Self> {
        Self::over(Protocol::Tcp, host, port)
    }

    /// Where this goes; none if the host is no name and no address.
    pub(super) fn over(protocol: Protocol, host: &str, port: u16) -> Option<Self> {
        let host = normalise(host)?;
        Some(Self {
            host,
            port,
            protocol,
        })
    }

    /// Reads `host:port`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Self::new(host, port.parse().ok()?)
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The channel to the agent that it takes.
    pub(super) fn channel(&self) -> Channel {
        match self.protocol {
            Protocol::Tcp => Channel::Egress,
            Protocol::Udp => Channel::Datagrams,
        }
    }

    pub(super) fn is_allowed(&self, network: &Network) -> bool {
        network.allows_over(&self.host, self.port, self.protocol)
    }

    /// Whether the image spells the host out, so that its name is nobody's secret.
    pub(super) fn is_listed(&self, network: &Network) -> bool {
        is_listed(&self.host, network)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.host, self.port, self.protocol)
    }
}

/// The one spelling of a host, if it is a name or an address.
pub(super) fn normalise(host: &str) -> Option<String> {
    let host = host_spelling(host);
    let is_host = !host.is_empty()
        && !host.ends_with('.')
        && host.len() <= MAX_HOST
        && host.bytes().all(|byte| byte.is_ascii_graphic());
    is_host.then_some(host)
}

/// Whether a rule of the image has this very host.
pub(super) fn is_listed(host: &str, network: &Network) -> bool {
    let mut rules = network.egress.iter();
    rules.any(|rule| matches!(rule.host(), HostPattern::Exact(name) if name == host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn egress_destinations_have_one_spelling() {
        let expected = Destination::parse("kms.example:443").unwrap();
        for text in ["KMS.example:443", "kms.example.:443", "kms.Example.:0443"] {
            let found = Destination::parse(text).unwrap();
            assert_eq!(found, expected, "{text}");
            assert_eq!(found.to_string(), "kms.example:443");
        }
        for text in [
            "kms.example..:443",
            ".:443",
            ":443",
            "x",
            "x:",
            "x:+1",
            "x:65536",
        ] {
            assert_eq!(Destination::parse(text), None, "{text}");
        }
    }
}
