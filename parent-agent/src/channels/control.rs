//! The control channel: what the init reports, and what it is told.

use link::Stream;
use link::control::{FromAgent, FromInit};
use link::frame::{FrameError, MAX_CONTROL, Reader, Writer};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tracing::warn;

use crate::event::Event;
use crate::throttle::Line;

/// Most messages that wait to be sent to the init.
const MAX_OUTGOING: usize = 64;
/// How long the first message may take after the hello.
const BOOT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the init may take to read one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one control connection to its end.
pub(super) async fn serve(stream: Stream, connection: u64, events: &mpsc::Sender<Event>) {
    let (read, write) = tokio::io::split(stream);
    let mut reader = Reader::new(read, MAX_CONTROL);
    let first = timeout(BOOT_TIMEOUT, reader.receive::<FromInit>()).await;
    let (boot, version) = match first {
        Ok(Ok(Some(FromInit::Boot { boot, version }))) => (boot, version.to_string()),
        Ok(Ok(_)) => {
            if Line::Control.may_be_written() {
                warn!("a control connection did not begin with its boot and was closed");
            }
            return;
        }
        Ok(Err(error)) => {
            if Line::Control.may_be_written() {
                warn!(%error, "a control connection failed at its beginning");
            }
            return;
        }
        Err(_) => {
            if Line::Control.may_be_written() {
                warn!("a control connection said nothing and was closed");
            }
            return;
        }
    };
    let (sender, outgoing) = mpsc::channel(MAX_OUTGOING);
    let connected = Event::Connected {
        connection,
        boot,
        version,
        sender,
    };
    if events.send(connected).await.is_err() {
        return;
    }
    let ended = tokio::select! {
        result = receive(reader, connection, events) => result,
        result = send(Writer::new(write, MAX_CONTROL), outgoing) => result,
    };
    if let Err(error) = ended
        && Line::Control.may_be_written()
    {
        warn!(%error, "the control connection has failed");
    }
    // The supervisor may have ended first.
    let _ = events.send(Event::Disconnected { connection }).await;
}

async fn receive<R: tokio::io::AsyncRead + Unpin>(
    mut reader: Reader<R>,
    connection: u64,
    events: &mpsc::Sender<Event>,
) -> Result<(), FrameError> {
    while let Some(message) = reader.receive().await? {
        let event = Event::Message {
            connection,
            message,
        };
        if events.send(event).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends until the supervisor wants the connection closed.
async fn send<W: tokio::io::AsyncWrite + Unpin>(
    mut writer: Writer<W>,
    mut outgoing: mpsc::Receiver<FromAgent>,
) -> Result<(), FrameError> {
    while let Some(message) = outgoing.recv().await {
        timeout(SEND_TIMEOUT, writer.send(&message))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    }
    Ok(())
}
