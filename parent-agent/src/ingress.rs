//! Ports opened on the host and carried to the workload.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use link::copy::{JoinError, Socket};
use link::frame::{self, MAX_TARGET};
use link::places::{Place, Places};
use link::target::{Connect, Reply};
use link::{Channel, Endpoint, Text, hello};
use manifest::IngressRule;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::copy;
use crate::limit::{Bucket, Rate};
use crate::proxy_protocol;
use crate::throttle::Line;
use crate::traffic::Traffic;

/// Where ports are opened unless `--publish` says otherwise.
const DEFAULT_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 1024;
/// How long the enclave may take to accept, and to join its side.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an error that the next connection would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a port could not be opened.
#[derive(Debug, Error)]
pub enum IngressError {
    /// Another process listens there.
    #[error(
        "port {} of {} is in use: stop what listens there, or choose another with --publish PORT:{port}", .address.port(), .address.ip()
    )]
    InUse {
        /// Where it was to listen.
        address: SocketAddr,
        /// The manifest's port.
        port: u16,
    },
    /// The system refused.
    #[error(
        "port {} of {} cannot be opened: {source}; choose another with --publish [ADDRESS:]PORT:{port}", .address.port(), .address.ip()
    )]
    Bind {
        /// Where it was to listen.
        address: SocketAddr,
        /// The manifest's port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The manifest has no such port.
    #[error(
        "--publish names port {port}, which the image's manifest does not have under [network] ingress: {known}"
    )]
    Unknown {
        /// The port.
        port: u16,
        /// The ports that there are.
        known: String,
    },
}

/// A port moved by `--publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Where to listen, if not on the loopback address.
    pub address: Option<IpAddr>,
    /// The port to listen on; 0 for any free one.
    pub host_port: u16,
    /// The manifest's port.
    pub port: manifest::Port,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            "write [ADDR:]HOSTPORT:PORT, as in 18080:8080, 0.0.0.0:80:8080 or [::]:80:8080"
                .to_owned()
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let (address, host_port) = match host.rsplit_once(':') {
            Some((address, host_port)) => {
                let bare = address
                    .strip_prefix('[')
                    .and_then(|address| address.strip_suffix(']'))
                    .unwrap_or(address);
                (Some(bare.parse().map_err(|_| malformed())?), host_port)
            }
            None => (None, host),
        };
        Ok(Self {
            address,
            host_port: host_port.parse().map_err(|_| malformed())?,
            port: port.parse().map_err(|_| malformed())?,
        })
    }
}

/// A port opened on the host, as people and scripts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// Where the host listens.
    pub listen: String,
    /// The manifest's port.
    pub port: u16,
    /// The port inside the enclave.
    pub to: u16,
}

/// What all ports together may carry.
#[derive(Debug)]
pub struct Limits {
    places: Arc<Places<Client>>,
    bucket: Option<Bucket>,
}

/// Whose place it is: an IPv4 address, or the network of an IPv6 address, since whoever
/// has one address of that has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client(IpAddr);

