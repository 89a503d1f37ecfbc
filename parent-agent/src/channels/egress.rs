//! Connections from the workload to destinations outside.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use link::copy::JoinError;
use link::frame::{self, MAX_TARGET};
use link::places::{Place, Places};
use link::records::{Answer, MAX_ANSWER, Question};
use link::target::{Connect, Refusal, Reply};
use link::{Stream, Text};
use manifest::{Protocol, host_spelling};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::allowlist::Allowlist;
use crate::copy;
use crate::limit::{Bucket, Rate};
use crate::resolve::{ResolveError, Resolver};
use crate::throttle::Line;
use crate::traffic::{Counts, Destinations, Traffic};

/// How long the target may take to arrive after the hello, and the reply to be read.
const TARGET_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an address may be silent before the next is tried beside it: RFC 8305,
/// section 8.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Most questions about records at a time.
const MAX_QUESTIONS: usize = 64;
/// Where connections that no rule allows are counted: their names are the
/// enclave's to make up.
const NOT_ALLOWED: &str = "(not allowed)";

/// The agent's own copy of the allowlist, and what it takes to follow it.
#[derive(Debug)]
pub struct Egress {
    allowlist: Allowlist,
    resolver: Resolver,
    /// Shared by the destinations.
    places: Arc<Places<String>>,
    bucket: Option<Bucket>,
    questions: Semaphore,
    destinations: Destinations,
}

/// Where a connection is to lead, in the one spelling that rules, places and counts
/// know: the letters' case and the root's dot make no other destination.
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) port: u16,
    protocol: Protocol,
}

impl Destination {
    fn new(Connect { host, port }: Connect, protocol: Protocol) -> Self {
        Self {
            host: host_spelling(&host),
            port,
            protocol,
        }
    }
}

/// For people: the name is the enclave's to make up.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.escape_debug();
        write!(f, "{host}:{}{}", self.port, self.protocol)
    }
}

/// Why a connection was refused.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) reason: String,
}

/// What was allowed and reached.
pub(super) struct Admitted<T> {
    pub(super) outside: T,
    pub(super) destination: String,
    pub(super) place: Place<String>,
    pub(super) traffic: Arc<Traffic>,
}

impl Egress {
    /// Allows what `allowlist` allows, at most `connections` at a time, and new ones
    /// at this rate.
    pub fn new(
        allowlist: impl Into<Allowlist>,
        resolver: Resolver,
        connections: usize,
        rate: Option<Rate>,
    ) -> Self {
        Self {
            allowlist: allowlist.into(),
            resolver,
            places: Places::shared(connections),
            bucket: rate.map(Bucket::new),
            questions: Semaphore::new(MAX_QUESTIONS),
            destinations: Destinations::default(),
        }
    }

    /// What each destination has cost.
    pub fn counts(&self) -> Vec<(String, Counts)> {
        self.destinations.read()
    }

