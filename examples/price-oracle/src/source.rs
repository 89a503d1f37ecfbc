//! Where prices come from: an HTTPS server outside the enclave.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig};

use crate::config::{RuntimeConfig, Upstream};
use crate::http::{HttpError, exchange};
use crate::names::{NameError, Names};
use crate::quote::{Pair, Quote};
use crate::source_key::{SIGNATURE_HEADER, SourceKey, TIME_HEADER};

/// How long a fetch may take, from the name's look-up to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// The source of prices.
///
/// It is found by its name, in the enclave's own DNS, and believed by the
/// certificate that one of the configured authorities signed. The connection
/// passes through the parent instance, which sees ciphertext.
#[derive(Clone)]
pub struct Source {
    upstream: Upstream,
    tls: TlsConnector,
    names: Names,
    key: Option<SourceKey>,
}

/// Why there is no price.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The TLS library refused its configuration.
    #[error("TLS cannot be configured: {0}")]
    Configuration(#[source] rustls::Error),
    /// The source's name has no address here.
    #[error("{0}; does enclave.toml allow it under egress?")]
    Name(#[from] NameError),
    /// The source cannot be reached.
    #[error("{host}:{port} cannot be reached: {source}")]
    Connect {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// The operating system's reason.
        source: io::Error,
    },
    /// TLS failed, most likely because no configured authority vouches for the certificate.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The name.
        host: String,
        /// The TLS library's reason.
        source: io::Error,
    },
    /// The conversation failed.
    #[error("{host}: {source}")]
    Http {
        /// The name.
        host: String,
        /// Why.
        source: HttpError,
    },
    /// The source has no price.
    #[error("{host} answered {status}")]
    Status {
        /// The name.
        host: String,
        /// The status.
        status: StatusCode,
    },
    /// The source's answer is not a quote of the pair.
    #[error("{host} did not answer with a price of {pair}: {reason}")]
    Answer {
        /// The name.
        host: String,
        /// The pair that was asked for.
        pair: Pair,
        /// What is wrong with it.
        reason: String,
    },
    /// The source took too long.
    #[error("{host} did not answer within {} s", FETCH_TIMEOUT.as_secs())]
    TimedOut {
        /// The name.
        host: String,
    },
}

impl Source {
    /// The source that the configuration names; with a key, requests are signed.
    pub fn new(
        config: RuntimeConfig,
        names: Names,
        key: Option<SourceKey>,
    ) -> Result<Self, SourceError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(SourceError::Configuration)?
            .with_root_certificates(config.authorities)
            .with_no_client_auth();
        Ok(Self {
            upstream: config.upstream,
            tls: TlsConnector::from(Arc::new(tls)),
            names,
            key,
        })
    }

    /// Fetches the price of `pair`.
    pub async fn fetch(&self, pair: &Pair) -> Result<Quote, SourceError> {
        timeout(FETCH_TIMEOUT, self.request(pair))
            .await
            .unwrap_or_else(|_| Err(SourceError::TimedOut { host: self.host() }))
    }

    async fn request(&self, pair: &Pair) -> Result<Quote, SourceError> {
        let stream = self.connect().await?;
        let name = ServerName::DnsName(self.upstream.host.clone());
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .map_err(|source| SourceError::Tls {
                host: self.host(),
                source,
            })?;
        let answer = |reason: String| SourceError::Answer {
            host: self.host(),
            pair: pair.clone(),
            reason,
        };
        let request = self.get(pair).map_err(|error| answer(error.to_string()))?;
        let response = exchange(stream, request, MAX_ANSWER)
            .await
            .map_err(|source| SourceError::Http {
                host: self.host(),
                source,
            })?;
        if response.status() != StatusCode::OK {
            return Err(SourceError::Status {
                host: self.host(),
                status: response.status(),
            });
        }
        let quote: Quote =
            serde_json::from_slice(response.body()).map_err(|error| answer(error.to_string()))?;
        if quote.pair != *pair {
            return Err(answer(format!("it quotes {}", quote.pair)));
        }
        Ok(quote)
    }

    /// Connects to the first of the name's addresses that answers.
    async fn connect(&self) -> Result<TcpStream, SourceError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.names.look_up(&self.host()).await? {
            match TcpStream::connect((address, self.upstream.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(SourceError::Connect {
            host: self.host(),
            port: self.upstream.port,
            source: last,
        })
    }

    fn get(&self, pair: &Pair) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let Upstream { host, port, path } = &self.upstream;
        let path = format!("{path}{pair}");
        let mut request = Request::builder();
        if let Some(key) = &self.key {
            let time = OffsetDateTime::now_utc().unix_timestamp();
            request = request
                .header(TIME_HEADER, time)
                .header(SIGNATURE_HEADER, key.sign(&path, time));
        }
        request
            .uri(Uri::try_from(path)?)
            .header(
                HOST,
                HeaderValue::try_from(format!("{}:{port}", host.as_ref()))?,
            )
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(Full::default())
    }

    fn host(&self) -> String {
        self.upstream.host.as_ref().to_owned()
    }
}
