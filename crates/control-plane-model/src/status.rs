//! The status machine, as one table.
//!
//! Every write of a status by the control plane comes from a [`Row`], and so do the
//! diagram in `docs/control-plane.md` and the model that tests explore. What a
//! client writes cannot be stopped: a write that no row permits is put back by the
//! trigger, see [`refusal`].

use std::fmt::{self, Write as _};

/// The status of an enclave, as the item's attribute `status` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// A client asks for a deployment.
    PendingDeploy,
    /// The deployment workflow works on it.
    Deploying,
    /// It runs, and its document was accepted.
    Deployed,
    /// Something went wrong; `error_message` says what.
    Failed,
    /// A client asks for its end.
    PendingDestroy,
    /// The cleanup workflow works on it.
    Destroying,
    /// Nothing of it is left.
    Destroyed,
    /// A client asks for a pause; the monitor stops the instance.
    Pausing,
    /// The instance is stopped.
    Paused,
    /// A client asks for it back; the monitor starts the instance.
    Resuming,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::PendingDeploy,
        Self::Deploying,
        Self::Deployed,
        Self::Failed,
        Self::PendingDestroy,
        Self::Destroying,
        Self::Destroyed,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
    ];

    /// The statuses that something must move on.
    pub const WATCHED: [Self; 6] = [
        Self::PendingDeploy,
        Self::PendingDestroy,
        Self::Deploying,
        Self::Destroying,
        Self::Pausing,
        Self::Resuming,
    ];

    /// The attribute's text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PendingDeploy => "PENDING_DEPLOY",
            Self::Deploying => "DEPLOYING",
            Self::Deployed => "DEPLOYED",
            Self::Failed => "FAILED",
            Self::PendingDestroy => "PENDING_DESTROY",
            Self::Destroying => "DESTROYING",
            Self::Destroyed => "DESTROYED",
            Self::Pausing => "PAUSING",
            Self::Paused => "PAUSED",
            Self::Resuming => "RESUMING",
        }
    }

    /// The status of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether it stays so until somebody asks for something else.
    pub const fn is_at_rest(self) -> bool {
        matches!(
            self,
            Self::Deployed | Self::Failed | Self::Destroyed | Self::Paused
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who writes a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Actor {
    /// Whoever may write to the table.
    Client,
    /// The function on the table's stream.
    Trigger,
    /// The state machine `deployment`.
    Deployment,
    /// The state machine `cleanup`.
    Cleanup,
    /// The state machine `attestation`.
    Attestation,
    /// The function that every failed execution calls.
    ErrorHandler,
    /// The function that runs each minute.
    Monitor,
}

impl Actor {
    /// What diagrams call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Trigger => "trigger",
            Self::Deployment => "deployment",
            Self::Cleanup => "cleanup",
            Self::Attestation => "attestation",
            Self::ErrorHandler => "error handler",
            Self::Monitor => "monitor",
        }
    }
}

/// What happens to an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// A client wants it deployed.
    Deploy,
    /// A client wants it destroyed.
    Destroy,
    /// A client wants it paused.
    Pause,
    /// A client wants it back from a pause.
    Resume,
    /// The request cannot be read.
    Reject,
    /// An execution takes the deployment.
    ClaimDeploy,
    /// The attestation gate has passed.
    MarkDeployed,
    /// An execution takes the destruction.
    ClaimDestroy,
    /// Everything is removed.
    MarkDestroyed,
    /// The attestation gate has passed after a pause.
    MarkResumed,
    /// An execution failed.
    Fail,
    /// The instance is stopped.
    MarkPaused,
    /// Nothing works on it any more.
    Abandon,
    /// Nothing works on it, and its instance is gone.
    MarkGone,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Deploy,
        Self::Destroy,
        Self::Pause,
        Self::Resume,
        Self::Reject,
        Self::ClaimDeploy,
        Self::MarkDeployed,
        Self::ClaimDestroy,
        Self::MarkDestroyed,
        Self::MarkResumed,
        Self::Fail,
        Self::MarkPaused,
        Self::Abandon,
        Self::MarkGone,
    ];

    /// What diagrams call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Destroy => "destroy",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reject => "unreadable request",
            Self::ClaimDeploy | Self::ClaimDestroy => "claim",
            Self::MarkDeployed | Self::MarkResumed => "attested",
            Self::MarkDestroyed => "removed",
            Self::Fail => "failure",
            Self::MarkPaused => "instance stopped",
            Self::Abandon => "abandoned",
            Self::MarkGone => "instance gone",
        }
    }

    /// Who causes it.
    pub const fn actor(self) -> Actor {
        match self {
            Self::Deploy | Self::Destroy | Self::Pause | Self::Resume => Actor::Client,
            Self::Reject => Actor::Trigger,
            Self::ClaimDeploy | Self::MarkDeployed => Actor::Deployment,
            Self::ClaimDestroy | Self::MarkDestroyed => Actor::Cleanup,
            Self::MarkResumed => Actor::Attestation,
            Self::Fail => Actor::ErrorHandler,
            Self::MarkPaused | Self::Abandon | Self::MarkGone => Actor::Monitor,
        }
    }

    /// The status that it leads to.
    pub const fn to(self) -> Status {
        match self {
            Self::Deploy => Status::PendingDeploy,
            Self::Destroy => Status::PendingDestroy,
            Self::Pause => Status::Pausing,
            Self::Resume => Status::Resuming,
            Self::ClaimDeploy => Status::Deploying,
            Self::MarkDeployed | Self::MarkResumed => Status::Deployed,
            Self::ClaimDestroy => Status::Destroying,
            Self::MarkDestroyed | Self::MarkGone => Status::Destroyed,
            Self::MarkPaused => Status::Paused,
            Self::Reject | Self::Fail | Self::Abandon => Status::Failed,
        }
    }

    /// The statuses that it may happen in, in the table's order. An item that is
    /// not there is none of them.
    pub fn from(self) -> Vec<Status> {
        TABLE
            .iter()
            .filter(|row| row.event == self)
            .filter_map(|row| row.from)
            .collect()
    }
}

