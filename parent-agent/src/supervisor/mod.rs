//! Follows one enclave from its start to its end: feeds what happens to the
//! state machine of [`enclave`](crate::enclave), and does what that says.

mod message;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use enclave_host::duration::milliseconds;
use enclave_host::guard::Guard;
use enclave_host::hypervisor::{Hypervisor, HypervisorError, Started, ended};
use enclave_host::pulse::Pulse;
use link::BootId;
use link::control::{FromAgent, MAX_RUNTIME_CONFIG};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::credentials::{self, Answers};
use crate::enclave::{Action, Cause, Enclave, End, Input, Phase};
use crate::event::{DetachError, Event, Request, RequestError};
use crate::history::History;
use crate::kernel_panic;
use crate::notify::Notifier;
use crate::report::{Report, Reporter};
use crate::status::Board;
use crate::throttle::Line;

use requests::Requests;

/// How long what an enclave said last may take to arrive once it has ended.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// What an enclave is told, and given time for.
#[derive(Debug, Clone)]
pub(crate) struct SupervisorConfig {
    /// How long it may be silent while it boots.
    pub(crate) boot_timeout: Duration,
    /// Handed to the workload.
    pub(crate) runtime_config: link::Bytes<MAX_RUNTIME_CONFIG>,
    /// How long it goes on without an agent.
    pub(crate) keep_for: Option<Duration>,
}

/// What the supervisor knows and whom it tells.
pub(crate) struct Supervisor {
    enclave: Enclave,
    board: Arc<Board>,
    reporter: Reporter,
    config: SupervisorConfig,
    /// Whom this process serves.
    notifier: Notifier,
    /// Where what the next agent must know goes.
    history: watch::Sender<History>,
    boot: Option<BootId>,
    control: Option<Control>,
    requests: Requests,
    /// What an init that asks for AWS credentials is answered.
    credentials: Answers,
}

/// How an agent's time with its enclave ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The enclave has ended.
    Ended(End),
    /// The enclave goes on without this agent.
    Detached,
}

impl Outcome {
    /// How the enclave has ended, if it has.
    pub(crate) fn end(&self) -> Option<&End> {
        match self {
            Self::Ended(end) => Some(end),
            Self::Detached => None,
        }
    }
}

struct Control {
    connection: u64,
    sender: mpsc::Sender<FromAgent>,
    /// What hands credentials in, once they are asked for; it ends with the connection.
    credentials: JoinSet<()>,
}

impl Supervisor {
    /// A supervisor of an enclave that is about to be started.
    pub(crate) fn new(
        config: SupervisorConfig,
        history: watch::Sender<History>,
        board: Arc<Board>,
        reporter: Reporter,
        notifier: Notifier,
        credentials: Answers,
    ) -> Self {
        Self {
            enclave: Enclave::new(config.boot_timeout),
            board,
            reporter,
            notifier,
            config,
            history,
            boot: None,
            control: None,
            requests: Requests::default(),
            credentials,
        }
    }

    /// Goes on with an enclave that was running already, where an earlier agent
    /// ended. [`follow`](Self::follow) does not start it.
    pub(crate) fn attach(&mut self) {
        let history = self.history.borrow().clone();
        self.boot = history
            .boot
            .and_then(|boot| BootId::new(hex::decode(boot).ok()?));
        self.enclave = Enclave::attached(
            self.config.boot_timeout,
            self.boot.is_some(),
            history.ready,
            Instant::now(),
        );
        let phase = self.enclave.phase();
        self.show(phase);
    }

