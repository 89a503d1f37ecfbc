//! How the workloads are, and what that makes of the enclave.
//!
//! Of an only workload the agent hears what it heard always: its health is the enclave's. Of
//! several each is told by its name, and the enclave's health is that of the essential ones.

use std::cell::RefCell;

use link::Text;
use link::control::{FromInit, HealthState, WorkloadState};
use manifest::{Workload, WorkloadKind, WorkloadName, Workloads};
use tokio::sync::watch;

use crate::control::Handle;

/// Those of all workloads, in the order of the image's list.
pub(crate) struct Conditions<'a> {
    handle: &'a Handle,
    entries: RefCell<Vec<Entry>>,
    stages: Vec<watch::Sender<Stage>>,
}

/// That of one workload.
#[derive(Clone, Copy)]
pub(crate) struct Condition<'a> {
    all: &'a Conditions<'a>,
    index: usize,
}

/// How far a workload has come, for those whose start or stop waits for it.
#[derive(Debug, Clone, Copy, Default)]
struct Stage {
    /// It was ready once; a batch has succeeded.
    is_ready: bool,
    /// It has ended, and is not started again.
    is_gone: bool,
}

/// How a workload's life has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departed {
    /// It was to stop.
    Stopped,
    /// A batch has succeeded.
    Succeeded,
    /// Anything else.
    Ended,
}

#[derive(Debug, Clone)]
struct Entry {
    /// None if it is the only one.
    name: Option<WorkloadName>,
    is_batch: bool,
    essential: bool,
    state: WorkloadState,
    health: HealthState,
    detail: String,
    was_ready: bool,
    /// Once it has ended, and is not started again.
    departed: Option<Departed>,
}

impl Entry {
    /// Whether the enclave is ready only once this is.
    fn is_awaited(&self) -> bool {
        self.essential && !self.is_batch
    }

    /// Whether it is ready now. Of an only one nothing but its readiness is known here.
    fn is_ready(&self) -> bool {
        let runs = self.name.is_none() || self.state == WorkloadState::Running;
        self.was_ready && runs
    }

    fn message(&self) -> Option<FromInit> {
        let name = self.name.as_ref()?;
        Some(FromInit::Workload {
            name: Text::new(&**name),
            state: self.state,
            detail: Text::new(self.detail.as_str()),
        })
    }
}

impl<'a> Conditions<'a> {
    pub(crate) fn new(workloads: &Workloads<Workload>, handle: &'a Handle) -> Self {
        let entries = workloads.iter().map(|workload| Entry {
            name: workload.name.clone(),
            is_batch: workload.kind == WorkloadKind::Batch,
            essential: workload.essential,
            state: WorkloadState::Starting,
            health: HealthState::Starting,
            detail: String::new(),
            was_ready: false,
            departed: None,
        });
        Self {
            handle,
            entries: RefCell::new(entries.collect()),
            stages: workloads.iter().map(|_| watch::Sender::default()).collect(),
        }
    }

    /// That of the workload of this place.
    pub(crate) fn of(&self, index: usize) -> Condition<'_> {
        Condition { all: self, index }
    }

    /// Whether there is one workload, without a name.
    fn is_one(&self) -> bool {
        self.entries
            .borrow()
            .iter()
            .any(|entry| entry.name.is_none())
    }

    /// Tells the agent of several workloads, and of the enclave.
    fn tell(&self) {
        let entries = self.entries.borrow();
        let messages = entries.iter().filter_map(Entry::message);
        self.handle.set_workloads(messages.collect());
        let (state, detail) = health(&entries, self.handle.is_ready());
        self.handle.set_health(state, detail);
    }
}

