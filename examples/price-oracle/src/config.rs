//! What the service is told: by its environment, and by the runtime
//! configuration, which is measured into PCR16 before the service starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use serde::Deserialize;
use thiserror::Error;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, DnsName};

/// The variable that names the local API.
pub const API_VARIABLE: &str = "ENCLAVE_API";
/// The variable that names the file with the runtime configuration.
pub const RUNTIME_CONFIG_VARIABLE: &str = "ENCLAVE_RUNTIME_CONFIG";
/// The variable that names the proxy for outgoing connections.
pub const PROXY_VARIABLE: &str = "HTTPS_PROXY";

/// The most certificate authorities in one configuration.
const MAX_AUTHORITIES: usize = 16;
const HTTPS_PORT: u16 = 443;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Where the local API listens.
    pub api: SocketAddr,
    /// The file with the runtime configuration.
    pub runtime_config: PathBuf,
    /// Where the proxy for outgoing connections listens, if there is one.
    pub proxy: Option<SocketAddr>,
}

/// The runtime configuration: where prices come from, and whom to believe that
/// they do.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// The source.
    pub upstream: Upstream,
    /// Who may vouch for the source; nobody else is believed.
    pub authorities: RootCertStore,
}

/// A folder on an HTTPS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The server's name.
    pub host: DnsName<'static>,
    /// The server's port.
    pub port: u16,
    /// The folder's path, from slash to slash.
    pub path: String,
}

/// Why the service cannot be configured.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A variable is missing.
    #[error("{0} is not set: this program runs in an enclave, where enclave-init sets it")]
    Missing(&'static str),
    /// A variable is not `http://ADDRESS:PORT`.
    #[error("{variable} = `{value}` is not `http://ADDRESS:PORT`")]
    Address {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
    /// There is no runtime configuration.
    #[error(
        "there is no runtime configuration: start the enclave with `parent-agent run --runtime-config FILE`, and {{\"upstream\": \"https://…/\", \"ca\": \"PEM\"}} in the file"
    )]
    Empty,
    /// The runtime configuration is not JSON of the right form.
    #[error("the runtime configuration cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The URL is not one of a folder on an HTTPS server.
    #[error(
        "`upstream` is `{0}`: write an https URL with a host name that ends in a slash, as in `https://prices.example/v1/`"
    )]
    Upstream(String),
    /// No certificate authority can be read.
    #[error("`ca` cannot be used: {0}; it needs 1 to {MAX_AUTHORITIES} certificates in PEM")]
    Authorities(String),
}

impl Environment {
    /// Reads the variables, each through `variable`.
    pub fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, ConfigError> {
        let required = |name| variable(name).ok_or(ConfigError::Missing(name));
        Ok(Self {
            api: address(API_VARIABLE, &required(API_VARIABLE)?)?,
            runtime_config: required(RUNTIME_CONFIG_VARIABLE)?.into(),
            proxy: variable(PROXY_VARIABLE)
                .map(|value| address(PROXY_VARIABLE, &value))
                .transpose()?,
        })
    }
}

impl RuntimeConfig {
    /// Reads the configuration from the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            upstream: String,
            ca: String,
        }
        if bytes.is_empty() {
            return Err(ConfigError::Empty);
        }
        let fields: Fields = serde_json::from_slice(bytes)?;
        Ok(Self {
            upstream: fields.upstream.parse()?,
            authorities: authorities(&fields.ca)?,
        })
    }
}

impl FromStr for Upstream {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let malformed = || ConfigError::Upstream(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        let https = uri.scheme_str() == Some("https");
        if !https
            || uri.query().is_some()
            || authority.as_str().contains('@')
            || !uri.path().ends_with('/')
        {
            return Err(malformed());
        }
        Ok(Self {
            host: DnsName::try_from(authority.host().to_owned()).map_err(|_| malformed())?,
            port: match authority.port_u16() {
                Some(0) => return Err(malformed()),
                Some(port) => port,
                // What looks like a port and is none is no port to `http`.
                None if authority.as_str() == authority.host() => HTTPS_PORT,
                None => return Err(malformed()),
            },
            path: uri.path().to_owned(),
        })
    }
}

