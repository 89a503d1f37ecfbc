//! What the monitor does about one item, from what was read.

use std::time::Duration;

use control_plane_model::attributes::text;
use control_plane_model::execution::{Reason, execution_name};
use control_plane_model::item::{AttestationState, Enclave, name, parse_timestamp, timestamp};
use control_plane_model::status::{Event, Status};
use control_plane_model::update::{Condition, Update};
use time::OffsetDateTime;

use crate::workflows::Progress;

/// `error_type` of an item that nothing works on any more.
pub const ABANDONED: &str = "Abandoned";
/// `error_type` of an item whose instance is gone.
pub const INSTANCE_GONE: &str = "InstanceGone";

/// How long a request may wait for the trigger and for its claim.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long an item in motion is left alone: its execution writes to it.
pub const QUIET: Duration = Duration::from_secs(5 * 60);
/// How long an item in motion may be without an execution, as older systems' are.
pub const ORPHAN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What EC2 says of an enclave's instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Instance {
    /// There is none, or it is being terminated.
    Gone,
    /// It is on its way up or down.
    Changing,
    /// It runs.
    Running(String),
    /// It is stopped.
    Stopped(String),
}

impl Instance {
    /// From an instance's id and state.
    pub fn of(id: &str, state: &str) -> Self {
        match state {
            "running" => Self::Running(id.to_owned()),
            "stopped" => Self::Stopped(id.to_owned()),
            "pending" | "stopping" => Self::Changing,
            _ => Self::Gone,
        }
    }
}

/// What to do about an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing, until the next look.
    Wait,
    /// Stop its instance.
    Stop(String),
    /// Start its instance.
    Start(String),
    /// Start the attestation under this name.
    Attest(String),
    /// Write this.
    Write(Box<Update>),
}

/// What the decision about an item needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// How far the execution is that the item names.
    pub execution: bool,
    /// Its instance.
    pub instance: bool,
}

/// What must be read before [`decide`].
pub fn needs(item: &Enclave, now: OffsetDateTime) -> Needs {
    let nothing = Needs::default();
    let execution = Needs {
        execution: true,
        ..nothing
    };
    match item.status() {
        Some(Status::PendingDeploy | Status::PendingDestroy)
            if item.is_older(REQUEST_LIMIT, now) =>
        {
            execution
        }
        Some(Status::Destroying) if item.execution_arn.is_none() => Needs {
            instance: true,
            ..nothing
        },
        Some(Status::Deploying | Status::Destroying) if item.is_older(QUIET, now) => execution,
        Some(Status::Pausing | Status::Resuming) => Needs {
            execution: true,
            instance: true,
        },
        _ => nothing,
    }
}

/// The name of the attestation that ends a pause. It is the same at each look, and
/// another after the next pause.
pub fn resume_name(item: &Enclave) -> String {
    let since = item.updated_at.as_deref().unwrap_or_default();
    execution_name(
        Reason::Resume.name(),
        &item.id,
        &format!("{} {since}", item.generation),
    )
}

/// What to do about an item. `execution` is how far the one is that the item names,
/// or that [`resume_name`] names where the item names none of this pause.
pub fn decide(
    item: &Enclave,
    execution: Option<Progress>,
    instance: &Instance,
    now: OffsetDateTime,
) -> Step {
    if execution == Some(Progress::Running) {
        return Step::Wait;
    }
    match item.status() {
        Some(Status::PendingDeploy | Status::PendingDestroy) => pending(item, now),
        Some(Status::Destroying) if item.execution_arn.is_none() && *instance == Instance::Gone => {
            write(
                Update::transition(&item.id, Event::MarkGone, now)
                    .when(Condition::Absent(name::EXECUTION_ARN)),
            )
        }
        Some(Status::Deploying | Status::Destroying) => in_motion(item, execution, now),
        Some(Status::Pausing) => pausing(item, instance, now),
        Some(Status::Resuming) => resuming(item, execution, instance, now),
        _ => Step::Wait,
    }
}