/// The health of an enclave of several workloads.
fn health(entries: &[Entry], is_ready: bool) -> (HealthState, String) {
    let find = |is_wanted: &dyn Fn(&Entry) -> bool| {
        let mut essential = entries.iter().filter(|entry| entry.essential);
        essential.find(|entry| is_wanted(entry)).map(|entry| {
            let name = entry.name.as_deref().unwrap_or_default();
            match entry.detail.as_str() {
                "" => name.to_owned(),
                detail => format!("{name}: {detail}"),
            }
        })
    };
    // The enclave is about to end with it.
    let has_failed = |entry: &Entry| entry.departed == Some(Departed::Ended);
    let is_unhealthy = |entry: &Entry| entry.state == WorkloadState::Unhealthy;
    if let Some(detail) = find(&has_failed).or_else(|| find(&is_unhealthy)) {
        return (HealthState::Unhealthy, detail);
    }
    let starts = |entry: &Entry| {
        let starts = [WorkloadState::Starting, WorkloadState::Waiting].contains(&entry.state);
        starts && entry.is_awaited()
    };
    // What is started says more than what waits for it.
    let begins = |entry: &Entry| starts(entry) && entry.state == WorkloadState::Starting;
    match find(&begins).or_else(|| find(&starts)) {
        Some(detail) => (HealthState::Starting, detail),
        None if is_ready => (HealthState::Healthy, String::new()),
        None => (HealthState::Starting, String::new()),
    }
}