impl From<SocketAddr> for Client {
    fn from(peer: SocketAddr) -> Self {
        Self(match peer.ip().to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl Limits {
    /// So many connections at a time, which are no more than the init carries, of which
    /// one client gets at most three quarters; and new ones at this rate. Further ones
    /// are closed.
    pub fn new(connections: usize, rate: Option<Rate>) -> Self {
        Self {
            places: Places::shared(connections),
            bucket: rate.map(Bucket::new),
        }
    }

    fn admit(&self) -> bool {
        self.bucket
            .as_ref()
            .is_none_or(|bucket| bucket.take(Instant::now()))
    }
}

/// A port that is open.
#[derive(Debug)]
pub struct IngressPort {
    rule: IngressRule,
    address: SocketAddr,
    listener: TcpListener,
    /// What it has carried.
    pub traffic: Arc<Traffic>,
}

/// Opens the ports of `rules`, moved as `publish` says.
pub fn open(
    rules: &[IngressRule],
    publish: &[Publish],
) -> Result<Vec<Arc<IngressPort>>, IngressError> {
    for Publish { port, .. } in publish {
        if !rules.iter().any(|rule| rule.port == *port) {
            let known: Vec<_> = rules.iter().map(|rule| rule.port.to_string()).collect();
            return Err(IngressError::Unknown {
                port: port.get(),
                known: match known.as_slice() {
                    [] => "it has none".to_owned(),
                    ports => format!("it has {}", ports.join(", ")),
                },
            });
        }
    }
    let mut ports = Vec::with_capacity(rules.len());
    for &rule in rules {
        let moved: Vec<_> = publish
            .iter()
            .filter(|publish| publish.port == rule.port)
            .map(|publish| {
                let address = publish.address.unwrap_or(DEFAULT_ADDRESS);
                SocketAddr::new(address, publish.host_port)
            })
            .collect();
        let addresses = if moved.is_empty() {
            vec![SocketAddr::new(DEFAULT_ADDRESS, rule.port.get())]
        } else {
            moved
        };
        for address in addresses {
            ports.push(Arc::new(bind(rule, address)?));
        }
    }
    Ok(ports)
}

fn bind(rule: IngressRule, address: SocketAddr) -> Result<IngressPort, IngressError> {
    let port = rule.port.get();
    listen(address)
        .and_then(|listener| {
            Ok(IngressPort {
                rule,
                address: listener.local_addr()?,
                listener,
                traffic: Arc::default(),
            })
        })
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => IngressError::InUse { address, port },
            _ => IngressError::Bind {
                address,
                port,
                source,
            },
        })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections of an enclave before must not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl IngressPort {
    /// The port for people and scripts.
    pub fn describe(&self) -> OpenPort {
        OpenPort {
            listen: self.address.to_string(),
            port: self.rule.port.get(),
            to: self.rule.to.get(),
        }
    }

    /// Carries connections to the init at `init` until the future is dropped, as
    /// `limits` allow.
    pub async fn serve(self: Arc<Self>, init: Endpoint, limits: Arc<Limits>) {
        let mut connections = JoinSet::new();
        loop {
            let (client, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if Line::AcceptFailed.may_be_written() {
                        warn!(%error, port = %self.address, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let admitted = if limits.admit() {
                limits
                    .places
                    .take(peer.into())
                    .map_err(|full| full.to_string())
            } else {
                Err("new ones come too fast".to_owned())
            };
            let place = match admitted {
                Ok(place) => place,
                Err(reason) => {
                    self.traffic.limit();
                    if Line::IngressRefused.may_be_written() {
                        warn!(port = %self.address, client = %peer.ip(), reason, "an ingress connection was closed");
                    }
                    client.reset_on_close();
                    continue;
                }
            };
            let (port, init) = (Arc::clone(&self), init.clone());
            connections.spawn(async move {
                port.carry(client, peer, &init, &place).await;
            });
        }
    }

    async fn carry(
        &self,
        client: TcpStream,
        peer: SocketAddr,
        init: &Endpoint,
        place: &Place<Client>,
    ) {
        // Without these a connection works, only less well.
        let _ = client.set_nodelay(true);
        let _ = setsockopt(&client, sockopt::KeepAlive, &true);
        let header = self
            .rule
            .proxy_protocol
            .then(|| proxy_protocol::header(peer, client.local_addr().unwrap_or(self.address)));
        let enclave = match timeout(JOIN_TIMEOUT, self.join(init, header)).await {
            Ok(Ok(enclave)) => enclave,
            Ok(Err(reason)) => {
                self.traffic.refuse();
                debug!(reason, port = %self.address, "a connection was not carried");
                client.reset_on_close();
                return;
            }
            Err(_) => {
                self.traffic.refuse();
                debug!(port = %self.address, "the enclave did not take a connection in time");
                client.reset_on_close();
                return;
            }
        };
        let open = self.traffic.joined();
        let activity = place.activity();
        match copy::join(client, enclave, activity, &open.0.into, &open.0.out).await {
            Ok(()) => {}
            Err(error @ JoinError::Evicted) => {
                self.traffic.evict();
                if Line::Evicted.may_be_written() {
                    warn!(port = %self.address, client = %peer.ip(), reason = %error, "an ingress connection was closed");
                }
            }
            Err(JoinError::Io(error)) => {
                debug!(%error, port = %self.address, "an ingress connection has failed");
            }
        }
    }

    /// A connection to the workload, on which the header has gone before all else.
    async fn join(&self, init: &Endpoint, header: Option<Vec<u8>>) -> Result<link::Stream, String> {
        let mut stream = link::connect(init, JOIN_TIMEOUT)
            .await
            .map_err(|error| error.to_string())?;
        hello::open(&mut stream, Channel::Ingress)
            .await
            .map_err(|error| error.to_string())?;
        let connect = Connect {
            host: Text::default(),
            port: self.rule.to.get(),
        };
        frame::write(&mut stream, &connect, MAX_TARGET)
            .await
            .map_err(|error| error.to_string())?;
        match frame::read(&mut stream, MAX_TARGET).await {
            Ok(Reply::Connected) => {}
            Ok(Reply::Refused { reason, .. }) => return Err(reason.to_string()),
            Err(error) => return Err(error.to_string()),
        }
        if let Some(header) = header {
            let written = stream.write_all(&header).await;
            written.map_err(|error| error.to_string())?;
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(port: u16) -> IngressRule {
        IngressRule {
            port: manifest::Port::new(port).unwrap(),
            to: manifest::Port::new(80).unwrap(),
            proxy_protocol: false,
        }
    }

    #[test]
    fn ports_are_published() {
        let parse = |text: &str| text.parse::<Publish>();
        assert_eq!(
            parse("18080:8080").unwrap(),
            Publish {
                address: None,
                host_port: 18080,
                port: manifest::Port::new(8080).unwrap()
            }
        );
        assert_eq!(parse("0:80").unwrap().host_port, 0);
        assert_eq!(
            parse("0.0.0.0:80:8080").unwrap().address,
            Some("0.0.0.0".parse().unwrap())
        );
        assert_eq!(
            parse("[::1]:80:8080").unwrap().address,
            Some("::1".parse().unwrap())
        );
        for bad in [
            "",
            "80",
            "80:",
            ":80",
            "x:80",
            "80:0",
            "70000:80",
            "host:80:80",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = open(&[rule(port)], &[]).unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {port} of 127.0.0.1 is in use")),
            "{error}"
        );
        let publish: Publish = format!("0:{port}").parse().unwrap();
        let ports = open(&[rule(port)], &[publish]).unwrap();
        let described = ports[0].describe();
        assert_eq!((described.port, described.to), (port, 80));
        assert_ne!(described.listen, format!("127.0.0.1:{port}"));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |address: &str| Client::from(SocketAddr::new(address.parse().unwrap(), 1));
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.2"), client("192.0.2.1"));
    }

    #[tokio::test]
    async fn an_unknown_port_is_refused() {
        let publish: Publish = "8080:81".parse().unwrap();
        let error = open(&[rule(82)], &[publish]).unwrap_err().to_string();
        assert!(
            error.contains("port 81") && error.contains("it has 82"),
            "{error}"
        );
    }
}
