//! Names as the enclave's DNS knows them.
//!
//! `getaddrinfo` does not work in a static binary, so the resolver is a library;
//! it reads the same `/etc/resolv.conf`.

use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use thiserror::Error;

/// The enclave's DNS.
#[derive(Clone)]
pub struct Names(TokioResolver);

/// Why a name has no address.
#[derive(Debug, Error)]
pub enum NameError {
    /// There is no configuration to start from.
    #[error("/etc/resolv.conf cannot be used: {0}")]
    Configuration(#[source] Box<NetError>),
    /// The name does not exist here.
    #[error("the enclave's DNS does not know {0}")]
    Unknown(String),
    /// The question was not answered.
    #[error("the enclave's DNS did not answer for {host}: {source}")]
    Failed {
        /// The name.
        host: String,
        /// The resolver's reason.
        source: Box<NetError>,
    },
}

impl Names {
    /// The DNS that `/etc/resolv.conf` names.
    pub fn system() -> Result<Self, NameError> {
        let configuration = |error| NameError::Configuration(Box::new(error));
        let mut builder = TokioResolver::builder_tokio().map_err(configuration)?;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4Only;
        options.attempts = 1;
        builder.build().map(Self).map_err(configuration)
    }

    /// The addresses of `host`.
    pub async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        // The final dot keeps search domains out of it.
        match self.0.lookup_ip(format!("{host}.")).await {
            Ok(addresses) => Ok(addresses.iter().collect()),
            Err(error) if error.is_no_records_found() => Err(NameError::Unknown(host.to_owned())),
            Err(source) => Err(NameError::Failed {
                host: host.to_owned(),
                source: Box::new(source),
            }),
        }
    }
}

impl From<TokioResolver> for Names {
    fn from(resolver: TokioResolver) -> Self {
        Self(resolver)
    }
}
