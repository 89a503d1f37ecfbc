//! The control channel: what the agent asks, what it is told.

use std::time::Duration;

use link::control::{
    BootId, FromAgent, FromInit, HEALTH_INTERVAL_MS, HealthState, MAX_RUNTIME_CONFIG,
};
use link::frame::{FrameError, MAX_CONTROL, Reader, Writer};
use link::{Bytes, Channel, Endpoint, Stream, Text, connect, hello};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::error::InitError;
use crate::logs::Logs;
use crate::security_module::SecurityModule;

/// How long the boot waits for the agent's first message.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
/// Messages that wait for the agent; the oldest wait longest, a further one is dropped.
const MAX_WAITING: usize = 256;

/// A connection on which both sides have introduced themselves.
pub(crate) struct Session {
    reader: Reader<ReadHalf<Stream>>,
    writer: Writer<WriteHalf<Stream>>,
}

/// What the workload's supervision and the agent know of each other.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    messages: mpsc::Sender<FromInit>,
    health: watch::Sender<(HealthState, String)>,
    ready: watch::Sender<Option<u64>>,
}

/// A shutdown that the agent asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shutdown {
    pub(crate) grace: Option<Duration>,
}

impl Handle {
    /// Tells the agent, as soon as it listens.
    pub(crate) fn tell(&self, message: FromInit) {
        // More than the limit wait only when the agent is away for long.
        let _ = self.messages.try_send(message);
    }

    pub(crate) fn set_health(&self, state: HealthState, detail: impl Into<String>) {
        self.health.send_replace((state, detail.into()));
    }

    pub(crate) fn health(&self) -> HealthState {
        self.health.borrow().0
    }

    /// The workload is ready, this many microseconds after the start.
    pub(crate) fn set_ready(&self, at_us: u64) {
        self.ready
            .send_if_modified(|ready| ready.is_none() && ready.replace(at_us).is_none());
    }
}

/// Connects for the first time, and receives the runtime configuration.
pub(crate) async fn open(
    agent: &Endpoint,
    boot: &BootId,
) -> Result<(Session, Bytes<MAX_RUNTIME_CONFIG>), InitError> {
    let opening = async {
        let mut session = Session::open(agent, boot).await?;
        let config = session.start().await?;
        Ok((session, config))
    };
    match timeout(START_TIMEOUT, opening).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(InitError::Control(error)),
        Err(_) => Err(InitError::Control(
            "the agent sent no runtime configuration".to_owned(),
        )),
    }
}

impl Session {
    async fn open(agent: &Endpoint, boot: &BootId) -> Result<Self, String> {
        let mut stream = connect(agent, CONNECT_TIMEOUT)
            .await
            .map_err(|error| error.to_string())?;
        hello::open(&mut stream, Channel::Control)
            .await
            .map_err(|error| error.to_string())?;
        let (reader, writer) = tokio::io::split(stream);
        let mut session = Self {
            reader: Reader::new(reader, MAX_CONTROL),
            writer: Writer::new(writer, MAX_CONTROL),
        };
        let message = FromInit::Boot {
            boot: boot.clone(),
            version: Text::new(env!("CARGO_PKG_VERSION")),
        };
        session
            .writer
            .send(&message)
            .await
            .map_err(|error| error.to_string())?;
        Ok(session)
    }