/// A transition: in this status, this event is legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The status before; `None` where there is no item, or its status is none of
    /// ours.
    pub from: Option<Status>,
    /// What happens. It says who writes, and what.
    pub event: Event,
}

const fn row(from: Status, event: Event) -> Row {
    Row {
        from: Some(from),
        event,
    }
}

const fn new(event: Event) -> Row {
    Row { from: None, event }
}

/// Every legal transition.
pub const TABLE: [Row; 30] = [
    // What clients may ask for. A request that nobody has claimed may be withdrawn
    // by the opposite one: nothing exists yet.
    new(Event::Deploy),
    row(Status::Failed, Event::Deploy),
    row(Status::Destroyed, Event::Deploy),
    new(Event::Destroy),
    row(Status::Deployed, Event::Destroy),
    row(Status::Failed, Event::Destroy),
    row(Status::Paused, Event::Destroy),
    row(Status::PendingDeploy, Event::Destroy),
    row(Status::Deployed, Event::Pause),
    row(Status::Paused, Event::Resume),
    // What happens to it.
    row(Status::PendingDeploy, Event::Reject),
    row(Status::PendingDestroy, Event::Reject),
    row(Status::PendingDeploy, Event::ClaimDeploy),
    row(Status::Deploying, Event::MarkDeployed),
    row(Status::PendingDestroy, Event::ClaimDestroy),
    row(Status::Destroying, Event::MarkDestroyed),
    row(Status::Resuming, Event::MarkResumed),
    row(Status::Pausing, Event::MarkPaused),
    // The error path: before the claim, and after it.
    row(Status::PendingDeploy, Event::Fail),
    row(Status::PendingDestroy, Event::Fail),
    row(Status::Deploying, Event::Fail),
    row(Status::Destroying, Event::Fail),
    row(Status::Resuming, Event::Fail),
    // Where even the error path came to an end.
    row(Status::PendingDeploy, Event::Abandon),
    row(Status::PendingDestroy, Event::Abandon),
    row(Status::Deploying, Event::Abandon),
    row(Status::Destroying, Event::Abandon),
    row(Status::Pausing, Event::Abandon),
    row(Status::Resuming, Event::Abandon),
    // Items of older systems have no execution that could say so.
    row(Status::Destroying, Event::MarkGone),
];

/// Whether the table permits `actor` to write `to` over `from`.
pub fn permits(from: Option<Status>, actor: Actor, to: Status) -> bool {
    TABLE
        .iter()
        .any(|row| row.from == from && row.event.actor() == actor && row.event.to() == to)
}

