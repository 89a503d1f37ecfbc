//! One agent's time with an enclave: everything is opened, the enclave is followed
//! to its end, or until it is left to the next agent, and everything is closed.

use std::sync::Arc;
use std::time::Duration;

use enclave_host::hypervisor::Hypervisor;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::api::{self, Api};
use crate::channels::Channels;
use crate::credentials;
use crate::enclave_log::EnclaveLog;
use crate::error::Error;
use crate::event::Event;
use crate::gate::{Gate, GateClient};
use crate::machine::{Machine, MachineError};
use crate::metrics;
use crate::notify::Notifier;
use crate::proxy::Proxy;
use crate::report::{Report, Reporter};
use crate::run_config::SessionConfig;
use crate::status::{Board, EarlierEnd, Fixed, GateBoard};
use crate::supervisor::{Outcome, Supervisor};

/// How long the API's last answers may take.
const API_TIMEOUT: Duration = Duration::from_secs(3);

/// An enclave that is served, and whom it is served for.
pub(crate) struct Session {
    pub(crate) config: SessionConfig,
    pub(crate) gate: Option<GateClient>,
    pub(crate) reporter: Reporter,
    pub(crate) notifier: Notifier,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Session {
    /// Serves the enclave of this machine, and closes that.
    pub(crate) async fn serve<H: Hypervisor>(
        self,
        mut machine: Machine<H>,
        receiver: &mut mpsc::Receiver<Event>,
    ) -> Result<Outcome, Error> {
        let result = Box::pin(self.serve_until_end(&mut machine, receiver)).await;
        let goes_on = matches!(result, Ok(Outcome::Detached));
        let closed = machine.close(goes_on).await;
        let outcome = result?;
        closed?;
        Ok(outcome)
    }

    async fn serve_until_end<H: Hypervisor>(
        self,
        machine: &mut Machine<H>,
        receiver: &mut mpsc::Receiver<Event>,
    ) -> Result<Outcome, Error> {
        let facts = machine.prepare().await?;
        let age = machine.age();
        let proxy = Proxy::open(&self.config.proxy, &machine.config.host).await?;
        let name = &machine.config.name;
        let log = EnclaveLog::open(self.config.logs.clone(), name, &self.reporter).await?;
        let now = Instant::now();
        let start = now.checked_sub(age.unwrap_or_default()).unwrap_or(now);
        let gate = self.gate.as_ref().map(GateClient::board);
        let board = Arc::new(Board::new(
            fixed(machine),
            start,
            facts.history().clone(),
            proxy.ports.clone(),
            Arc::clone(&proxy.egress),
            Arc::clone(log.telemetry()),
            gate.clone(),
        ));

        // Dropping the set ends what is served.
        let mut tasks = JoinSet::new();
        let is_wanted = machine.config.host.aws_credentials;
        let region = self.config.region().map(str::to_owned);
        let (credentials, renewals) = credentials::keep(is_wanted, region, &mut tasks);
        board.update(|live| live.credentials = renewals);
        let listen = machine.hypervisor.listen();
        let channels = Channels {
            events: self.events.clone(),
            logs: Arc::clone(log.logs()),
            egress: Arc::clone(&proxy.egress),
            peer: machine.hypervisor.started().cid,
        };
        channels
            .open(&listen.agent, &listen.heartbeat, &mut tasks)
            .await?;
        self.observe(&mut tasks, &board, gate).await?;
        let (history, changes) = watch::channel(facts.history().clone());
        let metrics = self.config.metrics.embedded.clone();
        let recording = log.record(&board, metrics, history.clone());
        let (ended, end) = watch::channel(None);
        let api = Api {
            board: Arc::clone(&board),
            events: self.events.clone(),
            ended: end,
        };
        let folder = machine.guard.directory().to_owned();
        let api = tokio::spawn(Arc::new(api).serve(api::listen(&folder)?));

        machine.report(&facts, &proxy.describe(), &self.reporter);
        let mut supervisor = Supervisor::new(
            self.config.supervisor.clone(),
            history,
            board,
            self.reporter.clone(),
            self.notifier.clone(),
            credentials,
        );
        if age.is_some() {
            supervisor.attach();
        }
        let keeping = tokio::spawn(facts.keep(folder, changes));
        let result = supervisor
            .follow(
                &mut machine.hypervisor,
                &mut machine.guard,
                receiver,
                |started| proxy.serve_ingress(&started.init, &mut tasks),
            )
            .await;
        let outcome = match result {
            Ok(Outcome::Detached) => {
                // The next agent binds the same sockets.
                tasks.shutdown().await;
                log.leave(recording).await;
                // What was told is for the next agent to know.
                let _ = keeping.await;
                let keep_for = self.config.supervisor.keep_for;
                self.reporter.last(&Report::detached(keep_for)).await;
                Outcome::Detached
            }
            result => {
                // What is left of the machine must not keep the log connection open.
                let _ = machine.guard.kill().await;
                let end = result.as_ref().ok().and_then(Outcome::end);
                let remains = log.end(recording, end, machine.console()).await;
                // Nobody must write in the folder while it is removed.
                let _ = keeping.await;
                let outcome = result.map_err(MachineError::from)?;
                if let Some(end) = outcome.end() {
                    remains.report(end, start.elapsed(), &self.reporter).await;
                }
                outcome
            }
        };
        ended.send_replace(Some(outcome.clone()));
        let _ = timeout(API_TIMEOUT, api).await;
        Ok(outcome)
    }

    /// Serves those who want to know how the enclave is.
    async fn observe(
        &self,
        tasks: &mut JoinSet<()>,
        board: &Arc<Board>,
        outcome: Option<Arc<GateBoard>>,
    ) -> Result<(), Error> {
        if let Some(address) = self.config.metrics.address {
            tasks.spawn(metrics::listen(address, Arc::clone(board)).await?);
        }
        if let (Some(client), Some(outcome)) = (self.gate.clone(), outcome) {
            let gate = Gate {
                client,
                board: Arc::clone(board),
                outcome,
                events: self.events.clone(),
                reporter: self.reporter.clone(),
            };
            tasks.spawn(gate.serve());
        }
        Ok(())
    }
}

fn fixed<H: Hypervisor>(Machine { config, .. }: &Machine<H>) -> Fixed {
    Fixed {
        name: config.name.to_string(),
        image: config.image.display().to_string(),
        hypervisor: H::NAME,
        debug: config.debug,
        pcrs: config.pcrs.clone(),
        last_end: EarlierEnd::read(&config.name),
    }
}
