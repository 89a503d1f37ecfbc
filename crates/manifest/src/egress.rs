//! A rule of egress: which hosts, at which port.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::units::Port;

/// The longest host name (RFC 1035, section 2.3.4, without the root's dot).
const MAX_HOST_BYTES: usize = 253;
/// The longest label of a host name (RFC 1035, section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// Why an egress rule could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EgressError {
    /// There is no `:port` after the host.
    #[error("`{0}` has no port: write `host:port`, as in `kms.us-west-2.amazonaws.com:443`")]
    NoPort(String),
    /// What follows the last colon is not a port.
    #[error(
        "`{0}` does not end in a port from 1 to 65535: write `host:port` without a scheme or a path, as in `example.com:443`, or `host:port/udp` for datagrams"
    )]
    Port(String),
    /// The host is not a DNS name, a `*.` pattern or an IPv4 address.
    #[error(
        "`{0}` is not a host: write a DNS name, a pattern such as `*.example.com`, or an IPv4 address"
    )]
    Host(String),
}

/// What goes to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a rule for datagrams ends in.
const UDP: &str = "/udp";

/// What follows `host:port` in a rule, and wherever a destination is named: `/udp`, or for
/// connections nothing.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "",
            Self::Udp => UDP,
        })
    }
}

/// One allowed destination: `host:port` of TCP, or `host:port/udp`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct EgressRule {
    host: HostPattern,
    port: Port,
    protocol: Protocol,
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

    /// What the rule allows to go there.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the rule allows this to go to `host` on `port`.
    pub fn matches(&self, host: &str, port: u16, protocol: Protocol) -> bool {
        self.protocol == protocol && self.port.get() == port && self.host.matches(host)
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
    /// The address, if it is one.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Exact(name) => name.parse().ok(),
            Self::Below(_) => None,
        }
    }

    /// Whether `host` is one that the pattern allows.
    pub fn matches(&self, host: &str) -> bool {
        let host = host_spelling(host);
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
        let (destination, protocol) = match text.strip_suffix(UDP) {
            Some(destination) => (destination, Protocol::Udp),
            None => (text, Protocol::Tcp),
        };
        let (host, port) = destination
            .rsplit_once(':')
            .ok_or_else(|| EgressError::NoPort(text.to_owned()))?;
        let port = port
            .parse()
            .map_err(|_| EgressError::Port(text.to_owned()))?;
        let lower = host.to_ascii_lowercase();
        let host = match lower.strip_prefix("*.") {
            Some(suffix) if is_host_name(suffix) && !ends_in_number(suffix) => {
                HostPattern::Below(suffix.to_owned())
            }
            None if ends_in_number(&lower) && lower.parse::<Ipv4Addr>().is_ok() => {
                HostPattern::Exact(lower)
            }
            None if is_host_name(&lower) && !ends_in_number(&lower) => HostPattern::Exact(lower),
            _ => return Err(EgressError::Host(host.to_owned())),
        };
        Ok(Self {
            host,
            port,
            protocol,
        })
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Exact(name) => write!(f, "{name}:{}{}", self.port, self.protocol),
            HostPattern::Below(suffix) => write!(f, "*.{suffix}:{}{}", self.port, self.protocol),
        }
    }
}

// Parsed inside the visitor and not by `try_from`, so that an error is about the
// rule's own line and not about the list's.
impl<'de> Deserialize<'de> for EgressRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rule;

        impl Visitor<'_> for Rule {
            type Value = EgressRule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule such as \"example.com:443\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<EgressRule, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Rule)
    }
}

impl From<EgressRule> for String {
    fn from(rule: EgressRule) -> Self {
        rule.to_string()
    }
}

/// The one spelling by which a host is allowed, counted and told: in lower case, without
/// the dot that makes a name absolute. With another dot before that one it is no name,
/// and must not become one.
pub fn host_spelling(host: &str) -> String {
    let name = host.strip_suffix('.').filter(|name| !name.ends_with('.'));
    name.unwrap_or(host).to_ascii_lowercase()
}

/// The longest name of a service in DNS, without its underscore (RFC 6335, section 5.1).
const MAX_SERVICE_BYTES: usize = 15;

