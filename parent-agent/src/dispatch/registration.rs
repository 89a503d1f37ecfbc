//! The agent's side.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use link::Stream;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::protocol::{Answer, Register, Socket, VERSION};

/// How long the dispatcher may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts to reach it: the first one, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why an agent does not get its enclave's connections.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// The dispatcher cannot be reached, or does not answer.
    #[error("the dispatcher of vsock connections at {} cannot be asked: {source}", path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It refuses.
    #[error("the dispatcher of vsock connections refuses the enclave: {0}")]
    Refused(String),
}

/// An enclave's connections to one port, which a dispatcher passes on. A
/// dispatcher that has gone is looked for until there is one again.
#[derive(Debug)]
pub struct Registration {
    path: PathBuf,
    cid: u32,
    port: u32,
    socket: Option<Socket>,
    pause: Duration,
}

impl Registration {
    /// Registers the connections of the enclave `cid` to `port` with the
    /// dispatcher that listens at `path`. One that is about to be started again is
    /// no error.
    pub async fn open(path: &Path, cid: u32, port: u32) -> Result<Self, RegistrationError> {
        let mut registration = Self {
            path: path.to_owned(),
            cid,
            port,
            socket: None,
            pause: FIRST_PAUSE,
        };
        match registration.register().await {
            Ok(socket) => registration.socket = Some(socket),
            Err(error @ RegistrationError::Refused(_)) => return Err(error),
            Err(error) => warn!(port, "{error}; it is tried again"),
        }
        Ok(registration)
    }

    /// The next connection, and the enclave's context identifier. Cancellation
    /// safe.
    pub async fn accept(&mut self) -> io::Result<(Stream, Option<u32>)> {
        loop {
            let Some(socket) = &self.socket else {
                self.register_again().await;
                continue;
            };
            if let Some(descriptor) = socket.receive_connection().await? {
                let stream = Stream::from_descriptor(descriptor)?;
                return Ok((stream, Some(self.cid)));
            }
            warn!(
                port = self.port,
                "the dispatcher of vsock connections has gone"
            );
            self.socket = None;
        }
    }

    /// Tries once more, after a pause.
    async fn register_again(&mut self) {
        sleep(self.pause).await;
        match self.register().await {
            Ok(socket) => {
                info!(port = self.port, "registered with the dispatcher again");
                self.socket = Some(socket);
                self.pause = FIRST_PAUSE;
            }
            Err(error) => {
                let longer = (self.pause * 2).min(LONGEST_PAUSE);
                if longer != self.pause && longer == LONGEST_PAUSE {
                    warn!(port = self.port, "{error}; it is tried again every second");
                }
                self.pause = longer;
            }
        }
    }

    async fn register(&self) -> Result<Socket, RegistrationError> {
        let unreachable = |source| RegistrationError::Unreachable {
            path: self.path.clone(),
            source,
        };
        let exchange = async {
            let socket = Socket::connect(&self.path)?;
            socket.try_send(&Register {
                version: VERSION,
                cid: self.cid,
                port: self.port,
            })?;
            let answer = timeout(ANSWER_TIMEOUT, socket.receive::<Answer>()).await??;
            Ok((socket, answer))
        };
        match exchange.await.map_err(unreachable)? {
            (socket, Some(Answer::Registered)) => Ok(socket),
            (_, Some(Answer::Refused { reason })) => Err(RegistrationError::Refused(reason)),
            (_, None) => Err(unreachable(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