    /// Connections at a time.
    pub(super) fn connections(&self) -> usize {
        self.places.total()
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(&self, mut stream: Stream) {
        let dial = async |target: &Destination| self.dial(target).await;
        let admitted = self.admit(&mut stream, Protocol::Tcp, dial).await;
        let Some(Admitted {
            outside,
            destination,
            place,
            traffic,
        }) = admitted
        else {
            return;
        };
        let open = traffic.joined();
        let activity = place.activity();
        match copy::join(stream, outside, activity, &open.0.out, &open.0.into).await {
            Ok(()) => {}
            Err(error @ JoinError::Evicted) => {
                traffic.evict();
                if Line::Evicted.may_be_written() {
                    warn!(destination, reason = %error, "an egress connection was closed");
                }
            }
            Err(JoinError::Io(error)) => {
                debug!(%error, destination, "an egress connection has failed");
            }
        }
    }

    /// Reads where to, reaches it if that is allowed and there is room, and replies.
    pub(super) async fn admit<T>(
        &self,
        stream: &mut Stream,
        protocol: Protocol,
        reach: impl AsyncFnOnce(&Destination) -> Result<T, Refused>,
    ) -> Option<Admitted<T>> {
        let read = frame::read::<_, Connect>(stream, MAX_TARGET);
        let target = match timeout(TARGET_TIMEOUT, read).await {
            Ok(Ok(target)) => Destination::new(target, protocol),
            Ok(Err(error)) => {
                debug!(%error, "an egress connection named no target");
                return None;
            }
            Err(_) => return None,
        };
        let destination = target.to_string();
        let allowed = self
            .allowlist
            .allows_over(&target.host, target.port, protocol);
        let key = if allowed { &destination } else { NOT_ALLOWED };
        let traffic = self.destinations.get(key);
        let place = allowed.then(|| self.places.take(destination.clone()));
        let reached = match &place {
            None => Err(Refused {
                refusal: Refusal::NotAllowed,
                reason: format!(
                    "no egress rule of the manifest allows {destination}, nor an AWS service that is open here"
                ),
            }),
            Some(Err(_)) => Err(Refused {
                refusal: Refusal::Busy,
                reason: "too many egress connections are open".to_owned(),
            }),
            Some(Ok(_)) if !self.admits() => Err(Refused {
                refusal: Refusal::Busy,
                reason: "new egress connections come too fast".to_owned(),
            }),
            Some(Ok(_)) => reach(&target).await,
        };
        let reply = match &reached {
            Ok(_) => Reply::Connected,
            Err(Refused { refusal, reason }) => {
                match refusal {
                    Refusal::Busy => traffic.limit(),
                    _ => traffic.refuse(),
                }
                warn_refused(&destination, reason);
                Reply::Refused {
                    refusal: *refusal,
                    reason: Text::new(reason.as_str()),
                }
            }
        };
        let sent = timeout(TARGET_TIMEOUT, frame::write(stream, &reply, MAX_TARGET));
        let (Ok(Ok(())), Ok(outside), Some(Ok(place))) = (sent.await, reached, place) else {
            return None;
        };
        Some(Admitted {
            outside,
            destination,
            place,
            traffic,
        })
    }

    /// Answers one question about a name's records.
    pub(super) async fn answer(&self, mut stream: Stream) {
        let read = frame::read::<_, Question>(&mut stream, MAX_TARGET);
        let Ok(Ok(Question { name, kind })) = timeout(TARGET_TIMEOUT, read).await else {
            return;
        };
        let refused = |refusal, reason: String| {
            warn_refused(&name.escape_debug().to_string(), &reason);
            Answer::Refused {
                refusal,
                reason: Text::new(reason),
            }
        };
        let answer = if !self.allowlist.allows_records(&name) {
            self.destinations.get(NOT_ALLOWED).refuse();
            let reason = "no egress rule of the manifest has this name, nor an AWS service that is open here";
            refused(Refusal::NotAllowed, reason.to_owned())
        } else if let Ok(_place) = self.questions.try_acquire() {
            match self.resolver.records(&name, kind).await {
                Ok(answer) => answer,
                Err(error) => refused(refusal(&error), error.to_string()),
            }
        } else {
            let reason = format!("{MAX_QUESTIONS} questions about records wait for an answer");
            refused(Refusal::Busy, reason)
        };
        let sent = timeout(
            TARGET_TIMEOUT,
            frame::write(&mut stream, &answer, MAX_ANSWER),
        );
        if let Ok(Err(error)) = sent.await {
            debug!(%error, "an answer about records was not taken");
        }
    }

    /// The addresses of a destination, of which there may be none.
    pub(super) async fn addresses(&self, target: &Destination) -> Result<Vec<SocketAddr>, Refused> {
        let found = self.resolver.addresses(&target.host, target.port).await;
        found.map_err(|error| Refused {
            refusal: refusal(&error),
            reason: error.to_string(),
        })
    }

    fn admits(&self) -> bool {
        self.bucket
            .as_ref()
            .is_none_or(|bucket| bucket.take(Instant::now()))
    }

    async fn dial(&self, target: &Destination) -> Result<TcpStream, Refused> {
        let addresses = self.addresses(target).await?;
        let host = &target.host;
        dial(addresses).await.map_err(|failed| match failed {
            None => Refused {
                refusal: Refusal::NameNotFound,
                reason: format!("{host} has no address"),
            },
            Some((address, Some(error))) => Refused {
                refusal: Refusal::Unreachable,
                reason: format!("{address}: {error}"),
            },
            Some((address, None)) => Refused {
                refusal: Refusal::TimedOut,
                reason: format!(
                    "{address} did not accept within {} s",
                    CONNECT_TIMEOUT.as_secs()
                ),
            },
        })
    }
}

fn refusal(error: &ResolveError) -> Refusal {
    match error {
        ResolveError::Forbidden { .. } => Refusal::NotAllowed,
        ResolveError::TimedOut(_) => Refusal::TimedOut,
        ResolveError::NotFound(_) | ResolveError::Failed { .. } => Refusal::NameNotFound,
    }
}

fn warn_refused(destination: &str, reason: &str) {
    if Line::EgressRefused.may_be_written() {
        warn!(destination, reason, "egress refused");
    }
}

/// The address that failed last, and how; without an error it was too slow.
type Failed = (SocketAddr, Option<io::Error>);

/// Dials addresses until one accepts: the next one when the last has failed or
/// has been silent for a while, and both families in turn (RFC 8305, section 5).
async fn dial(addresses: Vec<SocketAddr>) -> Result<TcpStream, Option<Failed>> {
    let mut waiting = in_turn(addresses).into_iter();
    let mut attempts = JoinSet::new();
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(attempt(address));
        }
        let more = waiting.len() > 0;
        let done = tokio::select! {
            done = attempts.join_next() => done,
            () = sleep(ATTEMPT_DELAY), if more => continue,
        };
        match done {
            Some(Ok(Ok(tcp))) => return Ok(tcp),
            Some(Ok(Err(error))) => failed = Some(error),
            // Attempts do not panic, and nobody else ends them.
            Some(Err(_)) => {}
            None if more => {}
            None => return Err(failed),
        }
    }
}

