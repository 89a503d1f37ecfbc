//! Connections from the workload to destinations outside.

use std::net::SocketAddr;
use std::time::Duration;

use link::frame::{self, MAX_TARGET};
use link::target::{Connect, Refusal, Reply};
use link::{Stream, Text};
use manifest::EgressRule;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::copy;
use crate::resolve::{ResolveError, Resolver};
use crate::traffic::{Counts, Destinations};

/// How long the target may take to arrive after the hello, and the reply to be read.
const TARGET_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where connections that no rule allows are counted: their names are the
/// enclave's to make up.
const NOT_ALLOWED: &str = "(not allowed)";

/// The agent's own copy of the allowlist, and what it takes to follow it.
#[derive(Debug)]
pub struct Egress {
    rules: Vec<EgressRule>,
    resolver: Resolver,
    places: Semaphore,
    destinations: Destinations,
}

/// Why a connection was refused.
struct Refused {
    refusal: Refusal,
    reason: String,
}

impl Egress {
    /// Allows what `rules` allow, at most `connections` at a time.
    pub fn new(rules: Vec<EgressRule>, resolver: Resolver, connections: usize) -> Self {
        Self {
            rules,
            resolver,
            places: Semaphore::new(connections),
            destinations: Destinations::default(),
        }
    }

    /// What each destination has cost.
    pub fn counts(&self) -> Vec<(String, Counts)> {
        self.destinations.read()
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(&self, mut stream: Stream) {
        let read = frame::read::<_, Connect>(&mut stream, MAX_TARGET);
        let target = match timeout(TARGET_TIMEOUT, read).await {
            Ok(Ok(target)) => target,
            Ok(Err(error)) => {
                debug!(%error, "an egress connection named no target");
                return;
            }
            Err(_) => return,
        };
        let destination = format!("{}:{}", target.host.escape_debug(), target.port);
        let allowed = self
            .rules
            .iter()
            .any(|rule| rule.matches(&target.host, target.port));
        let key = if allowed { &destination } else { NOT_ALLOWED };
        let traffic = self.destinations.get(key);
        let place = self.places.try_acquire();
        let dialled = match (allowed, &place) {
            (false, _) => Err(Refused {
                refusal: Refusal::NotAllowed,
                reason: format!(
                    "no egress rule of the manifest allows {destination}; the init should have refused it already"
                ),
            }),
            (true, Err(_)) => Err(Refused {
                refusal: Refusal::Busy,
                reason: "too many egress connections are open".to_owned(),
            }),
            (true, Ok(_)) => self.dial(&target.host, target.port).await,
        };
        let reply = match &dialled {
            Ok(_) => Reply::Connected,
            Err(Refused { refusal, reason }) => {
                traffic.refuse();
                warn!(destination, reason, "egress refused");
                Reply::Refused {
                    refusal: *refusal,
                    reason: Text::new(reason.as_str()),
                }
            }
        };
        let sent = timeout(
            TARGET_TIMEOUT,
            frame::write(&mut stream, &reply, MAX_TARGET),
        );
        let (Ok(Ok(())), Ok(tcp)) = (sent.await, dialled) else {
            return;
        };
        let open = traffic.joined();
        if let Err(error) = copy::join(stream, tcp, &open.0.out, &open.0.into).await {
            debug!(%error, destination, "an egress connection has failed");
        }
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, Refused> {
        let addresses = self
            .resolver
            .addresses(host, port)
            .await
            .map_err(|error| Refused {
                refusal: match error {
                    ResolveError::Forbidden { .. } => Refusal::NotAllowed,
                    ResolveError::TimedOut(_) => Refusal::TimedOut,
                    ResolveError::NotFound(_) | ResolveError::Failed { .. } => {
                        Refusal::NameNotFound
                    }
                },
                reason: error.to_string(),
            })?;
        let mut refused = None;
        for address in addresses {
            match timeout(CONNECT_TIMEOUT, connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => {
                    refused = Some(Refused {
                        refusal: Refusal::Unreachable,
                        reason: format!("{address}: {error}"),
                    });
                }
                Err(_) => {
                    refused = Some(Refused {
                        refusal: Refusal::TimedOut,
                        reason: format!(
                            "{address} did not accept within {} s",
                            CONNECT_TIMEOUT.as_secs()
                        ),
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| Refused {
            refusal: Refusal::NameNotFound,
            reason: format!("{host} has no address"),
        }))
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A peer that vanished is noticed some day.
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}