/// Why a client's write of `to` over `from` is put back, in words for the client;
/// `None` if it is not. `from` and `to` are different.
pub fn refusal(from: Status, to: Status) -> Option<&'static str> {
    if permits(Some(from), Actor::Client, to) {
        return None;
    }
    Some(match (to, from) {
        (
            Status::PendingDeploy | Status::PendingDestroy | Status::Pausing | Status::Resuming,
            Status::Deploying | Status::PendingDeploy,
        ) => "refused: it is being deployed; wait until it is DEPLOYED or FAILED",
        (
            Status::PendingDeploy | Status::PendingDestroy | Status::Pausing | Status::Resuming,
            Status::Destroying | Status::PendingDestroy,
        ) => "refused: it is being destroyed; wait until it is DESTROYED",
        (Status::PendingDeploy | Status::PendingDestroy | Status::Resuming, Status::Pausing) => {
            "refused: it is being paused; wait until it is PAUSED"
        }
        (Status::PendingDeploy | Status::PendingDestroy | Status::Pausing, Status::Resuming) => {
            "refused: it is being resumed; wait until it is DEPLOYED"
        }
        (Status::PendingDeploy, Status::Deployed) => {
            "refused: it is deployed; destroy it before it is deployed again"
        }
        (Status::PendingDeploy, Status::Paused) => {
            "refused: it is paused; resume it, or destroy it before it is deployed again"
        }
        (Status::PendingDestroy, Status::Destroyed) => "refused: it is destroyed already",
        (Status::Pausing, _) => "refused: only an enclave that is DEPLOYED can be paused",
        (Status::Resuming, _) => "refused: only an enclave that is PAUSED can be resumed",
        _ => "refused: clients may write PENDING_DEPLOY, PENDING_DESTROY, PAUSING and RESUMING",
    })
}

/// The table as a Mermaid state diagram.
pub fn diagram() -> String {
    let mut edges: Vec<(String, Status, Vec<Event>)> = Vec::new();
    for row in TABLE {
        let from = row.from.map_or("[*]", Status::name).to_owned();
        let to = row.event.to();
        match edges.iter_mut().find(|edge| edge.0 == from && edge.1 == to) {
            Some((_, _, events)) => events.push(row.event),
            None => edges.push((from, to, vec![row.event])),
        }
    }
    let mut text = "stateDiagram-v2\n".to_owned();
    for (from, to, events) in edges {
        let labels: Vec<_> = events
            .iter()
            .map(|event| format!("{}, {}", event.actor().name(), event.name()))
            .collect();
        let _ = writeln!(text, "    {from} --> {to}: {}", labels.join(" / "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.name()), Some(status));
        }
        assert_eq!(Status::parse("deployed"), None);
    }

    #[test]
    fn no_transition_is_listed_twice_and_none_leads_nowhere() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(
                !TABLE.iter().skip(index + 1).any(|other| other == row),
                "{row:?}"
            );
            assert_ne!(row.from, Some(row.event.to()), "{row:?}");
        }
        for event in Event::ALL {
            assert!(TABLE.iter().any(|row| row.event == event), "{event:?}");
        }
    }

    #[test]
    fn every_status_in_motion_can_fail_and_every_one_at_rest_can_be_left() {
        for status in Status::ALL {
            if status.is_at_rest() {
                assert!(
                    TABLE
                        .iter()
                        .any(|row| row.from == Some(status) && row.event.actor() == Actor::Client)
                );
            } else {
                assert!(
                    permits(Some(status), Actor::Monitor, Status::Failed),
                    "{status}"
                );
            }
        }
    }

    #[test]
    fn only_the_cleanup_workflow_and_the_monitor_end_in_destroyed() {
        for row in TABLE {
            match row.event.to() {
                Status::Destroying => assert_eq!(row.event.actor(), Actor::Cleanup),
                Status::Destroyed => {
                    assert!(matches!(row.event.actor(), Actor::Cleanup | Actor::Monitor));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_the_contract_refuses_is_refused_with_what_to_do() {
        use Status::{Deployed, Deploying, Destroyed, Destroying, PendingDeploy, PendingDestroy};
        for (from, to) in [
            (Deploying, PendingDestroy),
            (Deploying, PendingDeploy),
            (Deployed, PendingDeploy),
            (Destroying, PendingDestroy),
            (Destroyed, PendingDestroy),
        ] {
            let message = refusal(from, to).unwrap();
            assert!(message.starts_with("refused: "), "{message}");
        }
        for from in Status::ALL {
            for to in Status::ALL {
                let legal = TABLE.iter().any(|row| {
                    row.from == Some(from)
                        && row.event.to() == to
                        && row.event.actor() == Actor::Client
                });
                assert_eq!(refusal(from, to).is_none(), legal, "{from} {to}");
            }
        }
    }

    #[test]
    fn the_manual_shows_this_table() {
        let manual = include_str!("../../../docs/control-plane.md");
        let diagram = diagram();
        assert!(
            manual.contains(&format!("```mermaid\n{diagram}```")),
            "docs/control-plane.md should hold:\n{diagram}"
        );
    }
}
