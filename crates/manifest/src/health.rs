//! How a workload's health is probed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::process::Command;
use crate::units::{Interval, Port};

/// The longest URL of a probe in bytes.
const MAX_URL_BYTES: usize = 2048;
/// Most failures in a row that a workload may be allowed.
pub const MAX_FAILURES: u32 = 1000;
/// Failures in a row that make a workload unhealthy, unless the manifest says otherwise: as
/// with Docker and Kubernetes.
pub const DEFAULT_FAILURES: u32 = 3;

/// Why a `health` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HealthError {
    /// No probe is given, or several are.
    #[error(
        "health needs one probe: write one of `http = \"http://127.0.0.1:PORT/PATH\"`, `tcp = PORT`, `command = [\"PROGRAM\", \"ARGUMENT\"]` and `notify = true`"
    )]
    Probe,
    /// A probe that could never fail, or hardly.
    #[error(
        "failures of {0} is out of range: write how many probes in a row have to fail, 1 to {MAX_FAILURES}"
    )]
    Failures(u32),
    /// A key of probes beside `notify`.
    #[error(
        "`{0}` is that of a probe, and with `notify = true` there is none: the workload says itself that it is ready; remove it"
    )]
    OfProbes(&'static str),
    /// `watchdog` without `notify`.
    #[error(
        "`watchdog` is for a workload that says itself that it is alive: add `notify = true`, or remove it"
    )]
    WatchdogAlone,
    /// A probe beside the wish for none.
    #[error("`disable = true` is for a workload that is not probed: remove it, or everything else")]
    Disabled,
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
    /// How often, once the workload is ready; every 30 s unless given.
    pub interval: Interval,
    /// How long a probe may take; 5 s unless given.
    pub timeout: Interval,
    /// How many probes in a row have to fail before the workload is unhealthy;
    /// [`DEFAULT_FAILURES`] unless given.
    pub failures: u32,
    /// How long after its start the workload may take to be ready; 10 min unless given. The
    /// enclave ends if it is not ready by then.
    pub ready_within: Interval,
    /// What follows if the workload is unhealthy.
    pub on_unhealthy: OnUnhealthy,
}

/// What follows if a workload is unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnhealthy {
    /// It is reported, and the workload goes on.
    #[default]
    Report,
    /// It is stopped, and started again as after a failure.
    Restart,
    /// It is stopped, and the enclave ends.
    End,
}

/// The `health` table of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Table")]
pub enum HealthSource {
    /// This probe.
    Probe(Health),
    /// None, not the image's either.
    Disabled,
}

impl HealthSource {
    /// The probe, if there is one.
    pub fn probe(&self) -> Option<&Health> {
        match self {
            Self::Probe(health) => Some(health),
            Self::Disabled => None,
        }
    }
}

/// One way to ask a workload whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthProbe {
    /// `GET` this URL; a status of 200 to 399 is healthy.
    Http(HealthUrl),
    /// Connect to this TCP port on the enclave's loopback address.
    Tcp(Port),
    /// Run this beside the workload; exit code 0 is healthy.
    Command(Command),
    /// None: the workload says itself that it is ready, as to systemd.
    Notify {
        /// How long it may be silent then; for ever unless given.
        watchdog: Option<Interval>,
    },
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
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<HealthUrl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Command>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watchdog: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_within: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_unhealthy: Option<OnUnhealthy>,
}

impl TryFrom<Table> for Health {
    type Error = HealthError;

    fn try_from(table: Table) -> Result<Self, HealthError> {
        let notify = table.notify.filter(|notify| *notify);
        let probe = match (table.http, table.tcp, table.command, notify) {
            (Some(url), None, None, None) => HealthProbe::Http(url),
            (None, Some(port), None, None) => HealthProbe::Tcp(port),
            (None, None, Some(command), None) => HealthProbe::Command(command),
            (None, None, None, Some(_)) => HealthProbe::Notify {
                watchdog: table.watchdog,
            },
            _ => return Err(HealthError::Probe),
        };
        if let HealthProbe::Notify { .. } = probe {
            let of_probes = [
                ("interval", table.interval.is_some()),
                ("timeout", table.timeout.is_some()),
                ("failures", table.failures.is_some()),
            ];
            if let Some((key, _)) = of_probes.into_iter().find(|(_, is_given)| *is_given) {
                return Err(HealthError::OfProbes(key));
            }
        } else if table.watchdog.is_some() {
            return Err(HealthError::WatchdogAlone);
        }
        let failures = table.failures.unwrap_or(DEFAULT_FAILURES);
        if !(1..=MAX_FAILURES).contains(&failures) {
            return Err(HealthError::Failures(failures));
        }
        if table.disable == Some(true) {
            return Err(HealthError::Disabled);
        }
        Ok(Self {
            probe,
            interval: table.interval.unwrap_or(Interval::DEFAULT_HEALTH),
            timeout: table.timeout.unwrap_or(Interval::DEFAULT_HEALTH_TIMEOUT),
            failures,
            ready_within: table.ready_within.unwrap_or(Interval::DEFAULT_READY_WITHIN),
            on_unhealthy: table.on_unhealthy.unwrap_or_default(),
        })
    }
}

