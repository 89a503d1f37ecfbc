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

use link::{Endpoint, Listener, port};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::exit::Exit;
use crate::hypervisor::CID_ANY;
use crate::notify::Notifier;
use crate::state::check_private;

pub use registration::{Registration, RegistrationError};
pub use server::{Accept, Dispatcher};
pub use table::Counts;

/// Where agents register, in a folder that only root can enter.
pub const SOCKET: &str = "/run/enclave-vsock/dispatch.sock";

/// Listens for all enclaves of this instance, until SIGTERM or SIGINT.
pub async fn run() -> Result<Exit, Error> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Error::system("signals cannot be received"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(Error::system("signals cannot be received"))?;
    let notifier = Notifier::from_environment();
    let socket = Path::new(SOCKET);
    make_folder(socket)?;
    let mut ports = Vec::new();
    for port in [port::AGENT, port::HEARTBEAT] {
        let endpoint = Endpoint::Vsock { cid: CID_ANY, port };
        let listener = Listener::bind(&endpoint).map_err(|source| Error::Socket {
            path: endpoint.to_string(),
            source,
        })?;
        ports.push((port, listener));
    }
    let dispatcher = Dispatcher::start(socket, ports).map_err(|source| Error::Socket {
        path: SOCKET.to_owned(),
        source,
    })?;
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
fn make_folder(socket: &Path) -> Result<(), Error> {
    let Some(folder) = socket.parent() else {
        return Ok(());
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(Error::Socket {
            path: SOCKET.to_owned(),
            source,
        }),
        _ => Ok(check_private(folder)?),
    }
}