async fn attempt(address: SocketAddr) -> Result<TcpStream, Failed> {
    match timeout(CONNECT_TIMEOUT, connect(address)).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(error)) => Err((address, Some(error))),
        Err(_) => Err((address, None)),
    }
}

/// Addresses of both families in turn, beginning with that of the first.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else {
        return addresses;
    };
    let (preferred, others): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let mut others = others.into_iter();
    let mut turns = Vec::new();
    for address in preferred {
        turns.push(address);
        turns.extend(others.next());
    }
    turns.extend(others);
    turns
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A peer that vanished is noticed some day.
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_are_tried_in_turn() {
        let given = addresses(&["[::1]:1", "[::1]:2", "[::1]:3", "1.1.1.1:4", "1.1.1.1:5"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:4", "[::1]:2", "1.1.1.1:5", "[::1]:3"]);
        assert_eq!(in_turn(given), expected);
        assert_eq!(in_turn(Vec::new()), []);
    }

    #[tokio::test]
    async fn a_refusal_and_a_silent_address_do_not_hold_up_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accepting = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        // Its backlog is full: further connections are not answered.
        let full = TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        let held = fill(silent).await;
        let tcp = dial(vec![silent, refusing, accepting]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), accepting);
        drop(held);
    }

    /// Connects until a connection is not answered any more.
    async fn fill(address: SocketAddr) -> Vec<TcpStream> {
        let mut held = Vec::new();
        while let Ok(tcp) = timeout(ATTEMPT_DELAY, connect(address)).await {
            held.push(tcp.unwrap());
        }
        held
    }

    #[tokio::test]
    async fn the_last_failure_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let (address, error) = dial(vec![refusing]).await.unwrap_err().unwrap();
        assert_eq!(address, refusing);
        assert_eq!(error.unwrap().kind(), io::ErrorKind::ConnectionRefused);
        assert!(dial(Vec::new()).await.unwrap_err().is_none());
    }
}
