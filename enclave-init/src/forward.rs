//! One TCP connection inside, one channel outside, bytes in between.

use std::time::Duration;

use link::target::{Connect, MAX_HOST, Refusal, Reply};
use link::{Channel, Endpoint, Stream, Text, connect, frame, hello};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::time::timeout;

/// Most connections in each direction.
pub(crate) const MAX_CONNECTIONS: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The agent resolves and dials before it answers.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
const COPY_BYTES: usize = 32 * 1024;

/// Why there is no connection to a destination.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) reason: String,
}

/// Asks the agent for a connection to `host` and `port`.
pub(crate) async fn open(agent: &Endpoint, host: &str, port: u16) -> Result<Stream, Refused> {
    let unreachable = |error: &dyn ToString| Refused {
        refusal: Refusal::Unreachable,
        reason: error.to_string(),
    };
    let mut stream = connect(agent, CONNECT_TIMEOUT)
        .await
        .map_err(|error| unreachable(&error))?;
    hello::open(&mut stream, Channel::Egress)
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
            reason: reason.to_string(),
        }),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(Refused {
            refusal: Refusal::TimedOut,
            reason: "the parent did not answer".to_owned(),
        }),
    }
}

/// Copies both ways until both sides have closed.
pub(crate) async fn join<A, B>(mut inside: A, mut outside: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // A broken connection ends for both sides when they are dropped.
    let _ = copy_bidirectional_with_sizes(&mut inside, &mut outside, COPY_BYTES, COPY_BYTES).await;
}
