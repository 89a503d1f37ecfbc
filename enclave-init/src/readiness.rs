//! Whether workloads are ready and well: what their supervision finds, for the agent and for
//! the workloads themselves, and what each says of itself over the local API.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{iter, net};

use link::control::HealthState;
use manifest::{HealthProbe, MeasuredConfig, Workload, Workloads};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, mpsc, watch};

use crate::passing;

/// Messages of a workload that wait to be taken.
const MAX_WAITING: usize = 16;

/// Health, and why it is that.
pub(crate) type Health = watch::Sender<(HealthState, String)>;

/// The enclave's, and that of each of its workloads; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct EnclaveReadiness {
    health: Arc<Health>,
    workloads: Arc<[Readiness]>,
    /// Whether its only workload is the enclave.
    is_one: bool,
}

impl EnclaveReadiness {
    /// That of the image's workloads, none of which has been started.
    pub(crate) fn of(config: &MeasuredConfig) -> Self {
        let health = Arc::new(starting());
        let is_one = matches!(config.workloads, Workloads::One(_));
        let workloads = config.workloads.iter().map(|workload| {
            let own = if is_one {
                Arc::clone(&health)
            } else {
                Arc::new(starting())
            };
            Readiness::new(notifies(workload), own)
        });
        Self {
            workloads: workloads.collect(),
            health,
            is_one,
        }
    }

    /// Where the enclave's health is kept.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Those of all workloads, in the order of the image's list.
    pub(crate) fn workloads(&self) -> &[Readiness] {
        &self.workloads
    }

    /// That of the workload of this place.
    pub(crate) fn workload(&self, index: usize) -> Option<&Readiness> {
        self.workloads.get(index)
    }

    /// That of the only workload.
    pub(crate) fn only(&self) -> Option<&Readiness> {
        self.workloads.first().filter(|_| self.is_one)
    }

    /// What is known of the enclave of several workloads: the restarts of all, and no end, which
    /// would be one's.
    pub(crate) fn state(&self) -> State {
        let (health, detail) = self.health.borrow().clone();
        let restarts = self.workloads.iter();
        State {
            health,
            detail,
            restarts: restarts.map(|workload| workload.state().restarts).sum(),
            last_end: None,
        }
    }
}

/// That of what has not been started.
fn starting() -> Health {
    watch::Sender::new((HealthState::Starting, String::new()))
}

/// Whether the image has the workload say that it is ready.
fn notifies(workload: &Workload) -> bool {
    let health = workload.health.as_ref();
    health.is_some_and(|health| matches!(health.probe, HealthProbe::Notify { .. }))
}

/// A workload's; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The enclave's, if it is the only one.
    health: Arc<Health>,
    runs: Mutex<Runs>,
    /// Whether the image has the workload say that it is ready.
    notifies: bool,
    /// Wakes whoever waits for news.
    told: Notify,
    /// Where the workload says so, if it does.
    doors: OnceLock<Doors>,
}

/// Where connections wait until they are served, and from then on are of the current run.
#[derive(Debug)]
struct Doors {
    /// If what comes there is the workload's.
    tcp: Option<net::TcpListener>,
    unix: std::os::unix::net::UnixListener,
    /// Descriptors may have been passed over connections that nobody has read.
    closing: mpsc::Sender<Vec<UnixStream>>,
}

/// The workload's starts, of which the last one may still be running.
#[derive(Debug, Default)]
struct Runs {
    begun: u64,
    /// How the last one that is over has ended.
    last_end: Option<String>,
    /// What the current one has said, and nobody has taken yet.
    news: VecDeque<News>,
}

/// What the workload says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) is_ready: bool,
    pub(crate) is_alive: bool,
    pub(crate) is_stopping: bool,
    /// In words, of which no more than the workload's own lines may leave.
    pub(crate) status: Option<Vec<u8>>,
}

/// One run of the workload. A request comes from the one that its connection was accepted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run(u64);

/// A workload that has opened a connection, in one of its runs.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    readiness: Readiness,
    run: Run,
}

impl Speaker {
    /// Hears what it says of itself.
    pub(crate) fn hear(&self, said: News) -> Result<(), Unheard> {
        self.readiness.hear(self.run, said)
    }

    /// What is known of it.
    pub(crate) fn state(&self) -> State {
        self.readiness.state()
    }
}

/// What is known at a moment.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) health: HealthState,
    /// Why, or the workload's own words.
    pub(crate) detail: String,
    pub(crate) restarts: u64,
    pub(crate) last_end: Option<String>,
}

/// Why news are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unheard {
    #[error(
        "the image does not have the workload say that it is ready: `health = {{ notify = true }}` in its manifest does"
    )]
    Off,
    #[error("the workload has been started again since this connection was opened")]
    EarlierRun,
}

impl Readiness {
    fn new(notifies: bool, health: Arc<Health>) -> Self {
        Self(Arc::new(Shared {
            health,
            runs: Mutex::default(),
            notifies,
            told: Notify::new(),
            doors: OnceLock::new(),
        }))
    }

    /// That of a workload that says so.
    #[cfg(test)]
    pub(crate) fn said() -> Self {
        Self::new(true, Arc::new(starting()))
    }

    /// Has connections closed that wait at these listeners when a run begins: the processes of
    /// an earlier one have opened them.
    pub(crate) fn keep_runs_apart(
        &self,
        tcp: Option<&TcpListener>,
        unix: &UnixListener,
    ) -> io::Result<()> {
        if self.0.notifies {
            let tcp = tcp.map(|tcp| tcp.as_fd().try_clone_to_owned());
            let doors = Doors {
                tcp: tcp.transpose()?.map(Into::into),
                unix: unix.as_fd().try_clone_to_owned()?.into(),
                closing: passing::closing(1)?,
            };
            self.0.doors.get_or_init(|| doors);
        }
        Ok(())
    }