    /// Starts the enclave unless it runs, calls `started`, and follows it to its
    /// end, or until somebody wants it to go on without this agent.
    pub(crate) async fn follow<H: Hypervisor>(
        mut self,
        hypervisor: &mut H,
        guard: &mut Guard,
        events: &mut mpsc::Receiver<Event>,
        started: impl FnOnce(&Started),
    ) -> Result<Outcome, HypervisorError> {
        if self.enclave.phase() == Phase::Starting && !self.start(hypervisor, guard, events).await?
        {
            return Ok(self.gone("it was not started yet"));
        }
        guard.keep(self.config.keep_for).await?;
        let machine = hypervisor.started();
        self.board.update(|live| live.cid = machine.cid);
        started(&machine);
        if guard.attached().is_none() {
            self.on(Input::Started);
        }
        // This very loop shows that the agent lives.
        let _supervised = self.notifier.supervise();
        let mut beats = self.notifier.beats();
        let mut pulse = Pulse::start();
        let mut console = kernel_panic::Watch::new(guard.console().clone());
        loop {
            let deadline = self.enclave.deadline();
            let action = tokio::select! {
                how = ended(guard) => {
                    // What the enclave said last is on its way through the channels.
                    self.last_words(events).await;
                    self.look(&mut console);
                    return Ok(self.gone(&how));
                }
                Some(event) = events.recv() => {
                    self.catch_up(&mut pulse);
                    match event {
                        Event::Detach(reply) if self.may_detach().is_ok() => {
                            self.remember();
                            // Whoever asked may have gone.
                            let _ = reply.send(Ok(()));
                            return Ok(Outcome::Detached);
                        }
                        event => self.handle(event),
                    }
                }
                () = console.printed() => self.look(&mut console),
                () = until(deadline) => {
                    self.catch_up(&mut pulse);
                    self.on(Input::Deadline)
                }
                () = pulse.tick() => {
                    self.catch_up(&mut pulse);
                    None
                }
                _ = beats.tick() => {
                    self.notifier.alive();
                    None
                }
            };
            if let Some(end) = self.enclave.end() {
                return Ok(Outcome::Ended(end.clone()));
            }
            if self.enclave.phase() == Phase::Ending && self.config.keep_for.take().is_some() {
                // An end that has begun does not wait for another agent. A guard
                // that was killed is noticed where processes' ends are.
                let _ = guard.keep(None).await;
            }
            if action == Some(Action::Kill) {
                self.kill(guard).await;
            }
        }
    }

    /// Takes note of a panic that the console shows.
    fn look(&mut self, console: &mut kernel_panic::Watch) -> Option<Action> {
        let panic = console.read()?;
        self.on(Input::Panicked(panic))
    }

    /// Takes note of the time in which this agent was not run, before anything
    /// else that may have happened meanwhile.
    fn catch_up(&mut self, pulse: &mut Pulse) {
        if let Some(lost) = pulse.lost(Instant::now()) {
            self.on(Input::Lost(lost));
            self.board.update(|live| live.pauses += 1);
            self.reporter.report(&Report::Paused {
                lost_ms: milliseconds(lost),
            });
        }
    }

