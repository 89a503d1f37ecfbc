//! What an agent listens on.

use std::path::Path;
use std::sync::Arc;

use link::{Endpoint, Listener};
use tokio::net::TcpListener;

use crate::channels::Incoming;
use crate::cli::logs::MetricsAddress;
use crate::dispatch::{self, Registration};
use crate::error::Error;
use crate::metrics;
use crate::status::Board;

/// Serves metrics at the address, until the future is dropped.
pub(super) async fn metrics(
    address: MetricsAddress,
    board: Arc<Board>,
) -> Result<impl Future<Output = ()>, Error> {
    let MetricsAddress(address) = address;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| Error::Socket {
        path: address.to_string(),
        source,
    })?;
    Ok(metrics::serve(listener, board))
}

/// The connections of the enclave `peer` to `endpoint`: from the dispatcher of
/// vsock connections where there is one.
pub(super) async fn incoming(endpoint: &Endpoint, peer: Option<u32>) -> Result<Incoming, Error> {
    match (endpoint, peer) {
        (Endpoint::Unix { path }, _) => remove_stale(path),
        (Endpoint::Vsock { port, .. }, Some(cid)) => {
            let socket = Path::new(dispatch::SOCKET);
            if socket.exists() {
                let registration = Registration::open(socket, cid, *port).await?;
                return Ok(Incoming::Dispatched(registration));
            }
        }
        _ => {}
    }
    let listener = Listener::bind(endpoint).map_err(|source| Error::Socket {
        path: endpoint.to_string(),
        source,
    });
    listener.map(Incoming::Own)
}

/// Removes the file of a socket that an agent which was killed has left. Nobody
/// else listens in an enclave's folder, which this agent alone has.
pub(super) fn remove_stale(path: &Path) {
    // If it is there still, binding says so.
    let _ = std::fs::remove_file(path);
}
