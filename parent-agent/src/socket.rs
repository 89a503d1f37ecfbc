//! Sockets that the agent listens on.

use std::fmt::Display;
use std::io;
use std::path::Path;

use thiserror::Error;

/// Why a socket cannot be listened on.
#[derive(Debug, Error)]
#[error("the socket {at} cannot be made: {source}")]
pub struct SocketError {
    at: String,
    source: io::Error,
}

impl SocketError {
    /// The error of the socket at this path or address.
    pub(crate) fn at(at: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            at: at.to_string(),
            source,
        }
    }
}

/// Removes the file of a socket that an agent which was killed has left. Nobody
/// else listens in an enclave's folder, which this agent alone has.
pub(crate) fn remove_stale(path: &Path) {
    // If it is there still, binding says so.
    let _ = std::fs::remove_file(path);
}