fn pending(item: &Enclave, now: OffsetDateTime) -> Step {
    if !item.is_older(REQUEST_LIMIT, now) {
        return Step::Wait;
    }
    let Some(status) = item.status() else {
        return Step::Wait;
    };
    match (&item.request, &item.noticed_at) {
        (Some(request), _) => write(
            abandon(item, status, ABANDONED, "no workflow claimed the request: repeat it", now)
                .when(Condition::Equal(name::REQUEST, text(request.as_str()))),
        ),
        // Its time may be an older write's: it counts from the first look.
        (None, None) => write(
            Update::amend(&item.id, now)
                .when(Condition::Status(vec![status]))
                .when(Condition::Absent(name::REQUEST))
                .set(name::NOTICED_AT, text(timestamp(now))),
        ),
        (None, Some(_)) => write(
            abandon(
                item,
                status,
                ABANDONED,
                "the request never reached a workflow: look at the trigger function's log, then repeat it",
                now,
            )
            .when(Condition::Absent(name::REQUEST)),
        ),
    }
}

fn in_motion(item: &Enclave, execution: Option<Progress>, now: OffsetDateTime) -> Step {
    let limit = if execution.is_some() {
        QUIET
    } else {
        ORPHAN_LIMIT
    };
    let (Some(status), true) = (item.status(), item.is_older(limit, now)) else {
        return Step::Wait;
    };
    write(
        abandon(
            item,
            status,
            ABANDONED,
            "the execution that worked on it ended without a result, as when somebody stops it; request PENDING_DESTROY to remove what it left",
            now,
        )
        .when(owner(item)),
    )
}

fn pausing(item: &Enclave, instance: &Instance, now: OffsetDateTime) -> Step {
    match instance {
        Instance::Running(id) => Step::Stop(id.clone()),
        Instance::Changing => Step::Wait,
        Instance::Stopped(_) => write(
            Update::transition(&item.id, Event::MarkPaused, now)
                .when(owner(item))
                .remove(name::EXECUTION_ARN)
                .remove(name::ERROR_MESSAGE)
                .remove(name::ERROR_TYPE),
        ),
        Instance::Gone => gone(item, Status::Pausing, now),
    }
}

fn resuming(
    item: &Enclave,
    execution: Option<Progress>,
    instance: &Instance,
    now: OffsetDateTime,
) -> Step {
    match (instance, execution) {
        (Instance::Gone, _) => gone(item, Status::Resuming, now),
        (_, Some(Progress::Ended)) => write(
            abandon(
                item,
                Status::Resuming,
                ABANDONED,
                "the attestation after the pause ended without a result; request PENDING_DESTROY, then deploy again",
                now,
            )
            .when(owner(item)),
        ),
        (Instance::Stopped(id), _) => Step::Start(id.clone()),
        (Instance::Changing, _) => Step::Wait,
        (Instance::Running(_), _) => Step::Attest(resume_name(item)),
    }
}

fn gone(item: &Enclave, status: Status, now: OffsetDateTime) -> Step {
    write(
        abandon(
            item,
            status,
            INSTANCE_GONE,
            "its instance is gone; request PENDING_DESTROY to remove what is left, then deploy again",
            now,
        )
        .when(owner(item)),
    )
}

fn abandon(
    item: &Enclave,
    status: Status,
    kind: &str,
    message: &str,
    now: OffsetDateTime,
) -> Update {
    Update::transition(&item.id, Event::Abandon, now)
        .only_from(status)
        .error(kind, message)
        .remove(name::NOTICED_AT)
        .remove(name::PROGRESS)
        .remove(name::RUNNER)
}

/// That the owner is still who it was.
fn owner(item: &Enclave) -> Condition {
    match &item.execution_arn {
        Some(arn) => Condition::Equal(name::EXECUTION_ARN, text(arn.as_str())),
        None => Condition::Absent(name::EXECUTION_ARN),
    }
}

fn write(update: Update) -> Step {
    Step::Write(Box::new(update))
}

