//! The control channel: what the agent asks, what it is told.

mod session;

use std::time::Duration;

use link::control::{FromAgent, FromInit, HEALTH_INTERVAL_MS, HealthState, Losses, SecretCounts};
use link::{BootId, Endpoint, Text};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::session::{RECONNECT_DELAY, last_words};
pub(crate) use self::session::{Session, open, report_failure};
use crate::answers::Answers;
use crate::credentials::AwsCredentials;
use crate::family::FamilyKeys;
use crate::kms::{Kms, Told as KmsTold};
use crate::logs::Logs;
use crate::pressure::{Pressure, Told};
use crate::readiness::EnclaveReadiness;
use crate::secrets::Secrets;
use crate::security_module::SecurityModule;

/// The least time between two reports of what was lost.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that wait for the agent; a further one is lost, and the log says so.
const MAX_WAITING: usize = 256;

/// What the workload's supervision and the agent know of each other.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    messages: mpsc::Sender<FromInit>,
    readiness: EnclaveReadiness,
    ready: watch::Sender<Option<u64>>,
    clock: watch::Sender<Option<FromInit>>,
    limits: watch::Sender<Option<FromInit>>,
    workloads: watch::Sender<Vec<FromInit>>,
    logs: Logs,
}

/// A shutdown that the agent asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shutdown {
    pub(crate) grace: Option<Duration>,
}

impl Handle {
    /// Tells the agent, as soon as it listens.
    pub(crate) fn tell(&self, message: FromInit) {
        if self.messages.try_send(message).is_err() {
            // Only when the agent is away for long: the log waits for it too.
            self.logs
                .error("control: too many messages wait for the agent; one was lost");
        }
    }

    pub(crate) fn set_health(&self, state: HealthState, detail: impl Into<String>) {
        let next = (state, detail.into());
        self.readiness.health().send_if_modified(|health| {
            let changes = *health != next;
            *health = next;
            changes
        });
    }

    pub(crate) fn health(&self) -> HealthState {
        self.readiness.health().borrow().0
    }

    /// What the local API knows of the workloads.
    pub(crate) const fn readiness(&self) -> &EnclaveReadiness {
        &self.readiness
    }

    /// The clock's state, which is told on every connection.
    pub(crate) fn set_clock(&self, message: FromInit) {
        self.clock.send_replace(Some(message));
    }

    /// What the workload's limits have refused it, told anew to each agent.
    pub(crate) fn set_limits(&self, limits: FromInit) {
        self.limits.send_replace(Some(limits));
    }

    /// How each of several workloads is, in their order.
    pub(crate) fn set_workloads(&self, workloads: Vec<FromInit>) {
        self.workloads.send_if_modified(|told| {
            let changes = *told != workloads;
            *told = workloads;
            changes
        });
    }

    /// Whether it was ready once.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.borrow().is_some()
    }

    /// The workload is ready, this many microseconds after the start.
    pub(crate) fn set_ready(&self, at_us: u64) {
        self.ready
            .send_if_modified(|ready| ready.is_none() && ready.replace(at_us).is_none());
    }
}

/// What the channel's task needs.
pub(crate) struct Parts {
    pub(crate) agent: Endpoint,
    pub(crate) boot: BootId,
    pub(crate) nsm: SecurityModule,
    /// What came of the self-check: told on every connection.
    pub(crate) self_check: FromInit,
    /// What is asked for on every connection, if the workload is to have it.
    pub(crate) credentials: Option<AwsCredentials>,
    /// The image's, if it declares any.
    pub(crate) secrets: Option<Secrets>,
    /// Those of the image's family, if it has one.
    pub(crate) keys: Option<FamilyKeys>,
    pub(crate) readiness: EnclaveReadiness,
    pub(crate) logs: Logs,
    pub(crate) pressure: Pressure,
    /// KMS, if the image calls it through the enclave.
    pub(crate) kms: Option<Kms>,
}

/// Starts the channel's task. The receiver yields the shutdown that the agent
/// asks for; closing ends the task once everything is told.
pub(crate) fn start(parts: Parts, session: Session) -> (Handle, mpsc::Receiver<Shutdown>, Closing) {
    let (messages, waiting) = mpsc::channel(MAX_WAITING);
    let health = parts.readiness.health().subscribe();
    let ready = watch::Sender::new(None);
    let limits = watch::Sender::new(None);
    let workloads = watch::Sender::new(Vec::new());
    let clock = watch::Sender::new(None);
    let last = watch::Sender::new(None);
    let (shutdowns, shutdown) = mpsc::channel(1);
    let handle = Handle {
        messages,
        readiness: parts.readiness.clone(),
        ready: ready.clone(),
        limits: limits.clone(),
        workloads: workloads.clone(),
        clock: clock.clone(),
        logs: parts.logs.clone(),
    };
    let task = Task {
        parts,
        waiting,
        unsent: None,
        health,
        ready: ready.subscribe(),
        limits: limits.subscribe(),
        workloads: workloads.subscribe(),
        clock: clock.subscribe(),
        last: last.subscribe(),
        shutdowns,
    };
    let task = tokio::spawn(task.run(session));
    (handle, shutdown, Closing { last, task })
}

