//! One connection to the agent, from the first message to the last.

use std::time::Duration;

use link::control::{FromAgent, FromInit, MAX_RUNTIME_CONFIG};
use link::frame::{FrameError, MAX_CONTROL, Reader, Writer};
use link::hello::HelloError;
use link::{BootId, Bytes, Channel, Endpoint, Stream, Text, connect, hello};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use crate::error::InitError;
use crate::panic::Line;

/// How long the boot waits for the agent's first message.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to reach an agent that is away.
pub(super) const RECONNECT_DELAY: Duration = Duration::from_millis(200);
/// How long the agent may take to read a message, and to close the connection
/// after the last one.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection on which both sides have introduced themselves.
pub(crate) struct Session {
    /// First, so that it is dropped before the connection.
    line: Line,
    pub(super) reader: Reader<ReadHalf<Stream>>,
    writer: Writer<WriteHalf<Stream>>,
}

/// Connects for the first time, and receives the runtime configuration. An agent
/// that goes away before it has sent that may come back, or another one.
pub(crate) async fn open(
    agent: &Endpoint,
    boot: &BootId,
) -> Result<(Session, Bytes<MAX_RUNTIME_CONFIG>), InitError> {
    let mut away = "the agent sent no runtime configuration".to_owned();
    let opening = async {
        loop {
            match Session::start(agent, boot).await {
                Err(OpenError::Away(reason)) => away = reason,
                opened => return opened,
            }
            sleep(RECONNECT_DELAY).await;
        }
    };
    match timeout(START_TIMEOUT, opening).await {
        Ok(opened) => opened.map_err(|error| InitError::Control(error.into())),
        Err(_) => Err(InitError::Control(away)),
    }
}

/// Why there is no session.
pub(super) enum OpenError {
    /// No agent is there, or no longer.
    Away(String),
    /// There is one, but it and this init do not understand each other.
    Refused(String),
}

impl From<OpenError> for String {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Away(reason) | OpenError::Refused(reason) => reason,
        }
    }
}

impl From<HelloError> for OpenError {
    fn from(error: HelloError) -> Self {
        let reason = error.to_string();
        match error {
            HelloError::Io(_) | HelloError::Closed | HelloError::TimedOut | HelloError::Busy => {
                Self::Away(reason)
            }
            _ => Self::Refused(reason),
        }
    }
}

impl From<FrameError> for OpenError {
    fn from(error: FrameError) -> Self {
        let reason = error.to_string();
        match error {
            FrameError::Io(_) | FrameError::Ended => Self::Away(reason),
            _ => Self::Refused(reason),
        }
    }
}

impl Session {
    pub(super) async fn open(agent: &Endpoint, boot: &BootId) -> Result<Self, OpenError> {
        let mut stream = connect(agent, CONNECT_TIMEOUT)
            .await
            .map_err(|error| OpenError::Away(error.to_string()))?;
        hello::open(&mut stream, Channel::Control).await?;
        let line = Line::open(&stream);
        let (reader, writer) = tokio::io::split(stream);
        let mut session = Self {
            line,
            reader: Reader::new(reader, MAX_CONTROL),
            writer: Writer::new(writer, MAX_CONTROL),
        };
        let message = FromInit::Boot {
            boot: boot.clone(),
            version: Text::new(env!("CARGO_PKG_VERSION")),
        };
        session.send(&message).await.map_err(OpenError::Away)?;
        Ok(session)
    }

    /// Opens the first session, whose first message is the runtime configuration.
    async fn start(
        agent: &Endpoint,
        boot: &BootId,
    ) -> Result<(Self, Bytes<MAX_RUNTIME_CONFIG>), OpenError> {
        let mut session = Self::open(agent, boot).await?;
        match session.reader.receive().await? {
            Some(FromAgent::Start { runtime_config }) => Ok((session, runtime_config)),
            Some(_) => Err(OpenError::Refused(
                "the agent's first message is not the runtime configuration".to_owned(),
            )),
            None => Err(OpenError::Away(
                "the agent closed the connection".to_owned(),
            )),
        }
    }

    /// Sends a message of a boot that fails, before the last.
    pub(crate) async fn tell(&mut self, message: &FromInit) {
        // The last message fails too then, and the console has the reason.
        let _ = self.send(message).await;
    }

    pub(super) async fn send(&mut self, message: &FromInit) -> Result<(), String> {
        self.line.begin_frame();
        match timeout(SEND_TIMEOUT, self.writer.send(message)).await {
            Ok(result) => result.map_err(|error| error.to_string())?,
            Err(_) => {
                return Err(format!(
                    "the agent reads nothing for {} s",
                    SEND_TIMEOUT.as_secs()
                ));
            }
        }
        self.line.end_frame();
        Ok(())
    }

    /// Sends the last message of a boot that failed.
    pub(crate) async fn end(self, message: &FromInit) {
        // The console has the reason too.
        let _ = last_words(self, message).await;
    }
}

/// Sends a message and closes. The agent closes too once it has read it: then
/// the machine may end.
pub(super) async fn last_words(mut session: Session, message: &FromInit) -> Result<(), String> {
    session.send(message).await?;
    let Session {
        line,
        mut reader,
        writer,
    } = session;
    // Nothing can follow.
    drop(line);
    let closing = async {
        writer.into_inner().shutdown().await?;
        while reader.receive::<FromAgent>().await?.is_some() {}
        Ok::<_, FrameError>(())
    };
    // An agent that does not close has had its time.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
    Ok(())
}

/// Says why the boot failed before there was a session, if the parent listens.
pub(crate) async fn report_failure(agent: &Endpoint, boot: &BootId, message: &FromInit) {
    if let Ok(session) = Session::open(agent, boot).await {
        session.end(message).await;
    }
}