/// Whether a deployed enclave should attest now: not while it does so already.
pub fn should_attest(item: &Enclave, now: OffsetDateTime) -> bool {
    item.status() == Some(Status::Deployed)
        && !item.attestation.as_ref().is_some_and(|attestation| {
            attestation.state == AttestationState::Waiting
                && parse_timestamp(&attestation.expires_at).is_some_and(|expires| now < expires)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const ID: &str = "i-1";

    fn item(status: Status, age: Duration) -> Enclave {
        Enclave {
            id: "e-1".to_owned(),
            status_text: Some(status.name().to_owned()),
            updated_at: Some(timestamp(NOW - age)),
            execution_arn: Some("arn".to_owned()),
            ..Enclave::default()
        }
    }

    fn leads_to(step: &Step) -> Option<Status> {
        let Step::Write(update) = step else {
            return None;
        };
        let (_, value) = update.set.iter().find(|(name, _)| *name == name::STATUS)?;
        Status::parse(value.as_s().ok()?)
    }

    #[test]
    fn a_pause_follows_the_instance() {
        let item = item(Status::Pausing, Duration::ZERO);
        let decide = |instance| decide(&item, Some(Progress::Ended), &instance, NOW);
        assert_eq!(
            decide(Instance::Running(ID.to_owned())),
            Step::Stop(ID.to_owned())
        );
        assert_eq!(decide(Instance::Changing), Step::Wait);
        assert_eq!(
            leads_to(&decide(Instance::Stopped(ID.to_owned()))),
            Some(Status::Paused)
        );
        assert_eq!(leads_to(&decide(Instance::Gone)), Some(Status::Failed));
    }

    #[test]
    fn a_resume_starts_the_instance_and_then_the_attestation() {
        let item = item(Status::Resuming, Duration::ZERO);
        let decide = |execution, instance| decide(&item, execution, &instance, NOW);
        let running = || Instance::Running(ID.to_owned());
        assert_eq!(
            decide(Some(Progress::Absent), Instance::Stopped(ID.to_owned())),
            Step::Start(ID.to_owned())
        );
        assert_eq!(
            decide(Some(Progress::Absent), Instance::Changing),
            Step::Wait
        );
        assert_eq!(
            decide(Some(Progress::Absent), running()),
            Step::Attest(resume_name(&item))
        );
        assert_eq!(decide(Some(Progress::Running), running()), Step::Wait);
        assert_eq!(
            leads_to(&decide(Some(Progress::Ended), running())),
            Some(Status::Failed)
        );
        assert_eq!(
            leads_to(&decide(Some(Progress::Absent), Instance::Gone)),
            Some(Status::Failed)
        );
    }

    #[test]
    fn what_an_execution_left_is_abandoned_and_what_it_works_on_is_not() {
        for status in [Status::Deploying, Status::Destroying] {
            let old = item(status, QUIET);
            assert_eq!(
                decide(&old, Some(Progress::Running), &Instance::Gone, NOW),
                Step::Wait
            );
            for progress in [Progress::Ended, Progress::Absent] {
                let step = decide(&old, Some(progress), &Instance::Gone, NOW);
                assert_eq!(leads_to(&step), Some(Status::Failed));
            }
            let young = item(status, Duration::from_secs(10));
            assert_eq!(
                decide(&young, Some(Progress::Ended), &Instance::Gone, NOW),
                Step::Wait
            );
        }
    }

    #[test]
    fn an_old_systems_destruction_ends_with_its_instance() {
        let mut item = item(Status::Destroying, Duration::ZERO);
        item.execution_arn = None;
        assert!(needs(&item, NOW).instance);
        let step = decide(&item, None, &Instance::Gone, NOW);
        assert_eq!(leads_to(&step), Some(Status::Destroyed));
        assert_eq!(
            decide(&item, None, &Instance::Running(ID.to_owned()), NOW),
            Step::Wait
        );
    }

    #[test]
    fn a_request_that_nobody_took_is_noticed_and_then_given_up() {
        let mut item = item(Status::PendingDeploy, REQUEST_LIMIT);
        let notice = decide(&item, None, &Instance::Gone, NOW);
        assert!(matches!(notice, Step::Write(_)));
        assert_eq!(leads_to(&notice), None);
        item.noticed_at = Some(timestamp(NOW - REQUEST_LIMIT));
        let step = decide(&item, None, &Instance::Gone, NOW);
        assert_eq!(leads_to(&step), Some(Status::Failed));
        item.updated_at = Some(timestamp(NOW));
        assert_eq!(decide(&item, None, &Instance::Gone, NOW), Step::Wait);
    }

    #[test]
    fn another_pause_has_another_attestation() {
        let first = resume_name(&item(Status::Resuming, Duration::ZERO));
        let second = resume_name(&item(Status::Resuming, Duration::from_secs(1)));
        assert_ne!(first, second);
    }

    #[test]
    fn ec2s_states_are_known() {
        for (state, instance) in [
            ("pending", Instance::Changing),
            ("running", Instance::Running(ID.to_owned())),
            ("stopping", Instance::Changing),
            ("stopped", Instance::Stopped(ID.to_owned())),
            ("shutting-down", Instance::Gone),
            ("terminated", Instance::Gone),
        ] {
            assert_eq!(Instance::of(ID, state), instance);
        }
    }
}