/// The host whose records `name` has: what follows `_service._tcp.` or `_service._udp.`
/// (RFC 2782), or all of it.
pub fn service_host(name: &str) -> &str {
    let host = || {
        let (service, rest) = name.strip_prefix('_')?.split_once('.')?;
        let is_service = (1..=MAX_SERVICE_BYTES).contains(&service.len())
            && service
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let (protocol, host) = rest.split_once('.')?;
        let is_protocol = ["_tcp", "_udp"]
            .iter()
            .any(|known| protocol.eq_ignore_ascii_case(known));
        (is_service && is_protocol).then_some(host)
    };
    host().unwrap_or(name)
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 bytes: DNS
/// names as they are used (RFC 1123, section 2.1, and underscores).
pub fn is_host_name(name: &str) -> bool {
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

/// No top-level domain is a number (RFC 3696, section 2): a name that ends in
/// one is meant as an IPv4 address.
fn ends_in_number(name: &str) -> bool {
    name.rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Result<EgressRule, EgressError> {
        text.parse()
    }

    #[test]
    fn rules_are_names_patterns_or_addresses() {
        for (text, printed) in [
            ("example.com:443", "example.com:443"),
            ("EXAMPLE.com:443", "example.com:443"),
            ("*.Example.com:8443", "*.example.com:8443"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("localhost:1", "localhost:1"),
            ("_dmarc.4chan.org:65535", "_dmarc.4chan.org:65535"),
            ("Pool.ntp.org:123/udp", "pool.ntp.org:123/udp"),
            ("*.example.com:443/udp", "*.example.com:443/udp"),
            ("10.0.0.1:8125/udp", "10.0.0.1:8125/udp"),
        ] {
            assert_eq!(rule(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_not_a_rule_is_refused() {
        for text in ["", "example.com", "*.example.com"] {
            assert_eq!(rule(text), Err(EgressError::NoPort(text.into())));
        }
        for text in [
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+443",
            "example.com:443 ",
            "example.com:https",
            "a:b:c",
            "example.com:53/tcp",
            "example.com:53/UDP",
            "example.com:/udp",
            "example.com:53/udp/udp",
        ] {
            assert_eq!(rule(text), Err(EgressError::Port(text.into())));
        }
        for host in [
            "",
            ".",
            "*",
            "*.",
            "*.*.com",
            "a.*.com",
            "*example.com",
            "example..com",
            "example.com.",
            "-a.com",
            "a-.com",
            "a b",
            "https://a",
            "a/b",
            "\u{e9}.com",
            "[::1]",
            "1.2.3",
            "1.2.3.256",
            "01.2.3.4",
            "*.2.3.4",
            &"a".repeat(64),
            &"a.".repeat(127),
        ] {
            let error = rule(&format!("{host}:443")).unwrap_err();
            assert_eq!(error, EgressError::Host(host.into()));
        }
    }

    #[test]
    fn rules_are_for_one_protocol() {
        let tcp = rule("example.com:443").unwrap();
        let udp = rule("example.com:443/udp").unwrap();
        assert_ne!(tcp, udp);
        for (rule, protocol, other) in [
            (tcp, Protocol::Tcp, Protocol::Udp),
            (udp, Protocol::Udp, Protocol::Tcp),
        ] {
            assert!(rule.matches("EXAMPLE.com.", 443, protocol));
            assert!(!rule.matches("example.com", 443, other));
        }
    }

    #[test]
    fn records_of_services_are_their_hosts() {
        for (name, host) in [
            ("_mongodb._tcp.cluster.example.com", "cluster.example.com"),
            ("_SIP._UDP.example.com", "example.com"),
            ("cluster.example.com", "cluster.example.com"),
            ("_mongodb._tcp", "_mongodb._tcp"),
            ("_a._b.example.com", "_a._b.example.com"),
            ("_._tcp.example.com", "_._tcp.example.com"),
            ("_a_b._tcp.example.com", "_a_b._tcp.example.com"),
            ("x._tcp.example.com", "x._tcp.example.com"),
            ("_a._tcp._b._tcp.com", "_b._tcp.com"),
            (
                "_sixteen-letters1._tcp.example.com",
                "_sixteen-letters1._tcp.example.com",
            ),
        ] {
            assert_eq!(service_host(name), host);
        }
    }

    proptest! {
        #[test]
        fn what_a_rule_prints_reads_back(text in "(\\*\\.)?[a-z0-9_-]{1,5}(\\.[a-z0-9-]{1,5}){0,3}:[0-9]{1,5}(/udp)?") {
            if let Ok(rule) = text.parse::<EgressRule>() {
                prop_assert_eq!(rule.to_string().parse::<EgressRule>(), Ok(rule));
            }
        }

        #[test]
        fn a_pattern_never_matches_outside_its_suffix(host: String) {
            let rule: EgressRule = "*.example.com:443".parse().unwrap();
            if rule.matches(&host, 443, Protocol::Tcp) {
                let host = host.to_ascii_lowercase();
                prop_assert!(host.trim_end_matches('.').ends_with(".example.com"));
            }
        }
    }
}