/// Ends the channel.
pub(crate) struct Closing {
    last: watch::Sender<Option<FromInit>>,
    task: tokio::task::JoinHandle<()>,
}

impl Closing {
    /// Sends the last message and closes, within `limit`.
    pub(crate) async fn close(self, last: FromInit, limit: Duration) {
        self.last.send_replace(Some(last));
        // Without an agent there is nobody to tell.
        let _ = timeout(limit, self.task).await;
    }
}

struct Task {
    parts: Parts,
    waiting: mpsc::Receiver<FromInit>,
    /// The message that the last session broke at.
    unsent: Option<FromInit>,
    health: watch::Receiver<(HealthState, String)>,
    ready: watch::Receiver<Option<u64>>,
    limits: watch::Receiver<Option<FromInit>>,
    workloads: watch::Receiver<Vec<FromInit>>,
    clock: watch::Receiver<Option<FromInit>>,
    last: watch::Receiver<Option<FromInit>>,
    shutdowns: mpsc::Sender<Shutdown>,
}

/// What a session does next.
enum Next {
    Received(Option<FromAgent>),
    Send(FromInit),
    /// A message that must not be lost with the session.
    Tell(FromInit),
    /// What has changed of several workloads.
    Workloads,
    Close,
}

impl Task {
    /// Serves one session after the other, until the last message is told.
    async fn run(mut self, mut session: Session) {
        while let Err(reason) = self.serve(session).await {
            self.parts.logs.system(format!(
                "control: the connection to the agent ended: {reason}; connecting again"
            ));
            self.ready.mark_changed();
            self.limits.mark_changed();
            self.workloads.mark_changed();
            self.clock.mark_changed();
            session = loop {
                sleep(RECONNECT_DELAY).await;
                if let Ok(session) = Session::open(&self.parts.agent, &self.parts.boot).await {
                    break session;
                }
            };
        }
    }

    /// Serves one session; the error is why it ended before the last message.
    async fn serve(&mut self, mut session: Session) -> Result<(), String> {
        let mut answers = self.answers();
        let mut beat = interval(Duration::from_millis(HEALTH_INTERVAL_MS));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.parts.credentials.is_some() {
            session.send(&FromInit::WantsCredentials).await?;
        }
        session.send(&self.parts.self_check).await?;
        let mut reports = interval(REPORT_INTERVAL);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Of each connection: another agent knows nothing of what was told before.
        let mut told = Losses::default();
        let mut places_told = Told::default();
        let mut kms_told = KmsTold::default();
        let mut secrets_told = SecretCounts::default();
        let mut workloads_told = Vec::new();
        if let Some(message) = &self.unsent {
            session.send(message).await?;
            self.unsent = None;
        }
        loop {
            let next = tokio::select! {
                message = session.reader.receive() => {
                    Next::Received(message.map_err(|error| error.to_string())?)
                }
                Some(answer) = answers.next() => Next::Send(answer),
                Some(message) = self.waiting.recv() => Next::Tell(message),
                // Not before the boot's steps, which wait as messages.
                Ok(()) = self.ready.changed(), if self.waiting.is_empty() => match *self.ready.borrow_and_update() {
                    Some(at_us) => Next::Send(FromInit::Ready { at_us }),
                    None => continue,
                },
                Ok(()) = self.clock.changed() => match self.clock.borrow_and_update().clone() {
                    Some(message) => Next::Send(message),
                    None => continue,
                },
                Ok(()) = self.health.changed() => Next::Send(health(&mut self.health)),
                _ = beat.tick() => Next::Send(health(&mut self.health)),
                Ok(()) = self.workloads.changed() => Next::Workloads,
                Ok(()) = self.limits.changed() => {
                    // Nothing until a limit was met.
                    let Some(limits) = self.limits.borrow_and_update().clone() else {
                        continue;
                    };
                    Next::Send(limits)
                }
                _ = reports.tick() => {
                    let losses = self.parts.logs.losses();
                    if losses != told {
                        told.clone_from(&losses);
                        Next::Send(FromInit::Lost { losses })
                    } else if let Some(places) = self.parts.pressure.news(&mut places_told) {
                        Next::Send(places)
                    } else if let Some(calls) = self.parts.kms.as_ref().and_then(|kms| kms.news(&mut kms_told)) {
                        Next::Send(calls)
                    } else if let Some(counts) = news_of(self.parts.secrets.as_ref(), &mut secrets_told) {
                        Next::Send(FromInit::Secrets(counts))
                    } else {
                        continue;
                    }
                }
                Ok(_) = self.last.wait_for(Option::is_some) => Next::Close,
            };
            match next {
                Next::Received(None) => return Err("the agent closed it".to_owned()),
                Next::Received(Some(
                    message
                    @ (FromAgent::Credentials(_) | FromAgent::CredentialsUnavailable { .. }),
                )) => self.take_credentials(message)?,
                // What the boot was given stays.
                Next::Received(Some(FromAgent::Start { .. })) => {}
                Next::Received(Some(FromAgent::Shutdown { grace_ms })) => {
                    let grace = grace_ms.map(Duration::from_millis);
                    // A second request changes nothing.
                    let _ = self.shutdowns.try_send(Shutdown { grace });
                }
                Next::Received(Some(
                    request @ (FromAgent::Challenge { .. }
                    | FromAgent::SealingChallenge { .. }
                    | FromAgent::SealedSecret { .. }
                    | FromAgent::Keys { .. }),
                )) => {
                    if let Some(refusal) = answers.begin(request) {
                        session.send(&refusal).await?;
                    }
                }
                Next::Send(message) => session.send(&message).await?,
                Next::Tell(message) => self.tell(&mut session, message).await?,
                Next::Workloads => {
                    self.tell_workloads(&mut session, &mut workloads_told)
                        .await?;
                }
                Next::Close => {
                    self.tell_rest(&mut session, &mut workloads_told).await?;
                    let Some(last) = self.last.borrow().clone() else {
                        continue;
                    };
                    return last_words(session, &last).await;
                }
            }
        }
    }

