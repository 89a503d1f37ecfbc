//! One process for the vsock ports that all enclaves of an instance call.
//!
//! Every enclave connects to the same ports of its parent, which are in its
//! measured image, and vsock lets one process listen on a port. So one process
//! listens ([`run`]), looks whose context identifier a connection comes from, and
//! passes its descriptor to that enclave's agent, which has registered the
//! identifier and the port ([`Registration`]). It reads no byte of a connection,
//! and has no part in one that was passed on: enclaves and agents outlive it. An
//! agent that does not take its connections loses them, and holds up no other.

mod protocol;
mod registration;
mod server;
mod table;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use enclave_host::hypervisor::CID_ANY;
use enclave_host::state::{StateError, check_private};
use link::{Endpoint, Listener, port};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::notify::Notifier;
use crate::socket::SocketError;

pub use registration::{Registration, RegistrationError};
pub use server::{Accept, Dispatcher};
pub use table::Counts;

/// Where agents register, in a folder that only root can enter.
pub const SOCKET: &str = "/run/enclave-vsock/dispatch.sock";

/// Why there is no dispatcher.
#[derive(Debug, Error)]
pub enum DispatchError {
    /// It could not be told to end.
    #[error("signals cannot be received: {0}")]
    Signals(#[source] io::Error),
    /// It cannot listen.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Others could reach its socket.
    #[error(transparent)]
    Folder(#[from] StateError),
}

/// Listens for all enclaves of this instance, until SIGTERM or SIGINT.
pub async fn run() -> Result<Exit, DispatchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DispatchError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DispatchError::Signals)?;
    let notifier = Notifier::from_environment();
    let socket = Path::new(SOCKET);
    make_folder(socket)?;
    let mut ports = Vec::new();
    for port in [port::AGENT, port::HEARTBEAT] {
        let endpoint = Endpoint::Vsock { cid: CID_ANY, port };
        let listener = Listener::bind(&endpoint).map_err(SocketError::at(&endpoint))?;
        ports.push((port, listener));
    }
    let dispatcher = Dispatcher::start(socket, ports).map_err(SocketError::at(SOCKET))?;
    notifier.ready();
    let mut beats = notifier.beats();
    loop {
        tokio::select! {
            _ = beats.tick() => {
                let Counts { passed, unknown, untaken } = dispatcher.counts();
                notifier.alive();
                notifier.status(&format!(
                    "{passed} connections passed on; closed: {unknown} without an agent, {untaken} not taken"
                ));
            }
            _ = terminate.recv() => return Ok(Exit::Success),
            _ = interrupt.recv() => return Ok(Exit::Success),
        }
    }
}

/// Systemd has made the folder; without it, it is made here.
fn make_folder(socket: &Path) -> Result<(), DispatchError> {
    let Some(folder) = socket.parent() else {
        return Ok(());
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(SocketError::at(SOCKET)(source).into())
        }
        _ => Ok(check_private(folder)?),
    }
}
