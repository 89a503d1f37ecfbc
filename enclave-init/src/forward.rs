//! One TCP connection inside, one channel outside, bytes in between.

use std::io;
use std::time::Duration;

use link::copy::{Buffers, JoinError, Socket};
use link::places::Activity;
use link::target::{Connect, MAX_HOST, Refusal, Reply};
use link::{Channel, Endpoint, Stream, Text, connect, copy, frame, hello};
use plain_text::plain;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The agent resolves and dials before it answers.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// What a direction reads into while bytes keep coming, and what it reads into when so
/// many others do so that their buffers, 4 MiB, would be much of a small enclave's memory.
const BUFFER: usize = 32 * 1024;
const SMALL_BUFFER: usize = 4 * 1024;
const MAX_BUFFERS: usize = 128;
/// Buffers that are kept for the next burst.
const KEPT_BUFFERS: usize = 8;

static BUFFERS: Buffers = Buffers::new(BUFFER, SMALL_BUFFER, MAX_BUFFERS, KEPT_BUFFERS);

/// Why there is no connection to a destination.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) reason: String,
}

/// Asks the agent for a connection to `host` and `port`, over this kind of channel.
pub(crate) async fn open(
    agent: &Endpoint,
    channel: Channel,
    host: &str,
    port: u16,
) -> Result<Stream, Refused> {
    let unreachable = |error: &dyn ToString| Refused {
        refusal: Refusal::Unreachable,
        reason: error.to_string(),
    };
    let mut stream = connect(agent, CONNECT_TIMEOUT)
        .await
        .map_err(|error| unreachable(&error))?;
    hello::open(&mut stream, channel)
        .await
        .map_err(|error| unreachable(&error))?;
    let request = Connect {
        host: Text::<MAX_HOST>::new(host),
        port,
    };
    let exchange = async {
        frame::write(&mut stream, &request, frame::MAX_TARGET).await?;
        frame::read(&mut stream, frame::MAX_TARGET).await
    };
    match timeout(REPLY_TIMEOUT, exchange).await {
        Ok(Ok(Reply::Connected)) => Ok(stream),
        Ok(Ok(Reply::Refused { refusal, reason })) => Err(Refused {
            refusal,
            // The parent's words: they go into records and answers as plain text.
            reason: plain(&reason),
        }),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(Refused {
            refusal: Refusal::TimedOut,
            reason: "the parent did not answer".to_owned(),
        }),
    }
}

/// Copies both ways until both sides have closed, either has failed, or the connection
/// has lost its place.
pub(crate) async fn join(
    inside: TcpStream,
    outside: Stream,
    activity: &Activity,
) -> Result<(), JoinError> {
    copy::join(inside, outside, activity, &BUFFERS, |_| {}, |_| {}).await
}

/// Copies one way until that side has closed.
pub(crate) async fn pump(
    from: &impl Socket,
    to: &impl Socket,
    activity: &Activity,
) -> io::Result<()> {
    copy::pump(from, to, &BUFFERS, &|_| activity.touch()).await
}

#[cfg(test)]
mod tests {
    use link::places::Places;
    use tokio::net::{TcpListener, UnixStream};

    use super::*;

    #[tokio::test]
    async fn an_idle_connection_holds_no_large_buffer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let workload = TcpStream::connect(listener.local_addr().unwrap());
        let (_peer, outside) = UnixStream::pair().unwrap();
        let place = Places::new(1, 1).take(()).unwrap();
        let joined = join(
            workload.await.unwrap(),
            Stream::Unix(outside),
            place.activity(),
        );
        assert!(size_of_val(&joined) < 8 * 1024, "{}", size_of_val(&joined));
    }
}
