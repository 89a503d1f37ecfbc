//! A TLS server beside the endpoint, for whose key the document is to vouch.

use std::fmt;
use std::str::FromStr;

use hyper::http::uri::Authority;

use crate::dial::dial;
use crate::endpoint::EndpointError;
use crate::error::FetchError;
use crate::tls::Tls;

/// Longest text that an error repeats, in characters.
const MAX_SHOWN: usize = 253;

/// Where a TLS server listens, as text `HOST:PORT` or `[ADDRESS]:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServer {
    /// A name or an address, without brackets.
    host: String,
    port: u16,
}

impl TlsServer {
    /// The `SubjectPublicKeyInfo` of the server's certificate, DER, whose key it has
    /// shown to hold.
    pub(crate) async fn key(&self, tls: &Tls) -> Result<Vec<u8>, FetchError> {
        let stream = dial(self, &self.host, self.port).await?;
        let (_, key) = tls.connect(&self.host, stream).await?;
        Ok(key)
    }
}

impl FromStr for TlsServer {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = |reason: &str| EndpointError::TlsServer {
            text: text.chars().take(MAX_SHOWN).collect(),
            reason: reason.to_owned(),
        };
        let authority: Authority = text
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user's name"));
        }
        let port = authority
            .port_u16()
            .filter(|port| *port != 0)
            .ok_or_else(|| wrong("it names no port"))?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_server_is_a_host_and_a_port() {
        for text in ["enclave.example:8443", "127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(text.parse::<TlsServer>().unwrap().to_string(), text);
        }
        for text in [
            "",
            ":443",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:443/path",
            "https://host:443",
            "user@host:443",
            "a b:1",
        ] {
            let error = text.parse::<TlsServer>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