    /// Tells what waits, before the last message.
    async fn tell_rest(
        &mut self,
        session: &mut Session,
        workloads_told: &mut Vec<FromInit>,
    ) -> Result<(), String> {
        while let Ok(message) = self.waiting.try_recv() {
            self.tell(session, message).await?;
        }
        self.tell_workloads(session, workloads_told).await?;
        // What ended it may have been counted just now.
        match self.new_limits() {
            Some(limits) => session.send(&limits).await,
            None => Ok(()),
        }
    }

    /// What answers the requests of one connection.
    fn answers(&self) -> Answers {
        let Parts {
            nsm,
            secrets,
            keys,
            logs,
            ..
        } = &self.parts;
        Answers::new(nsm.clone(), secrets.clone(), keys.clone(), logs.clone())
    }

    /// Takes what the agent says of credentials, which it does only if asked.
    fn take_credentials(&self, message: FromAgent) -> Result<(), String> {
        match &self.parts.credentials {
            Some(credentials) => credentials.told(message),
            None => Err("the agent sent credentials unasked".to_owned()),
        }
    }

    /// The limits that were met, if they have changed since they were sent.
    fn new_limits(&mut self) -> Option<FromInit> {
        let limits = self.limits.borrow_and_update();
        limits.has_changed().then(|| limits.clone()).flatten()
    }

    /// Tells of the workloads of which something else was told on this connection.
    async fn tell_workloads(
        &mut self,
        session: &mut Session,
        told: &mut Vec<FromInit>,
    ) -> Result<(), String> {
        let workloads = self.workloads.borrow_and_update().clone();
        let news = workloads.iter().filter(|message| !told.contains(message));
        for message in news {
            session.send(message).await?;
        }
        *told = workloads;
        Ok(())
    }

    /// Sends a message, and keeps it for the next session if this one breaks.
    async fn tell(&mut self, session: &mut Session, message: FromInit) -> Result<(), String> {
        session.send(self.unsent.insert(message)).await?;
        self.unsent = None;
        Ok(())
    }
}

/// What has become of the image's secrets, if it is not what was told.
fn news_of(secrets: Option<&Secrets>, told: &mut SecretCounts) -> Option<SecretCounts> {
    let counts = secrets?.counts();
    let is_news = counts != *told;
    *told = counts;
    is_news.then_some(counts)
}

fn health(health: &mut watch::Receiver<(HealthState, String)>) -> FromInit {
    let (state, detail) = health.borrow_and_update().clone();
    FromInit::Health {
        state,
        detail: Text::new(detail),
    }
}
