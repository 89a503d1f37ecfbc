//! Where one side of a connection is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// An address on one of the transports.
///
/// Written `vsock:CID:PORT`, `unix:PATH` or `unix-connect:PATH:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An `AF_VSOCK` address.
    Vsock {
        /// Context identifier of the machine.
        cid: u32,
        /// Port on it.
        port: u32,
    },
    /// A Unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
    /// A port behind a Unix socket that multiplexes a virtual machine's vsock
    /// ports: the connector writes `CONNECT <port>\n` and reads `OK <port>\n`,
    /// as `vhost-device-vsock` and Firecracker speak it. Connect only.
    UnixConnect {
        /// The multiplexer's path.
        path: PathBuf,
        /// Port in the virtual machine.
        port: u32,
    },
}

/// Why a text is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not an endpoint: write `vsock:CID:PORT`, `unix:PATH` or `unix-connect:PATH:PORT`"
)]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError(text.to_owned());
        let (scheme, rest) = text.split_once(':').ok_or_else(malformed)?;
        let number = |text: &str| {
            // `parse` alone would take a sign.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u32>().ok().filter(|_| digits);
            number.ok_or_else(malformed)
        };
        match scheme {
            "vsock" => {
                let (cid, port) = rest.split_once(':').ok_or_else(malformed)?;
                Ok(Self::Vsock {
                    cid: number(cid)?,
                    port: number(port)?,
                })
            }
            "unix" if !rest.is_empty() => Ok(Self::Unix { path: rest.into() }),
            "unix-connect" => {
                let (path, port) = rest.rsplit_once(':').ok_or_else(malformed)?;
                if path.is_empty() {
                    return Err(malformed());
                }
                Ok(Self::UnixConnect {
                    path: path.into(),
                    port: number(port)?,
                })
            }
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
            Self::UnixConnect { path, port } => {
                write!(f, "unix-connect:{}:{port}", path.display())
            }
        }
    }
}