impl Condition<'_> {
    /// While the workload is started, runs, or pauses between two runs.
    pub(crate) fn set_health(&self, health: HealthState, detail: impl Into<String>) {
        let detail = detail.into();
        if self.all.is_one() {
            self.all.handle.set_health(health, detail);
            return;
        }
        let state = match health {
            HealthState::Starting => WorkloadState::Starting,
            HealthState::Healthy => WorkloadState::Running,
            HealthState::Unhealthy => WorkloadState::Unhealthy,
        };
        self.set(state, health, detail);
    }

    /// It is being started, and need not wait for others any more.
    pub(crate) fn set_begun(&self) {
        let is_waiting = {
            let entries = self.all.entries.borrow();
            let entry = entries.get(self.index);
            entry.is_some_and(|entry| entry.state == WorkloadState::Waiting)
        };
        if is_waiting {
            self.set(
                WorkloadState::Starting,
                HealthState::Starting,
                String::new(),
            );
        }
    }

    /// Says why it is not started yet.
    pub(crate) fn set_waiting(&self, detail: String) {
        self.set(WorkloadState::Waiting, HealthState::Starting, detail);
    }

    pub(crate) fn health(&self) -> HealthState {
        if self.all.is_one() {
            return self.all.handle.health();
        }
        let entries = self.all.entries.borrow();
        let entry = entries.get(self.index);
        entry.map_or(HealthState::Starting, |entry| entry.health)
    }

    /// It is ready, this many microseconds after the init's start.
    pub(crate) fn set_ready(&self, at_us: u64) {
        let mut entries = self.all.entries.borrow_mut();
        let is_batch = entries.get(self.index).is_some_and(|entry| entry.is_batch);
        if let Some(entry) = entries.get_mut(self.index) {
            entry.was_ready = true;
        }
        let mut awaited = entries.iter().filter(|entry| entry.is_awaited());
        let are_ready = awaited.all(Entry::is_ready);
        drop(entries);
        if !is_batch {
            self.stage(|stage| stage.is_ready = true);
        }
        if are_ready {
            self.all.handle.set_ready(at_us);
        }
        if !self.all.is_one() {
            self.all.tell();
        }
    }

    /// Whether it was ready once.
    pub(crate) fn was_ready(&self) -> bool {
        let entries = self.all.entries.borrow();
        entries.get(self.index).is_some_and(|entry| entry.was_ready)
    }

    /// It has ended, well or not, and is not started again.
    pub(crate) fn set_gone(&self, how: Departed, ended_well: bool, detail: &str) {
        if let Some(entry) = self.all.entries.borrow_mut().get_mut(self.index) {
            entry.departed = Some(how);
        }
        if !self.all.is_one() {
            let state = if ended_well {
                WorkloadState::Finished
            } else {
                WorkloadState::Failed
            };
            self.set(state, HealthState::Starting, detail.to_owned());
        }
        self.stage(|stage| {
            stage.is_ready |= how == Departed::Succeeded;
            stage.is_gone = true;
        });
    }

    /// Waits until it was ready once, or a batch has succeeded; false if that will never be.
    /// Cancellation safe.
    pub(crate) async fn until_ready(&self) -> bool {
        let stage = self.until(|stage| stage.is_ready || stage.is_gone).await;
        stage.is_ready
    }

    /// Whether it has ended for good.
    pub(crate) fn is_gone(&self) -> bool {
        let stage = self.all.stages.get(self.index);
        stage.is_some_and(|stage| stage.borrow().is_gone)
    }

    /// Those of all workloads.
    pub(crate) fn all(&self) -> &Conditions<'_> {
        self.all
    }

    /// Waits until it has ended for good. Cancellation safe.
    pub(crate) async fn until_gone(&self) {
        self.until(|stage| stage.is_gone).await;
    }

    async fn until(&self, is_wanted: impl Fn(&Stage) -> bool) -> Stage {
        let Some(stage) = self.all.stages.get(self.index) else {
            return std::future::pending().await;
        };
        let mut stage = stage.subscribe();
        match stage.wait_for(is_wanted).await {
            Ok(stage) => *stage,
            // The sender is in `self`.
            Err(_) => std::future::pending().await,
        }
    }

    fn stage(&self, change: impl FnOnce(&mut Stage)) {
        if let Some(stage) = self.all.stages.get(self.index) {
            stage.send_modify(change);
        }
    }

    fn set(&self, state: WorkloadState, health: HealthState, detail: String) {
        if let Some(entry) = self.all.entries.borrow_mut().get_mut(self.index) {
            entry.state = state;
            entry.health = health;
            entry.detail.clone_from(&detail);
        }
        if let Some(readiness) = self.all.handle.readiness().workload(self.index) {
            readiness.health().send_replace((health, detail));
        }
        self.all.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, state: WorkloadState) -> Entry {
        Entry {
            name: Some(name.parse().unwrap()),
            is_batch: false,
            essential: true,
            state,
            health: HealthState::Starting,
            detail: "why".to_owned(),
            was_ready: true,
            departed: (state == WorkloadState::Failed).then_some(Departed::Ended),
        }
    }

    #[test]
    fn health_of_the_enclave_is_that_of_its_essential_workloads() {
        use WorkloadState::{Failed, Finished, Running, Starting, Unhealthy, Waiting};
        for (state, is_batch, expected) in [
            (Waiting, false, HealthState::Starting),
            (Starting, false, HealthState::Starting),
            (Running, false, HealthState::Healthy),
            (Unhealthy, false, HealthState::Unhealthy),
            (Failed, false, HealthState::Unhealthy),
            // It was stopped.
            (Finished, false, HealthState::Healthy),
            (Waiting, true, HealthState::Healthy),
            (Starting, true, HealthState::Healthy),
            (Running, true, HealthState::Healthy),
            (Failed, true, HealthState::Unhealthy),
            (Finished, true, HealthState::Healthy),
        ] {
            let own = Entry {
                is_batch,
                ..entry("web", state)
            };
            let other = entry("db", Running);
            let (found, detail) = health(&[other.clone(), own.clone()], true);
            assert_eq!(found, expected, "{state:?} {is_batch}");
            let has_reason = found != HealthState::Healthy;
            assert_eq!(detail, if has_reason { "web: why" } else { "" });
            // The enclave goes on without one that is not essential.
            let own = Entry {
                essential: false,
                ..own
            };
            let (found, _) = health(&[other, own], true);
            assert_eq!(found, HealthState::Healthy, "{state:?} {is_batch}");
        }
        // A service that ends well ends the enclave, and says so before what else is wrong.
        let ended = Entry {
            departed: Some(Departed::Ended),
            ..entry("web", Finished)
        };
        let (found, detail) = health(&[entry("db", Unhealthy), ended], true);
        assert_eq!((found, &*detail), (HealthState::Unhealthy, "web: why"));
    }

    #[test]
    fn ready_is_who_runs_now() {
        use WorkloadState::{Running, Starting, Unhealthy};
        assert!(entry("web", Running).is_ready());
        for state in [Starting, Unhealthy] {
            assert!(!entry("web", state).is_ready(), "{state:?}");
        }
    }
}
