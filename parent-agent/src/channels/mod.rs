//! The connections that the enclave opens to its agent.

pub mod allowlist;
pub mod control;
mod datagrams;
pub mod egress;
mod heartbeat;
mod incoming;
pub mod logs;

use std::sync::Arc;
use std::time::Duration;

use link::hello::{self, HelloError};
use link::{Channel, Endpoint, Stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::channels::egress::Egress;
use crate::channels::logs::Logs;
use crate::event::Event;
use crate::limit::{Bucket, Rate};
use crate::throttle::{self, Line};

pub use incoming::{Incoming, IncomingError};

/// Most connections that have not said yet what they are for; others wait to be accepted.
const MAX_GREETING: usize = 256;
/// Control connections: the init opens one, and another when it is lost.
const CONTROL_RATE: Rate = Rate::constant(5, 20);
/// Connections that are neither being greeted nor one of the egress connections that the
/// limit allows: control, logs, and those that have not named their target yet.
const OTHER_CONNECTIONS: usize = 512;
/// How long to wait after an error that the next connection would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the channels share.
#[derive(Debug)]
pub struct Channels {
    /// Where the supervisor listens.
    pub events: mpsc::Sender<Event>,
    /// Where log records go.
    pub logs: Arc<Logs>,
    /// Where the workload may connect to.
    pub egress: Arc<Egress>,
    /// The enclave's context identifier, where connections have one.
    pub peer: Option<u32>,
}

/// Whether a connection from `found` may be the enclave's, which is `expected`.
pub(crate) fn is_enclave(expected: Option<u32>, found: Option<u32>) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => expected == found,
        // Sockets in a folder that only its owner can enter name nobody.
        _ => true,
    }
}

impl Channels {
    /// Listens where the enclave looks for its agent, and adds what serves it to
    /// `tasks`.
    pub(crate) async fn open(
        self,
        agent: &Endpoint,
        heartbeat: &Endpoint,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), IncomingError> {
        let (peer, events) = (self.peer, self.events.clone());
        tasks.spawn(throttle::summarise());
        tasks.spawn(Arc::new(self).serve(Incoming::open(agent, peer).await?));
        let heartbeats = Incoming::open(heartbeat, peer).await?;
        tasks.spawn(heartbeat::serve(heartbeats, peer, events));
        Ok(())
    }

    /// Serves the agent's port until the future is dropped.
    pub async fn serve(self: Arc<Self>, mut incoming: Incoming) {
        let greeting = Arc::new(Semaphore::new(MAX_GREETING));
        let mut connections = JoinSet::new();
        let max = self.egress.connections() + OTHER_CONNECTIONS;
        let control_bucket = Arc::new(Bucket::new(CONTROL_RATE));
        let mut number = 0;
        loop {
            let Ok(place) = Arc::clone(&greeting).acquire_owned().await else {
                return;
            };
            let stream = match incoming.accept().await {
                Ok((stream, peer)) if is_enclave(self.peer, peer) => stream,
                Ok((_, peer)) => {
                    if Line::Stranger.may_be_written() {
                        warn!(?peer, "a connection that is not the enclave's was closed");
                    }
                    continue;
                }
                Err(error) => {
                    if Line::AcceptFailed.may_be_written() {
                        warn!(%error, "cannot accept a connection of the enclave");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            if connections.len() >= max {
                if Line::EgressRefused.may_be_written() {
                    warn!("a connection of the enclave was closed: it has {max} already");
                }
                continue;
            }
            number += 1;
            let (channels, control_bucket) = (Arc::clone(&self), Arc::clone(&control_bucket));
            connections.spawn(async move {
                if let Some((stream, channel)) = channels.greet(stream).await {
                    drop(place);
                    if channel == Channel::Control && !control_bucket.take(Instant::now()) {
                        if Line::Control.may_be_written() {
                            warn!("a control connection was closed: new ones come too fast");
                        }
                        return;
                    }
                    channels.carry(stream, channel, number).await;
                }
            });
        }
    }

    async fn greet(&self, mut stream: Stream) -> Option<(Stream, Channel)> {
        match hello::accept(&mut stream, |channel| channel != Channel::Ingress).await {
            Ok(channel) => Some((stream, channel)),
            Err(error @ (HelloError::Version { .. } | HelloError::Magic(_))) => {
                let _ = self
                    .events
                    .send(Event::Incompatible(error.to_string()))
                    .await;
                None
            }
            Err(error) => {
                debug!(%error, "a connection of the enclave came to nothing");
                None
            }
        }
    }

    async fn carry(&self, stream: Stream, channel: Channel, number: u64) {
        match channel {
            Channel::Control => control::serve(stream, number, &self.events).await,
            Channel::Logs => {
                if let Err(error) = self.logs.serve(stream).await
                    && Line::Logs.may_be_written()
                {
                    warn!(%error, "the log connection has ended");
                }
            }
            Channel::Egress => self.egress.serve(stream).await,
            Channel::Records => self.egress.answer(stream).await,
            Channel::Datagrams => datagrams::serve(&self.egress, stream).await,
            // Not accepted by the hello.
            Channel::Ingress => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_enclave_itself_is_served() {
        assert!(is_enclave(Some(20), Some(20)));
        assert!(!is_enclave(Some(20), Some(21)));
        // The instance itself, through its own vsock device.
        assert!(!is_enclave(Some(20), Some(1)));
        assert!(is_enclave(Some(20), None));
        assert!(is_enclave(None, None));
    }
}
