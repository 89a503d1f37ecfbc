//! Attempts to leave the enclave past its allowlist, to show how they end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use hyper::header::HOST;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::exchange;
use crate::names::Names;

/// How long an attempt may take before it counts as left unanswered.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest explanation that is read from the proxy, in bytes.
const MAX_ANSWER: usize = 4 * 1024;

/// A destination that exists in the world and that no rule of `enclave.toml` allows.
const FORBIDDEN_HOST: &str = "example.com";
const FORBIDDEN_PORT: u16 = 443;
/// The instance metadata service of EC2, which hands out the parent's credentials.
const FORBIDDEN_ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// What is attempted.
#[derive(Clone)]
pub struct Probe {
    /// The host that is looked up, and asked of the proxy.
    pub host: String,
    /// The port that is asked of the proxy.
    pub port: u16,
    /// The address that is connected to without a name.
    pub address: SocketAddr,
    /// The proxy, if there is one.
    pub proxy: Option<SocketAddr>,
    /// The enclave's DNS.
    pub names: Names,
}

/// How the attempts ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Each attempt.
    pub attempts: Vec<Attempt>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The way that was tried.
    pub way: Way,
    /// The destination.
    pub destination: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The reason as the program sees it.
    pub reason: String,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// A way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// A name, looked up in DNS.
    Name,
    /// `CONNECT` through the proxy.
    Proxy,
    /// An address, without a name.
    Address,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was turned away.
    Refused,
    /// Nobody answered.
    TimedOut,
    /// It got out.
    Open,
}

impl Probe {
    /// Attempts on destinations that no rule allows.
    pub fn new(names: Names, proxy: Option<SocketAddr>) -> Self {
        Self {
            host: FORBIDDEN_HOST.to_owned(),
            port: FORBIDDEN_PORT,
            address: FORBIDDEN_ADDRESS,
            proxy,
            names,
        }
    }

    /// Tries every way, one after the other.
    pub async fn run(&self) -> ProbeReport {
        let named = format!("{}:{}", self.host, self.port);
        let mut attempts = vec![attempt(Way::Name, named.clone(), self.by_name()).await];
        if let Some(proxy) = self.proxy {
            let by_proxy = by_proxy(proxy, &named);
            attempts.push(attempt(Way::Proxy, named.clone(), by_proxy).await);
        }
        let by_address = connect(self.address);
        attempts.push(attempt(Way::Address, self.address.to_string(), by_address).await);
        ProbeReport { attempts }
    }

    async fn by_name(&self) -> Result<(), String> {
        let addresses = self.names.look_up(&self.host).await;
        match addresses.map_err(|error| error.to_string())?.first() {
            Some(address) => connect(SocketAddr::new(*address, self.port)).await,
            None => Err("the name has no address".to_owned()),
        }
    }
}

async fn attempt(
    way: Way,
    destination: String,
    attempt: impl Future<Output = Result<(), String>>,
) -> Attempt {
    let start = Instant::now();
    let (outcome, reason) = match timeout(ATTEMPT_TIMEOUT, attempt).await {
        Ok(Ok(())) => (Outcome::Open, "connected".to_owned()),
        Ok(Err(reason)) => (Outcome::Refused, reason),
        Err(_) => (
            Outcome::TimedOut,
            format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()),
        ),
    };
    Attempt {
        way,
        destination,
        outcome,
        reason,
        took_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
    }
}

async fn connect(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect(address)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Asks the proxy for a tunnel (RFC 9110, section 9.3.6).
async fn by_proxy(proxy: SocketAddr, destination: &str) -> Result<(), String> {
    let stream = TcpStream::connect(proxy)
        .await
        .map_err(|error| format!("proxy: {error}"))?;
    let request = Request::connect(destination)
        .header(HOST, destination)
        .body(Full::default())
        .map_err(|error| error.to_string())?;
    let response = exchange(stream, request, MAX_ANSWER)
        .await
        .map_err(|error| format!("proxy: {error}"))?;
    if response.status().is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(response.body());
    Err(format!("proxy: {}: {}", response.status(), body.trim()))
}
