//! Connections to a service: TLS over a connection of the agent's, one request at a time,
//! kept for the next.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use link::places::Place;
use manifest::HttpsEndpoint;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::CallError;
use crate::egress::Egress;

/// Most calls to a service at a time, and so connections.
const MAX_CALLS: usize = 32;
/// Most that wait for their turn; with those that are made they are fewer than the local
/// API's connections, so that a service which does not answer leaves some for the rest.
const MAX_WAITING: usize = 16;
/// How long a call waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the handshake of TLS may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept without a call: AWS ends them after a minute.
const MAX_IDLE: Duration = Duration::from_secs(45);
/// Memory for the head of an answer.
const MAX_HEAD: usize = 32 * 1024;

/// A request's body.
pub(super) type Body = Full<Bytes>;

/// The connections to one service.
#[derive(Debug)]
pub(super) struct Connections {
    places: Semaphore,
    turns: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection on which the next request can be sent.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    /// The task that drives the connection has the place; it may lose it.
    place: Weak<Place<String>>,
}

/// A call's turn, until it is dropped.
pub(super) struct Turn<'a> {
    _turn: SemaphorePermit<'a>,
    _place: SemaphorePermit<'a>,
}

/// Calls that are being made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) open: u32,
    /// Those of them that wait for their turn.
    pub(crate) waiting: u32,
}

/// How connections are made.
pub(super) struct Connector<'a> {
    pub(super) egress: &'a Egress,
    pub(super) tls: &'a Arc<ClientConfig>,
    pub(super) endpoint: &'a HttpsEndpoint,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            places: Semaphore::new(MAX_CALLS + MAX_WAITING),
            turns: Semaphore::new(MAX_CALLS),
            idle: Mutex::default(),
        }
    }
}

impl Connections {
    /// Waits for a turn, but not for ever.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, CallError> {
        let busy = || CallError::Busy(MAX_CALLS);
        let place = self.places.try_acquire().map_err(|_| busy())?;
        let turn = timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or_else(busy)?;
        Ok(Turn {
            _turn: turn,
            _place: place,
        })
    }

    /// The calls that are being made.
    pub(super) fn load(&self) -> Load {
        let taken =
            |all: usize, left: usize| u32::try_from(all.saturating_sub(left)).unwrap_or(u32::MAX);
        let open = taken(MAX_CALLS + MAX_WAITING, self.places.available_permits());
        let turns = taken(MAX_CALLS, self.turns.available_permits());
        Load {
            open,
            waiting: open.saturating_sub(turns),
        }
    }

    /// A connection that was kept and still stands. Those that were kept too long are
    /// closed.
    pub(super) fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < MAX_IDLE && !idle.connection.sender.is_closed());
        idle.pop().map(|idle| idle.connection)
    }

    /// Keeps a connection whose answer has been read.
    pub(super) fn keep(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(Idle { connection, since });
    }
}

/// A request that came to nothing, and the request if none of it was sent.
pub(super) struct Unsent {
    pub(super) request: Option<Request<Body>>,
    pub(super) error: hyper::Error,
}

impl Connection {
    /// Sends a request; the answer's body comes later.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Unsent> {
        if let Some(place) = self.place.upgrade() {
            place.activity().touch();
        }
        if let Err(error) = self.sender.ready().await {
            let request = Some(request);
            return Err(Unsent { request, error });
        }
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut unsent| Unsent {
                request: unsent.take_message(),
                error: unsent.into_error(),
            })
    }
}

impl Connector<'_> {
    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, CallError> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        let endpoint = || format!("{host}:{port}");
        let unreachable = |reason: String| CallError::Unreachable {
            endpoint: endpoint(),
            reason,
        };
        let failed = |reason: String| CallError::Tls {
            endpoint: endpoint(),
            reason,
        };
        let (place, stream) = self
            .egress
            .open(host, port)
            .await
            .map_err(|refused| unreachable(refused.reason))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| unreachable(error.to_string()))?;
        let tls = TlsConnector::from(Arc::clone(self.tls)).connect(name, stream);
        let tls = timeout(TLS_TIMEOUT, tls)
            .await
            .map_err(|_| failed(format!("it took longer than {} s", TLS_TIMEOUT.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        let (sender, driven) = Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let place = Arc::new(place);
        let held = Arc::downgrade(&place);
        tokio::spawn(async move {
            tokio::select! {
                // How it ends is the business of who sends over it.
                _ = driven => {}
                () = place.activity().evicted() => {}
            }
        });
        Ok(Connection {
            sender,
            place: held,
        })
    }
}
