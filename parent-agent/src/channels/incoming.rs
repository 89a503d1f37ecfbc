//! Where an enclave's connections come from.

use std::io;
use std::path::Path;

use link::{Endpoint, Listener, Stream};
use thiserror::Error;

use crate::dispatch::{self, Registration, RegistrationError};
use crate::socket::{SocketError, remove_stale};

/// Why an enclave's connections cannot be taken.
#[derive(Debug, Error)]
pub enum IncomingError {
    /// This process cannot listen.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The dispatcher does not pass them on.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
}

/// The connections of an enclave to one port.
#[derive(Debug)]
pub enum Incoming {
    /// This process listens itself.
    Own(Listener),
    /// A dispatcher listens for all enclaves.
    Dispatched(Registration),
}

impl Incoming {
    /// The connections of the enclave `peer` to `endpoint`: from the dispatcher of
    /// vsock connections where there is one.
    pub(super) async fn open(
        endpoint: &Endpoint,
        peer: Option<u32>,
    ) -> Result<Self, IncomingError> {
        match (endpoint, peer) {
            (Endpoint::Unix { path }, _) => remove_stale(path),
            (Endpoint::Vsock { port, .. }, Some(cid)) => {
                let socket = Path::new(dispatch::SOCKET);
                if socket.exists() {
                    let registration = Registration::open(socket, cid, *port).await?;
                    return Ok(Self::Dispatched(registration));
                }
            }
            _ => {}
        }
        let listener = Listener::bind(endpoint).map_err(SocketError::at(endpoint))?;
        Ok(Self::Own(listener))
    }

    /// The next connection, and the peer's context identifier where it has one.
    /// Cancellation safe.
    pub(crate) async fn accept(&mut self) -> io::Result<(Stream, Option<u32>)> {
        match self {
            Self::Own(listener) => listener.accept().await,
            Self::Dispatched(registration) => registration.accept().await,
        }
    }
}
