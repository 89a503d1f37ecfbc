//! Destinations that an option moves elsewhere.

use std::net::SocketAddr;
use std::str::FromStr;

use manifest::{Port, host_spelling};
use thiserror::Error;

/// A destination moved by `--connect-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTo {
    /// The host that the enclave asks for, in lower case.
    pub host: String,
    /// The port that the enclave asks for.
    pub port: u16,
    /// Where it is connected to.
    pub address: SocketAddr,
}

impl FromStr for ConnectTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || "write HOST:PORT=ADDR:PORT, as in api.example.com:443=127.0.0.1:8443".to_owned();
        let (target, address) = text.split_once('=').ok_or_else(malformed)?;
        let (host, port) = target.rsplit_once(':').ok_or_else(malformed)?;
        let port: Port = port.parse().map_err(|_| malformed())?;
        if host.is_empty() {
            return Err(malformed());
        }
        Ok(Self {
            host: host_spelling(host),
            port: port.get(),
            address: address.parse().map_err(|_| malformed())?,
        })
    }
}

/// A destination of `--connect-to` that the image does not connect to: the option moves
/// connections and allows none.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "--connect-to names {host}:{port}, to which the image's manifest allows no connection: add it to [network] egress in enclave.toml, or name a destination that is there"
)]
pub struct ConnectToError {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_moved() {
        let moved: ConnectTo = "API.example.com.:443=127.0.0.1:8443".parse().unwrap();
        assert_eq!(moved.host, "api.example.com");
        assert_eq!(moved.port, 443);
        assert_eq!(moved.address, "127.0.0.1:8443".parse().unwrap());
        for bad in [
            "",
            "a:1",
            "a=127.0.0.1:1",
            "a:1=b:2",
            ":1=127.0.0.1:1",
            "a:0=127.0.0.1:1",
        ] {
            assert!(bad.parse::<ConnectTo>().is_err(), "{bad}");
        }
    }
}