    /// Starts the machine, unless somebody wants it to stop before it runs.
    async fn start<H: Hypervisor>(
        &mut self,
        hypervisor: &mut H,
        guard: &mut Guard,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<bool, HypervisorError> {
        let start = hypervisor.start(guard);
        let mut start = std::pin::pin!(start);
        loop {
            tokio::select! {
                result = &mut start => return result.map(|()| true),
                Some(event) = events.recv() => {
                    if self.handle(event) == Some(Action::Kill) {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn may_detach(&self) -> Result<(), DetachError> {
        match (self.enclave.phase(), self.config.keep_for) {
            (phase @ (Phase::Starting | Phase::Ending | Phase::Ended), _) => {
                Err(DetachError::NotRunning(phase))
            }
            (_, None) => Err(DetachError::NotKept),
            (Phase::Booting | Phase::Ready, Some(_)) => Ok(()),
        }
    }

    async fn kill(&self, guard: &mut Guard) {
        if let Err(error) = guard.kill().await {
            // Its end is noticed where processes' ends are.
            debug!(%error, "the guard cannot kill");
        }
    }

    /// Takes in what arrived before the machine's end: its control connection
    /// ends with it.
    async fn last_words(&mut self, events: &mut mpsc::Receiver<Event>) {
        let deadline = Instant::now() + LAST_WORDS_TIMEOUT;
        while self.control.is_some() {
            tokio::select! {
                Some(event) = events.recv() => {
                    self.handle(event);
                }
                () = sleep_until(deadline) => return,
            }
        }
    }

    fn gone(&mut self, how: &str) -> Outcome {
        self.on(Input::Exited(how.to_owned()));
        self.requests.fail_all();
        // An exit always ends it.
        let end = self.enclave.end().cloned();
        Outcome::Ended(end.unwrap_or_else(|| End::new(Cause::Died, how.to_owned())))
    }

    /// Feeds the state machine, and asks the init to stop if that is called for.
    fn on(&mut self, input: Input<'_>) -> Option<Action> {
        let action = self.enclave.on(input, Instant::now());
        self.show(self.enclave.phase());
        if let Some(Action::SendShutdown { grace }) = action {
            self.send(FromAgent::Shutdown {
                grace_ms: grace.map(milliseconds),
            });
        }
        action
    }

    /// Has everybody see the phase.
    fn show(&self, phase: Phase) {
        let before = self
            .board
            .update(|live| std::mem::replace(&mut live.phase, phase));
        if before != phase {
            self.notifier.status(&format!("the enclave is {phase}"));
        }
        if matches!(phase, Phase::Ending | Phase::Ended) {
            self.notifier.stopping();
        }
    }

    fn handle(&mut self, event: Event) -> Option<Action> {
        match event {
            Event::Heartbeat => self.on(Input::Heartbeat),
            Event::Incompatible(reason) => {
                debug!(reason, "a connection of the enclave was refused");
                self.on(Input::Incompatible(reason))
            }
            Event::Stop { grace, insists } => self.on(Input::Stop { grace, insists }),
            Event::Request(request) => {
                self.request(request);
                None
            }
            Event::Detach(reply) => {
                let phase = self.enclave.phase();
                let refused = self.may_detach().err();
                // Whoever asked may have gone.
                let _ = reply.send(Err(refused.unwrap_or(DetachError::NotRunning(phase))));
                None
            }
            Event::Connected {
                connection,
                boot,
                version,
                sender,
            } => self.connected(connection, boot, version, sender),
            Event::Disconnected { connection } => {
                if self.is_current(connection) {
                    self.control = None;
                    self.requests.fail_all();
                    self.on(Input::Disconnected)
                } else {
                    None
                }
            }
            Event::Message {
                connection,
                message,
            } => {
                if !self.is_current(connection) {
                    return None;
                }
                self.message(message)
            }
        }
    }

    fn connected(
        &mut self,
        connection: u64,
        boot: BootId,
        version: String,
        sender: mpsc::Sender<FromAgent>,
    ) -> Option<Action> {
        if self.boot.as_ref().is_some_and(|known| *known != boot) {
            let action = self.on(Input::ConnectedAgain);
            if action.is_none() && Line::Control.may_be_written() {
                warn!("a control connection of another boot was refused");
            }
            return action;
        }
        self.board.update(|live| {
            live.init_version = Some(version);
            live.boot = Some(hex::encode(&*boot));
        });
        self.boot = Some(boot);
        self.remember();
        // An earlier connection closes as its sender goes.
        self.control = Some(Control {
            connection,
            sender,
            credentials: JoinSet::new(),
        });
        self.send(FromAgent::Start {
            runtime_config: self.config.runtime_config.clone(),
        });
        self.on(Input::Connected)
    }

    /// Has the next agent know what this one does.
    fn remember(&self) {
        self.board.remember(&self.history);
    }

    fn request(&mut self, request: Request) {
        let Request { question, reply } = request;
        let Some(control) = &self.control else {
            let phase = match self.enclave.phase() {
                Phase::Starting => "starting",
                Phase::Booting => "booting",
                Phase::Ready => "out of reach",
                Phase::Ending | Phase::Ended => "ending",
            };
            // Whoever asked may have gone.
            let _ = reply.send(Err(RequestError::NotConnected(phase)));
            return;
        };
        let Some(id) = self.requests.add(reply) else {
            return;
        };
        if control.sender.try_send(question.message(id)).is_err() {
            self.requests.answer(id, Err(RequestError::Busy));
        }
    }

    /// Has the init get AWS credentials; once is enough for a connection.
    fn hand_in_credentials(&mut self) {
        if let Some(control) = &mut self.control
            && control.credentials.is_empty()
        {
            let (answers, sender) = (self.credentials.clone(), control.sender.clone());
            control
                .credentials
                .spawn(credentials::hand_in(answers, sender));
        }
    }

    fn send(&self, message: FromAgent) {
        let sent = self
            .control
            .as_ref()
            .map(|control| control.sender.try_send(message));
        if !matches!(sent, Some(Ok(()))) && Line::NotTaken.may_be_written() {
            // The state machine's deadline deals with an init that does not listen.
            warn!("the init does not take messages");
        }
    }

    fn is_current(&self, connection: u64) -> bool {
        self.control
            .as_ref()
            .is_some_and(|control| control.connection == connection)
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