fn authorities(pem: &str) -> Result<RootCertStore, ConfigError> {
    let refused = |reason: String| ConfigError::Authorities(reason);
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        if store.len() == MAX_AUTHORITIES {
            return Err(refused("it holds too many certificates".to_owned()));
        }
        store
            .add(certificate)
            .map_err(|error| refused(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(refused("it holds no certificate".to_owned()));
    }
    Ok(store)
}

fn address(variable: &'static str, value: &str) -> Result<SocketAddr, ConfigError> {
    value
        .strip_prefix("http://")
        .and_then(|address| address.strip_suffix('/').unwrap_or(address).parse().ok())
        .ok_or_else(|| ConfigError::Address {
            variable,
            value: value.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn config(upstream: &str, ca: &str) -> Result<RuntimeConfig, ConfigError> {
        let json = serde_json::json!({ "upstream": upstream, "ca": ca });
        RuntimeConfig::parse(json.to_string().as_bytes())
    }

    #[test]
    fn reads_a_configuration() {
        let read = config("https://prices.example:8443/v1/", &ca()).unwrap();
        assert_eq!(read.upstream.host.as_ref(), "prices.example");
        assert_eq!(read.upstream.port, 8443);
        assert_eq!(read.upstream.path, "/v1/");
        assert_eq!(read.authorities.len(), 1);
        let read = config("https://prices.example/", &ca()).unwrap();
        assert_eq!(
            (read.upstream.port, read.upstream.path.as_str()),
            (443, "/")
        );
    }

    #[test]
    fn refuses_what_is_not_a_folder_on_an_https_server() {
        for upstream in [
            "",
            "prices.example",
            "http://prices.example/",
            "https://prices.example/v1",
            "https://prices.example/?q=/",
            "https://user@prices.example/",
            "https://192.0.2.1/",
            "https://prices.example:0x1/",
            "https://prices.example:0/",
        ] {
            let error = config(upstream, &ca()).unwrap_err();
            assert!(
                matches!(error, ConfigError::Upstream(_)),
                "{upstream}: {error}"
            );
        }
    }

    #[test]
    fn refuses_authorities_that_are_none() {
        let broken = ca().replace("MII", "AAA");
        let many = ca().repeat(MAX_AUTHORITIES + 1);
        for ca in ["", "no PEM", &broken, &many] {
            let error = config("https://prices.example/", ca).unwrap_err();
            assert!(matches!(error, ConfigError::Authorities(_)), "{error}");
        }
    }

    #[test]
    fn refuses_other_json() {
        assert!(matches!(RuntimeConfig::parse(b""), Err(ConfigError::Empty)));
        for json in ["{}", "[]", r#"{"upstream":"https://a.b/","ca":"","x":1}"#] {
            let error = RuntimeConfig::parse(json.as_bytes()).unwrap_err();
            assert!(matches!(error, ConfigError::Json(_)), "{json}: {error}");
        }
    }

    #[test]
    fn reads_the_environment() {
        let full = |name| match name {
            API_VARIABLE => Some("http://198.18.0.1:7070".to_owned()),
            RUNTIME_CONFIG_VARIABLE => Some("/run/config".to_owned()),
            PROXY_VARIABLE => Some("http://198.18.0.1:3128/".to_owned()),
            _ => None,
        };
        let environment = Environment::read(full).unwrap();
        assert_eq!(environment.api.port(), 7070);
        assert_eq!(environment.proxy.unwrap().port(), 3128);

        let without_proxy = |name| full(name).filter(|_| name != PROXY_VARIABLE);
        assert_eq!(Environment::read(without_proxy).unwrap().proxy, None);

        let error = Environment::read(|_| None).unwrap_err();
        assert!(matches!(error, ConfigError::Missing(API_VARIABLE)));
        let elsewhere = |name| full(name).map(|value| value.replace("http", "ftp"));
        let error = Environment::read(elsewhere).unwrap_err();
        assert!(matches!(error, ConfigError::Address { .. }), "{error}");
    }
}