impl TryFrom<Table> for HealthSource {
    type Error = HealthError;

    fn try_from(table: Table) -> Result<Self, HealthError> {
        let disabled_alone = Table {
            disable: Some(true),
            ..Table::default()
        };
        if table == disabled_alone {
            return Ok(Self::Disabled);
        }
        Health::try_from(table).map(Self::Probe)
    }
}

impl From<Health> for Table {
    fn from(health: Health) -> Self {
        let mut table = Self {
            interval: Some(health.interval),
            timeout: Some(health.timeout),
            failures: Some(health.failures),
            ready_within: Some(health.ready_within),
            on_unhealthy: Some(health.on_unhealthy),
            ..Self::default()
        };
        match health.probe {
            HealthProbe::Http(url) => table.http = Some(url),
            HealthProbe::Tcp(port) => table.tcp = Some(port),
            HealthProbe::Command(command) => table.command = Some(command),
            HealthProbe::Notify { watchdog } => {
                return Self {
                    notify: Some(true),
                    watchdog,
                    interval: None,
                    timeout: None,
                    failures: None,
                    ..table
                };
            }
        }
        table
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
        assert_eq!(health.failures, 3);
        assert_eq!(health.on_unhealthy, OnUnhealthy::Report);
        for json in [
            "{}",
            r#"{"tcp": 1, "http": "http://127.0.0.1/"}"#,
            r#"{"tcp": 1, "command": ["/check"]}"#,
        ] {
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
        let others = r#""timeout":"1s","failures":2,"ready_within":"5m","on_unhealthy":"restart"}"#;
        for json in [
            r#"{"http":"http://127.0.0.1:8080/health","interval":"5s","#,
            r#"{"tcp":5432,"interval":"30s","#,
            r#"{"command":["/check","-q"],"interval":"30s","#,
        ] {
            let json = format!("{json}{others}");
            let health: Health = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&health).unwrap(), json);
        }
        for json in [
            r#"{"notify":true,"watchdog":"30s","ready_within":"5m","on_unhealthy":"end"}"#,
            r#"{"notify":true,"ready_within":"10m","on_unhealthy":"report"}"#,
        ] {
            let health: Health = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&health).unwrap(), json);
        }
    }

    #[test]
    fn a_table_that_means_nothing_is_refused_with_what_would() {
        let read = |json| serde_json::from_str::<HealthSource>(json);
        assert_eq!(
            read(r#"{"disable": true}"#).unwrap(),
            HealthSource::Disabled
        );
        for (json, part) in [
            (r#"{"tcp": 1, "failures": 0}"#, "1 to 1000"),
            (r#"{"tcp": 1, "failures": 1001}"#, "1 to 1000"),
            (r#"{"tcp": 1, "disable": true}"#, "remove it"),
            (r#"{"disable": false}"#, "needs one probe"),
            (r#"{"command": []}"#, "command is empty"),
            (r#"{"notify": false}"#, "needs one probe"),
            (r#"{"notify": true, "tcp": 1}"#, "needs one probe"),
            (
                r#"{"notify": true, "timeout": "1s"}"#,
                "`timeout` is that of",
            ),
            (r#"{"tcp": 1, "watchdog": "1s"}"#, "add `notify = true`"),
            (r#"{"tcp": 1, "on_unhealthy": "reboot"}"#, "`restart`"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
        // Measured, there is a probe or no table.
        assert!(serde_json::from_str::<Health>(r#"{"disable": true}"#).is_err());
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
