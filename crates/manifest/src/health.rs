//! How a workload's health is probed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::units::{Interval, Port};

/// The longest URL of a probe in bytes.
const MAX_URL_BYTES: usize = 2048;

/// Why a `health` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HealthError {
    /// Neither probe is given, or both.
    #[error(
        "health needs one probe: write `http = \"http://127.0.0.1:PORT/PATH\"` or `tcp = PORT`, not both"
    )]
    Probe,
    /// The URL is not one that can be probed.
    #[error(
        "`{0}` cannot be probed: write a plain HTTP URL on the enclave's loopback address, as in `http://127.0.0.1:8080/health`"
    )]
    Url(String),
}

/// The `health` table of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct Health {
    /// What is asked.
    pub probe: HealthProbe,
    /// How often, from the workload's start; every 30 s unless given.
    pub interval: Interval,
}

/// One way to ask a workload whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthProbe {
    /// `GET` this URL; a status of 200 to 399 is healthy.
    Http(HealthUrl),
    /// Connect to this TCP port on the enclave's loopback address.
    Tcp(Port),
}

/// `http://HOST[:PORT][/PATH]` with the host `127.0.0.1`, `localhost` (which
/// means the same) or `[::1]`; the port is 80 unless given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HealthUrl {
    text: String,
    address: SocketAddr,
    /// Where path and query begin in the text.
    target: usize,
}

impl HealthUrl {
    /// Where to connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to ask for: path and query, at least `/`.
    pub fn target(&self) -> &str {
        match self.text.get(self.target..) {
            Some(target) if !target.is_empty() => target,
            _ => "/",
        }
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for HealthUrl {
    type Err = HealthError;

    fn from_str(text: &str) -> Result<Self, HealthError> {
        parse_url(text).ok_or_else(|| HealthError::Url(text.to_owned()))
    }
}

fn parse_url(text: &str) -> Option<HealthUrl> {
    const SCHEME: &str = "http://";
    let rest = text.strip_prefix(SCHEME)?;
    // A URL goes into a request's head as it stands: nothing but visible ASCII.
    // A fragment is never sent.
    if text.len() > MAX_URL_BYTES
        || !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, ip): (_, IpAddr) = [
        ("127.0.0.1", Ipv4Addr::LOCALHOST.into()),
        ("localhost", Ipv4Addr::LOCALHOST.into()),
        ("[::1]", Ipv6Addr::LOCALHOST.into()),
    ]
    .into_iter()
    .find(|(host, _)| authority.starts_with(host))?;
    let port = match authority.strip_prefix(host)? {
        "" => 80,
        port => port.strip_prefix(':')?.parse::<Port>().ok()?.get(),
    };
    Some(HealthUrl {
        address: (ip, port).into(),
        target: text.len() - path.len(),
        text: text.to_owned(),
    })
}

impl Deref for HealthUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for HealthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for HealthUrl {
    type Error = HealthError;

    fn try_from(text: String) -> Result<Self, HealthError> {
        text.parse()
    }
}

impl From<HealthUrl> for String {
    fn from(url: HealthUrl) -> Self {
        url.text
    }
}

/// The table as it is written: one key for each probe.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<HealthUrl>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<Port>,
    #[serde(default = "default_interval")]
    interval: Interval,
}

const fn default_interval() -> Interval {
    Interval::DEFAULT_HEALTH
}

impl TryFrom<Table> for Health {
    type Error = HealthError;

    fn try_from(table: Table) -> Result<Self, HealthError> {
        let probe = match (table.http, table.tcp) {
            (Some(url), None) => HealthProbe::Http(url),
            (None, Some(port)) => HealthProbe::Tcp(port),
            _ => return Err(HealthError::Probe),
        };
        Ok(Self {
            probe,
            interval: table.interval,
        })
    }
}

impl From<Health> for Table {
    fn from(health: Health) -> Self {
        let (http, tcp) = match health.probe {
            HealthProbe::Http(url) => (Some(url), None),
            HealthProbe::Tcp(port) => (None, Some(port)),
        };
        Self {
            http,
            tcp,
            interval: health.interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_on_loopback_are_taken_apart() {
        for (text, address, target) in [
            ("http://127.0.0.1:8080/health", "127.0.0.1:8080", "/health"),
            ("http://localhost:1", "127.0.0.1:1", "/"),
            ("http://localhost/", "127.0.0.1:80", "/"),
            ("http://[::1]:9/a?b=c:d/e", "[::1]:9", "/a?b=c:d/e"),
        ] {
            let url: HealthUrl = text.parse().unwrap();
            assert_eq!(url.address().to_string(), address);
            assert_eq!(url.target(), target);
            assert_eq!(url.as_str(), text);
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for text in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1/",
            "http://",
            "http://example.com/",
            "http://127.0.0.1.example.com/",
            "http://localhostess/",
            "http://127.0.0.1:/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:65536/",
            "http://user@127.0.0.1/",
            "http://127.0.0.1?x",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/a\r\nHost: x",
            "http://127.0.0.1/#top",
            "http://127.0.0.1/\u{e4}",
        ] {
            assert_eq!(
                text.parse::<HealthUrl>(),
                Err(HealthError::Url(text.into()))
            );
        }
        assert!(
            format!("http://127.0.0.1/{}", "a".repeat(2048))
                .parse::<HealthUrl>()
                .is_err()
        );
    }

    #[test]
    fn a_table_has_exactly_one_probe() {
        let read = |json| serde_json::from_str::<Health>(json).map_err(|error| error.to_string());
        let health = read(r#"{"tcp": 5432}"#).unwrap();
        assert_eq!(health.probe, HealthProbe::Tcp(Port::new(5432).unwrap()));
        assert_eq!(health.interval, Interval::DEFAULT_HEALTH);
        for json in ["{}", r#"{"tcp": 1, "http": "http://127.0.0.1/"}"#] {
            assert!(read(json).unwrap_err().contains("needs one probe"));
        }
        assert!(
            read(r#"{"tcp": 1, "udp": 2}"#)
                .unwrap_err()
                .contains("unknown field `udp`")
        );
    }

    #[test]
    fn a_table_is_written_as_it_is_read() {
        for json in [
            r#"{"http":"http://127.0.0.1:8080/health","interval":"5s"}"#,
            r#"{"tcp":5432,"interval":"30s"}"#,
        ] {
            let health: Health = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&health).unwrap(), json);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in "(http://)?(localhost)?\\PC*") {
            if let Ok(url) = text.parse::<HealthUrl>() {
                prop_assert!(url.address().ip().is_loopback());
                prop_assert!(url.target().starts_with('/'));
            }
        }
    }
}
