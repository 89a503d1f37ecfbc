//! Finding the parent, and the heartbeat that tells it of our start.

use std::io;
use std::time::Duration;

use link::port::{AGENT, HEARTBEAT, HEARTBEAT_BYTE, HOST_CID, INIT, PARENT_CID};
use link::{Endpoint, Stream, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::error::InitError;
use crate::sim::Descriptors;

/// How long the parent is looked for.
pub(crate) const FIND_TIMEOUT: Duration = Duration::from_secs(30);
/// One attempt: connecting to a context that nobody has takes 2 s to fail.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);

/// Where a parent may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Search {
    /// At one of vsock's context identifiers.
    Vsock,
    /// Behind the sockets of a simulation.
    Simulated(Descriptors),
}

/// The parent, once found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent {
    /// Over vsock, with this context identifier.
    Vsock(u32),
    /// Over the sockets of a simulation.
    Simulated(Descriptors),
}

impl Parent {
    /// Where the agent serves control, logs and egress.
    pub(crate) fn agent(&self) -> Endpoint {
        self.port(AGENT)
    }

    /// Where the init listens for ingress.
    pub(crate) fn ingress(&self) -> Endpoint {
        match self {
            Self::Vsock(_) => Endpoint::Vsock {
                cid: u32::MAX,
                port: INIT,
            },
            Self::Simulated(descriptors) => descriptors.own(INIT),
        }
    }

    fn port(&self, port: u32) -> Endpoint {
        match self {
            Self::Vsock(cid) => Endpoint::Vsock { cid: *cid, port },
            Self::Simulated(descriptors) => descriptors.parent(port),
        }
    }
}

/// Finds who answers the heartbeat: context 3 on Nitro, 2 in other virtual
/// machines. Both are tried at once, for at most [`FIND_TIMEOUT`].
pub(crate) async fn find(search: &Search) -> Result<Parent, InitError> {
    let found = async {
        match search {
            Search::Simulated(descriptors) => {
                let parent = Parent::Simulated(*descriptors);
                until_answered(&parent.port(HEARTBEAT)).await;
                parent
            }
            Search::Vsock => {
                let (nitro, host) = (Parent::Vsock(PARENT_CID), Parent::Vsock(HOST_CID));
                let (on_nitro, on_host) = (nitro.port(HEARTBEAT), host.port(HEARTBEAT));
                tokio::select! {
                    () = until_answered(&on_nitro) => nitro,
                    () = until_answered(&on_host) => host,
                }
            }
        }
    };
    timeout(FIND_TIMEOUT, found)
        .await
        .map_err(|_| InitError::NoParent)
}

async fn until_answered(endpoint: &Endpoint) {
    while beat(endpoint).await.is_err() {
        sleep(ATTEMPT_INTERVAL).await;
    }
}

async fn beat(endpoint: &Endpoint) -> io::Result<()> {
    let mut stream: Stream = connect(endpoint, ATTEMPT_TIMEOUT).await?;
    let exchange = async {
        stream.write_all(&[HEARTBEAT_BYTE]).await?;
        stream.read_u8().await
    };
    match timeout(ATTEMPT_TIMEOUT, exchange).await?? {
        HEARTBEAT_BYTE => Ok(()),
        other => Err(io::Error::other(format!(
            "the heartbeat was answered with {other:#04x}"
        ))),
    }
}
