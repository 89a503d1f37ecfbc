//! Where an enclave's connections come from.

use std::io;

use link::{Listener, Stream};

use crate::dispatch::Registration;

/// The connections of an enclave to one port.
#[derive(Debug)]
pub enum Incoming {
    /// This process listens itself.
    Own(Listener),
    /// A dispatcher listens for all enclaves.
    Dispatched(Registration),
}

impl Incoming {
    /// The next connection, and the peer's context identifier where it has one.
    /// Cancellation safe.
    pub(crate) async fn accept(&mut self) -> io::Result<(Stream, Option<u32>)> {
        match self {
            Self::Own(listener) => listener.accept().await,
            Self::Dispatched(registration) => registration.accept().await,
        }
    }
}
