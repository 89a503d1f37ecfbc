//! The receiver, connected to when there is something to send.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aws_smithy_runtime_api::client::dns::{ResolveDns, SharedDnsResolver};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};
use tokio::time::timeout;

use crate::config::SyslogAddress;
use crate::{ErrorClass, SendError};

/// How long a name, a connection or a write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A receiver of messages.
pub(super) struct Receiver {
    address: SyslogAddress,
    resolver: SharedDnsResolver,
    socket: Option<Socket>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(Box<BufWriter<TcpStream>>),
    Unix(UnixDatagram),
}

impl Receiver {
    pub(super) fn new(address: SyslogAddress, resolver: SharedDnsResolver) -> Self {
        Self {
            address,
            resolver,
            socket: None,
        }
    }

    /// Sends a message. After an error, the next one goes over a new socket.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        let sending = async {
            let mut socket = match self.socket.take() {
                Some(socket) => socket,
                None => self.connect().await?,
            };
            socket.send(message).await?;
            self.socket = Some(socket);
            Ok(())
        };
        let sent = timeout(TIMEOUT, sending).await;
        failure(sent)
    }

    /// Hands over what is still buffered.
    pub(super) async fn flush(&mut self) -> Result<(), SendError> {
        let flushing = async {
            if let Some(mut socket) = self.socket.take() {
                socket.flush().await?;
                self.socket = Some(socket);
            }
            Ok(())
        };
        let flushed = timeout(TIMEOUT, flushing).await;
        failure(flushed)
    }

    async fn connect(&self) -> io::Result<Socket> {
        match &self.address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Socket::Unix(socket))
            }
            SyslogAddress::Udp(host, port) => {
                let address = self.resolve(host, *port).await?;
                let any: IpAddr = match address {
                    SocketAddr::V4(_) => [0; 4].into(),
                    SocketAddr::V6(_) => [0_u16; 8].into(),
                };
                let socket = UdpSocket::bind((any, 0)).await?;
                socket.connect(address).await?;
                Ok(Socket::Udp(socket))
            }
            SyslogAddress::Tcp(host, port) => {
                let stream = TcpStream::connect(self.resolve(host, *port).await?).await?;
                Ok(Socket::Tcp(Box::new(BufWriter::new(stream))))
            }
        }
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<SocketAddr> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, port));
        }
        let found = self.resolver.resolve_dns(host).await.map_err(|error| {
            // Its own words only say that a name was looked up.
            let reason = error.source().unwrap_or(&error);
            io::Error::other(reason.to_string())
        })?;
        let address = found
            .into_iter()
            .next()
            .ok_or_else(|| io::Error::other("the name has no address"))?;
        Ok(SocketAddr::new(address, port))
    }
}

impl Socket {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).await.map(drop),
            Self::Unix(socket) => socket.send(message).await.map(drop),
            Self::Tcp(stream) => {
                // A receiver that has closed is noticed before more is given to it.
                match stream.get_ref().try_read(&mut [0; 64]) {
                    Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
                stream
                    .write_all(format!("{} ", message.len()).as_bytes())
                    .await?;
                stream.write_all(message).await
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Udp(_) | Self::Unix(_) => Ok(()),
            Self::Tcp(stream) => stream.flush().await,
        }
    }
}

fn failure(result: Result<io::Result<()>, tokio::time::error::Elapsed>) -> Result<(), SendError> {
    let what = "the syslog receiver cannot be reached";
    result
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| SendError::io(ErrorClass::Connection, what, &error))
}
