//! The enclave's first sign of life: one byte, sent back as it came.

use std::io;
use std::time::Duration;

use link::port::HEARTBEAT_BYTE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Incoming, is_enclave};
use crate::event::Event;
use crate::throttle::Line;

/// How long a connection may take to send its byte.
const BYTE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after an error that the next connection would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers the heartbeats of the enclave `peer`, one connection at a time, and
/// reports them.
pub(super) async fn serve(mut incoming: Incoming, peer: Option<u32>, events: mpsc::Sender<Event>) {
    loop {
        let mut stream = match incoming.accept().await {
            Ok((stream, found)) if is_enclave(peer, found) => stream,
            Ok((_, found)) => {
                if Line::Stranger.may_be_written() {
                    warn!(?found, "a heartbeat that is not the enclave's was closed");
                }
                continue;
            }
            Err(error) => {
                if Line::AcceptFailed.may_be_written() {
                    warn!(%error, "cannot accept a heartbeat");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match timeout(BYTE_TIMEOUT, answer(&mut stream)).await {
            Ok(Ok(())) => {
                if events.send(Event::Heartbeat).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => debug!(%error, "no heartbeat came"),
            Err(_) => debug!("no heartbeat came in time"),
        }
    }
}

async fn answer(stream: &mut link::Stream) -> io::Result<()> {
    let byte = stream.read_u8().await?;
    if byte != HEARTBEAT_BYTE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{byte:#04x} instead of {HEARTBEAT_BYTE:#04x}"),
        ));
    }
    stream.write_u8(byte).await?;
    stream.flush().await
}