    async fn start(&mut self) -> Result<Bytes<MAX_RUNTIME_CONFIG>, String> {
        match self.reader.receive().await {
            Ok(Some(FromAgent::Start { runtime_config })) => Ok(runtime_config),
            Ok(Some(_)) => {
                Err("the agent's first message is not the runtime configuration".to_owned())
            }
            Ok(None) => Err("the agent closed the connection".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sends the last message of a boot that failed.
    pub(crate) async fn end(&mut self, message: &FromInit) -> Result<(), FrameError> {
        self.writer.send(message).await
    }
}

/// Says why the boot failed before there was a session, if the parent listens.
pub(crate) async fn report_failure(agent: &Endpoint, boot: &BootId, message: &FromInit) {
    if let Ok(mut session) = Session::open(agent, boot).await {
        // The console has the reason too.
        let _ = session.end(message).await;
    }
}

/// What the channel's task needs.
pub(crate) struct Parts {
    pub(crate) agent: Endpoint,
    pub(crate) boot: BootId,
    pub(crate) nsm: SecurityModule,
    pub(crate) logs: Logs,
}

/// Starts the channel's task. The receiver yields the shutdown that the agent
/// asks for; the sender of the pair ends the task once everything is told.
pub(crate) fn start(parts: Parts, session: Session) -> (Handle, mpsc::Receiver<Shutdown>, Closing) {
    let (messages, waiting) = mpsc::channel(MAX_WAITING);
    let health = watch::Sender::new((HealthState::Starting, String::new()));
    let ready = watch::Sender::new(None);
    let (shutdowns, shutdown) = mpsc::channel(1);
    let (close, closed) = oneshot::channel();
    let task = Task {
        parts,
        waiting,
        health: health.subscribe(),
        ready: ready.subscribe(),
        shutdowns,
    };
    let task = tokio::spawn(task.run(session, closed));
    (
        Handle {
            messages,
            health,
            ready,
        },
        shutdown,
        Closing { close, task },
    )
}

/// Ends the channel.
pub(crate) struct Closing {
    close: oneshot::Sender<FromInit>,
    task: tokio::task::JoinHandle<()>,
}

impl Closing {
    /// Sends the last message and closes, within `limit`.
    pub(crate) async fn close(self, last: FromInit, limit: Duration) {
        // The task may have ended by itself.
        let _ = self.close.send(last);
        let _ = timeout(limit, self.task).await;
    }
}

struct Task {
    parts: Parts,
    waiting: mpsc::Receiver<FromInit>,
    health: watch::Receiver<(HealthState, String)>,
    ready: watch::Receiver<Option<u64>>,
    shutdowns: mpsc::Sender<Shutdown>,
}

impl Task {
    async fn run(mut self, session: Session, mut closed: oneshot::Receiver<FromInit>) {
        let mut session = Some(session);
        loop {
            let Some(current) = session.take() else {
                tokio::select! {
                    next = Session::open(&self.parts.agent, &self.parts.boot) => session = next.ok(),
                    _ = &mut closed => return,
                }
                if session.is_none() {
                    sleep(RECONNECT_DELAY).await;
                }
                continue;
            };
            // Why a session ended does not matter: the next one goes on.
            if let Ok(true) = self.serve(current, &mut closed).await {
                return;
            }
            self.parts
                .logs
                .system("control: the agent is gone; connecting again");
            self.ready.mark_changed();
        }
    }

    /// Serves one session; true when the channel is to be closed for good.
    async fn serve(
        &mut self,
        session: Session,
        closed: &mut oneshot::Receiver<FromInit>,
    ) -> Result<bool, FrameError> {
        let Session {
            mut reader,
            mut writer,
        } = session;
        let (documents, mut answered) = mpsc::channel(1);
        let mut beat = interval(Duration::from_millis(HEALTH_INTERVAL_MS));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = reader.receive() => match message? {
                    None => return Ok(false),
                    Some(FromAgent::Start { .. }) => {}
                    Some(FromAgent::Shutdown { grace_ms }) => {
                        // A second request changes nothing.
                        let _ = self.shutdowns.try_send(Shutdown { grace: grace_ms.map(Duration::from_millis) });
                    }
                    Some(FromAgent::Challenge { id, nonce, user_data, public_key }) => {
                        let (nsm, documents) = (self.parts.nsm.clone(), documents.clone());
                        tokio::spawn(async move {
                            let document = nsm
                                .run(move |nsm| nsm.attestation(user_data.as_deref(), nonce.as_deref(), public_key.as_deref()))
                                .await;
                            // The session may have ended meanwhile.
                            let _ = documents.send(answer(id, document)).await;
                        });
                    }
                },
                Some(answer) = answered.recv() => writer.send(&answer).await?,
                Some(message) = self.waiting.recv() => writer.send(&message).await?,
                Ok(()) = self.ready.changed() => {
                    let at_us = *self.ready.borrow_and_update();
                    if let Some(at_us) = at_us {
                        writer.send(&FromInit::Ready { at_us }).await?;
                    }
                }
                Ok(()) = self.health.changed() => writer.send(&health(&self.health)).await?,
                _ = beat.tick() => writer.send(&health(&self.health)).await?,
                last = &mut *closed => {
                    while let Ok(message) = self.waiting.try_recv() {
                        writer.send(&message).await?;
                    }
                    if let Ok(last) = last {
                        writer.send(&last).await?;
                    }
                    return Ok(true);
                }
            }
        }
    }
}

fn health(health: &watch::Receiver<(HealthState, String)>) -> FromInit {
    let (state, detail) = health.borrow().clone();
    FromInit::Health {
        state,
        detail: Text::new(detail),
    }
}

fn answer(id: u64, document: Result<Vec<u8>, attestation::nsm::NsmError>) -> FromInit {
    match document.map(Bytes::new) {
        Ok(Some(document)) => FromInit::Document { id, document },
        Ok(None) => FromInit::ChallengeFailed {
            id,
            reason: Text::new("the NSM's document is too large"),
        },
        Err(error) => FromInit::ChallengeFailed {
            id,
            reason: Text::new(error.to_string()),
        },
    }
}