    /// Whether the image has the workload say that it is ready.
    pub(crate) fn is_said(&self) -> bool {
        self.0.notifies
    }

    /// Where the workload's health is kept.
    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    /// The workload is about to be started: what an earlier run has said is forgotten, and
    /// what it is about to say is not heard.
    pub(crate) fn begin(&self) {
        if let Some(doors) = self.0.doors.get() {
            doors.turn_away();
        }
        let mut runs = self.runs();
        runs.begun += 1;
        runs.news.clear();
    }

    /// The run is over.
    pub(crate) fn ended(&self, how: &str) {
        self.runs().last_end = Some(how.to_owned());
    }

    /// The current run.
    fn run(&self) -> Run {
        Run(self.runs().begun)
    }

    /// Whoever of the workload speaks now.
    pub(crate) fn speaker(&self) -> Speaker {
        Speaker {
            run: self.run(),
            readiness: self.clone(),
        }
    }

    /// Hears what a run of the workload says. What there is no more room for is put together
    /// with what waits last, as if one message had said both.
    fn hear(&self, from: Run, said: News) -> Result<(), Unheard> {
        if !self.0.notifies {
            return Err(Unheard::Off);
        }
        let mut runs = self.runs();
        if from != Run(runs.begun) {
            return Err(Unheard::EarlierRun);
        }
        let is_full = runs.news.len() == MAX_WAITING;
        match runs.news.back_mut() {
            Some(last) if is_full => {
                last.is_ready |= said.is_ready;
                last.is_alive |= said.is_alive;
                last.is_stopping |= said.is_stopping;
                if said.status.is_some() {
                    last.status = said.status;
                }
            }
            _ => runs.news.push_back(said),
        }
        self.0.told.notify_one();
        Ok(())
    }

    /// Waits for what the workload says. Cancellation safe.
    pub(crate) async fn news(&self) -> News {
        loop {
            let next = self.runs().news.pop_front();
            if let Some(news) = next {
                return news;
            }
            self.0.told.notified().await;
        }
    }

    pub(crate) fn state(&self) -> State {
        let (health, detail) = self.0.health.borrow().clone();
        let runs = self.runs();
        State {
            health,
            detail,
            restarts: runs.begun.saturating_sub(1),
            last_end: runs.last_end.clone(),
        }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        // Nothing that holds it can panic half-way.
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doors {
    /// Closes the connections that wait.
    fn turn_away(&self) {
        if let Some(tcp) = &self.tcp {
            waiting(|| tcp.accept()).for_each(drop);
        }
        // While earlier ones are still being closed, these wait.
        if let Ok(place) = self.closing.try_reserve() {
            let streams = waiting(|| self.unix.accept()).map(|(stream, _)| stream);
            place.send(streams.collect());
        }
    }
}

/// The connections that wait at a listener which does not block.
fn waiting<T>(mut accept: impl FnMut() -> io::Result<T>) -> impl Iterator<Item = T> {
    iter::from_fn(move || {
        loop {
            match accept() {
                Ok(connection) => return Some(connection),
                // Its other end is gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(notifies: bool) -> Readiness {
        Readiness::new(notifies, Arc::new(starting()))
    }

    fn ready() -> News {
        News {
            is_ready: true,
            ..News::default()
        }
    }

    #[tokio::test]
    async fn readiness_is_that_of_the_current_run() {
        let readiness = workload(true);
        readiness.begin();
        let first = readiness.run();
        assert_eq!(readiness.hear(first, ready()), Ok(()));
        readiness.ended("exit code 1");
        readiness.begin();
        // Neither what was said before nor what arrives late.
        assert_eq!(readiness.hear(first, ready()), Err(Unheard::EarlierRun));
        let status = News {
            status: Some(b"loading".to_vec()),
            ..News::default()
        };
        assert_eq!(readiness.hear(readiness.run(), status), Ok(()));
        let news = readiness.news().await;
        assert!(!news.is_ready && news.status.is_some());
        let state = readiness.state();
        assert_eq!(state.restarts, 1);
        assert_eq!(state.last_end.as_deref(), Some("exit code 1"));
    }

    #[tokio::test]
    async fn readiness_is_heard_in_order_and_put_together_beyond_a_limit() {
        let readiness = workload(true);
        readiness.begin();
        let hear = |news| readiness.hear(readiness.run(), news).unwrap();
        hear(ready());
        for number in 1..MAX_WAITING + 5 {
            hear(News {
                is_alive: true,
                status: Some(number.to_string().into_bytes()),
                ..News::default()
            });
        }
        hear(News {
            is_stopping: true,
            ..News::default()
        });
        let first = readiness.news().await;
        assert!(first.is_ready && !first.is_alive && !first.is_stopping);
        for number in 1..MAX_WAITING - 1 {
            let news = readiness.news().await;
            assert_eq!(news.status, Some(number.to_string().into_bytes()));
            assert!(!news.is_stopping);
        }
        let last = readiness.news().await;
        assert!(last.is_alive && last.is_stopping);
        assert_eq!(
            last.status,
            Some((MAX_WAITING + 4).to_string().into_bytes())
        );
    }

    #[test]
    fn readiness_is_not_heard_of_an_image_without_notify() {
        let readiness = workload(false);
        assert_eq!(readiness.hear(readiness.run(), ready()), Err(Unheard::Off));
    }
}
