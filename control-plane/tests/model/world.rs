//! Everything that can happen next.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

use control_plane::failure::Report;
use control_plane::monitor::{self, Instance, Step};
use control_plane::trigger::{Admission, Change, Decision, undoes};
use control_plane::validation::check_current;
use control_plane::workflows::Progress;
use control_plane_model::attributes::text;
use control_plane_model::caught::Caught;
use control_plane_model::execution::{Action, Input, Reason, execution_arn, sequence};
use control_plane_model::item::{name, timestamp};
use control_plane_model::status::{Actor, Event, Status, permits};
use control_plane_model::update::{Condition, Update};
use time::{Duration, OffsetDateTime};

use crate::item::Item;

pub(crate) const ID: &str = "e-1";
const INSTANCE: &str = "i-1";
const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
/// As the monitor sees it, everything was written long ago.
const MUCH_LATER: OffsetDateTime = NOW.saturating_add(Duration::days(365));
const MACHINE: &str = "arn:aws:states:us-west-2:1:stateMachine:m";
/// The statuses whose records reach the trigger.
const FILTER: [Status; 4] = [
    Status::PendingDeploy,
    Status::PendingDestroy,
    Status::Pausing,
    Status::Resuming,
];

/// How clients write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Style {
    /// They set the status.
    Update,
    /// They write their whole item anew, and drop what they do not know.
    Put,
}

/// What may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) writes: u32,
    /// Records delivered again or never, executions killed, functions that end
    /// half-way.
    pub(crate) faults: u32,
}

#[derive(Debug, Clone, PartialEq, Hash)]
struct Record {
    sequence: u64,
    old: Option<Item>,
    new: Item,
    delivered: bool,
}

#[derive(Debug, Clone, PartialEq, Hash)]
enum Stage {
    Validate,
    Claim,
    /// Terraform and the gate.
    Work,
    Mark,
    HandleError,
    /// The error handler has read and decided, and not yet written.
    WriteError(Held<Update>),
    Done,
}

#[derive(Debug, Clone, PartialEq, Hash)]
struct Execution {
    kind: Reason,
    destroys: bool,
    name: String,
    sequence: String,
    claimed: bool,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct World {
    style: Style,
    budget: Budget,
    item: Item,
    sequence: u64,
    pauses: i64,
    records: Vec<Record>,
    executions: Vec<Execution>,
    /// What EC2 has: nothing, or an instance that runs or not.
    instance: Option<bool>,
    /// Whether the monitor looks at all.
    monitored: bool,
    /// What the monitor has decided, and not yet done.
    step: Option<Held<Step>>,
}

/// What was decided and not yet done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held<T>(T);

impl<T: Debug> Hash for Held<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        format!("{:?}", self.0).hash(state);
    }
}

/// A successor, and what led to it.
pub(crate) type Next = (String, World);

impl World {
    pub(crate) fn new(style: Style, budget: Budget) -> Self {
        Self {
            style,
            budget,
            item: Item::default(),
            sequence: 0,
            pauses: 0,
            records: Vec::new(),
            executions: Vec::new(),
            instance: None,
            monitored: true,
            step: None,
        }
    }

    /// The world without the monitor: nobody gives up for a request that was
    /// forgotten, so that one which was breaks the rule of coming to rest.
    pub(crate) fn unmonitored(self) -> Self {
        Self {
            monitored: false,
            ..self
        }
    }

    /// What must hold in every state.
    pub(crate) fn check(&self) {
        let owners: Vec<_> = self
            .executions
            .iter()
            .filter(|execution| execution.claimed && execution.stage != Stage::Done)
            .map(|execution| &execution.name)
            .collect();
        assert!(owners.len() <= 1, "two executions own the item: {owners:?}");
    }

    /// What must hold where nothing more happens by itself.
    pub(crate) fn check_rest(&self) {
        if let Some(status) = self.item.status() {
            assert!(status.is_at_rest(), "it stays {status} for ever: {self:#?}");
        }
    }

    /// What the system may do next.
    pub(crate) fn system(&self) -> Vec<Next> {
        let mut next = Vec::new();
        self.deliveries(&mut next);
        for index in 0..self.executions.len() {
            self.execute(index, &mut next);
        }
        if self.monitored {
            self.monitor(&mut next);
        }
        next
    }

    /// What clients may do next.
    pub(crate) fn clients(&self) -> Vec<Next> {
        if self.budget.writes == 0 {
            return Vec::new();
        }
        // A whole item that asks for a pause hides from the monitor that an execution
        // goes on, until the trigger has restored what it dropped: the manual tells
        // clients to set the status alone.
        // Pauses are the monitor's work.
        let requests = match self.style {
            Style::Update if self.monitored => &FILTER[..],
            _ => &FILTER[..2],
        };
        requests
            .iter()
            .map(|written| {
                let mut world = self.clone();
                world.budget.writes -= 1;
                let mut item = match self.style {
                    Style::Update => self.item.clone(),
                    Style::Put => Item::default(),
                };
                item.0.insert(name::ID.to_owned(), ID.to_owned());
                item.0
                    .insert(name::STATUS.to_owned(), written.name().to_owned());
                // No two whole items are the same, nor a request and the same again:
                // they say when they were written.
                let again = self.item.status() == Some(*written);
                let at = match self.style {
                    Style::Update if !again => world.updated_at(),
                    _ => timestamp(NOW + std::time::Duration::from_secs(world.sequence)),
                };
                item.0.insert(name::UPDATED_AT.to_owned(), at);
                world.write(item);
                (format!("client writes {written}"), world)
            })
            .collect()
    }

    fn updated_at(&self) -> String {
        timestamp(NOW + Duration::seconds(self.pauses))
    }

    /// Writes the item, and the record of it.
    fn write(&mut self, item: Item) {
        let old = std::mem::replace(&mut self.item, item);
        if old == self.item {
            return;
        }
        self.sequence += 1;
        let record = Record {
            sequence: self.sequence,
            old: (!old.0.is_empty()).then_some(old),
            new: self.item.clone(),
            delivered: false,
        };
        let reaches = self
            .item
            .status()
            .is_some_and(|status| FILTER.contains(&status));
        // What the trigger ignores it may as well not get.
        if reaches && !matches!(record.change().decide(NOW), Decision::Ignore(_)) {
            self.records.push(record);
        }
    }

    /// Makes a conditional write as `actor`, and checks it against the table.
    fn apply(&mut self, actor: Actor, update: &Update) -> bool {
        let mut item = self.item.clone();
        if !item.apply(update) {
            return false;
        }
        let (from, to) = (self.item.status(), item.status());
        if from != to {
            let (from, to) = (from.unwrap(), to.unwrap());
            let legal =
                permits(Some(from), actor, to) || (actor == Actor::Trigger && undoes(from, to));
            assert!(legal, "{actor:?} writes {to} over {from}");
            if to == Status::Paused {
                self.pauses += 1;
                item.0
                    .insert(name::UPDATED_AT.to_owned(), self.updated_at());
            }
        }
        self.write(item);
        true
    }

    fn fault(&self) -> Option<Self> {
        let mut world = self.clone();
        world.budget.faults = world.budget.faults.checked_sub(1)?;
        Some(world)
    }

    fn deliveries(&self, next: &mut Vec<Next>) {
        for (index, record) in self.records.iter().enumerate() {
            let number = record.sequence;
            if record.delivered {
                if let Some(mut world) = self.fault() {
                    world.deliver(index, true);
                    next.push((format!("record {number} again"), world));
                }
                continue;
            }
            let mut world = self.clone();
            if world.deliver(index, true) {
                next.push((format!("record {number}"), world));
                if let Some(mut world) = self.fault() {
                    world.deliver(index, false);
                    world.records[index].delivered = false;
                    next.push((
                        format!("record {number}, and the trigger ends half-way"),
                        world,
                    ));
                }
            }
            if let Some(mut world) = self.fault() {
                world.records[index].delivered = true;
                next.push((format!("record {number} is lost"), world));
            }
            // What a whole item has dropped is known to the record before it alone;
            // streams keep the order of one item's records.
            if self.style == Style::Put {
                break;
            }
        }
    }

    /// Delivers a record; false if the trigger asks for it again later.
    fn deliver(&mut self, index: usize, whole: bool) -> bool {
        self.records[index].delivered = true;
        let change = self.records[index].change();
        match change.decide(NOW) {
            Decision::Start(input) => return self.admit(&change, &input, whole),
            Decision::Refuse {
                instead: Some((owner, input)),
                ..
            } if self.progress(&owner) != Progress::Running => {
                return self.admit(&change, &input, whole);
            }
            Decision::Refuse { put_back, .. } => {
                if !self.apply(Actor::Trigger, &put_back)
                    && let Some(restore) = change.restore(ID)
                {
                    self.apply(Actor::Trigger, &restore);
                }
            }
            Decision::Ignore(_) => {}
        }
        true
    }

    fn admit(&mut self, change: &Change, input: &Input, whole: bool) -> bool {
        let item = self.item.enclave();
        let owner = change.owner(&item).map(|arn| self.progress(&arn));
        match change.admit(&item, owner, NOW) {
            Admission::Ticket(ticket) => {
                if self.apply(Actor::Trigger, &ticket) && whole {
                    self.start(Execution {
                        kind: Reason::Deploy,
                        destroys: input.action == Action::Destroy,
                        name: input.execution_name(),
                        sequence: input.sequence_number.clone(),
                        claimed: false,
                        stage: Stage::Validate,
                    });
                }
            }
            Admission::PutBack(update) | Admission::Restore(update) => {
                self.apply(Actor::Trigger, &update);
            }
            Admission::Later => return false,
            Admission::Past => {}
        }
        true
    }

    /// Starts an execution, unless one of the name was started before.
    fn start(&mut self, execution: Execution) {
        if self.progress(&execution.arn()) == Progress::Absent {
            self.executions.push(execution);
        }
    }

    fn progress(&self, arn: &str) -> Progress {
        match self
            .executions
            .iter()
            .find(|execution| execution.arn() == arn)
        {
            None => Progress::Absent,
            Some(execution) if execution.stage == Stage::Done => Progress::Ended,
            Some(_) => Progress::Running,
        }
    }

    fn execute(&self, index: usize, next: &mut Vec<Next>) {
        let execution = &self.executions[index];
        let mut push = |what: &str, change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            next.push((format!("{}: {what}", execution.name), world));
        };
        let to =
            |stage: Stage| move |world: &mut Self| world.executions[index].stage = stage.clone();
        match &execution.stage {
            Stage::Done => return,
            Stage::Validate if execution.kind == Reason::Resume => {
                push("begins", &to(Stage::Claim));
            }
            Stage::Validate => {
                match check_current(&execution.input(), Some(&self.item.enclave())) {
                    Ok(()) => {
                        push("is valid", &to(Stage::Claim));
                        push("is not valid", &to(Stage::HandleError));
                    }
                    Err(_) => push("is superseded", &to(Stage::Done)),
                }
            }
            Stage::Claim => push("claims", &|world| {
                let (actor, update) = execution.claim();
                let claimed = world.apply(actor, &update);
                let execution = &mut world.executions[index];
                execution.claimed = claimed;
                execution.stage = if claimed { Stage::Work } else { Stage::Done };
            }),
            Stage::Work => {
                push("works", &|world| {
                    world.executions[index].stage = Stage::Mark;
                    match (execution.kind, execution.destroys) {
                        (Reason::Deploy, true) => world.instance = None,
                        (Reason::Deploy, false) => world.instance = Some(true),
                        _ => {}
                    }
                });
                push("fails", &to(Stage::HandleError));
            }
            Stage::Mark => push("marks", &|world| {
                let (actor, update) = execution.mark();
                let marked = world.apply(actor, &update);
                world.executions[index].stage = if marked {
                    Stage::Done
                } else {
                    Stage::HandleError
                };
            }),
            Stage::HandleError => match execution.report().mark(&self.item.enclave(), NOW) {
                Some(update) => push("decides", &to(Stage::WriteError(Held(update)))),
                None => push("is not the owner", &to(Stage::Done)),
            },
            Stage::WriteError(update) => push("writes its failure", &|world| {
                let written = world.apply(Actor::ErrorHandler, &update.0);
                world.executions[index].stage = if written {
                    Stage::Done
                } else {
                    Stage::HandleError
                };
            }),
        }
        if let Some(mut world) = self.fault() {
            world.executions[index].stage = Stage::Done;
            next.push((format!("{} is killed", execution.name), world));
        }
    }

    fn monitor(&self, next: &mut Vec<Next>) {
        if let Some(step) = &self.step {
            let mut world = self.clone();
            world.step = None;
            world.take(&step.0);
            next.push((format!("monitor: {:?}", step.0), world));
            return;
        }
        if !Status::WATCHED
            .iter()
            .any(|status| self.item.status() == Some(*status))
        {
            return;
        }
        let pending = [Status::PendingDeploy, Status::PendingDestroy].map(Some);
        let due = self.records.iter().any(|record| !record.delivered);
        if self.style == Style::Put && due && pending.contains(&self.item.status()) {
            return;
        }
        let item = self.item.enclave();
        let instance = match self.instance {
            None => Instance::Gone,
            Some(true) => Instance::Running(INSTANCE.to_owned()),
            Some(false) => Instance::Stopped(INSTANCE.to_owned()),
        };
        let step = monitor::decide(&item, self.execution_of_item(), &instance, MUCH_LATER);
        if step != Step::Wait {
            let mut world = self.clone();
            world.step = Some(Held(step));
            next.push(("monitor looks".to_owned(), world));
        }
    }

    /// As `Monitor::execution` asks Step Functions.
    fn execution_of_item(&self) -> Option<Progress> {
        let item = self.item.enclave();
        let resuming = item.status() == Some(Status::Resuming);
        if let Some(arn) = &item.execution_arn {
            let progress = self.progress(arn);
            if progress == Progress::Running || !resuming || arn.contains(":resume-") {
                return Some(progress);
            }
        }
        let arn = execution_arn(MACHINE, &monitor::resume_name(&item));
        resuming.then(|| self.progress(&arn))
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Wait => {}
            Step::Stop(_) => self.instance = self.instance.map(|_| false),
            Step::Start(_) => self.instance = self.instance.map(|_| true),
            Step::Attest(name) => self.start(Execution {
                kind: Reason::Resume,
                destroys: false,
                name: name.clone(),
                sequence: String::new(),
                claimed: false,
                stage: Stage::Validate,
            }),
            Step::Write(update) => {
                self.apply(Actor::Monitor, update);
            }
        }
    }
}

impl Record {
    fn change(&self) -> Change {
        Change {
            sequence: sequence(&self.sequence.to_string()),
            old: self.old.as_ref().map(Item::attributes),
            new: Some(self.new.attributes()),
        }
    }
}

impl Execution {
    fn arn(&self) -> String {
        execution_arn(MACHINE, &self.name)
    }

    fn input(&self) -> Input {
        Input {
            enclave_id: ID.to_owned(),
            action: if self.destroys {
                Action::Destroy
            } else {
                Action::Deploy
            },
            sequence_number: self.sequence.clone(),
        }
    }

    fn event_of(&self, claim: bool) -> Event {
        match (self.kind, self.destroys, claim) {
            (Reason::Deploy, false, true) => Event::ClaimDeploy,
            (Reason::Deploy, false, false) => Event::MarkDeployed,
            (Reason::Deploy, true, true) => Event::ClaimDestroy,
            (Reason::Deploy, true, false) => Event::MarkDestroyed,
            _ => Event::MarkResumed,
        }
    }

    /// The workflow's own write, as its definition has it.
    fn claim(&self) -> (Actor, Update) {
        let owner = text(self.arn());
        if self.kind == Reason::Resume {
            let update = Update::amend(ID, NOW)
                .when(Condition::Status(vec![Status::Resuming]))
                .when(Condition::Absent(name::EXECUTION_ARN))
                .set(name::EXECUTION_ARN, owner);
            return (Actor::Attestation, update);
        }
        let event = self.event_of(true);
        let update = Update::transition(ID, event, NOW)
            .when(Condition::Equal(
                name::REQUEST,
                text(self.sequence.as_str()),
            ))
            .set(name::EXECUTION_ARN, owner);
        (event.actor(), update)
    }

    /// The workflow's own write, as its definition has it.
    fn mark(&self) -> (Actor, Update) {
        let event = self.event_of(false);
        let update = Update::transition(ID, event, NOW)
            .when(Condition::Equal(name::EXECUTION_ARN, text(self.arn())));
        (event.actor(), update)
    }

    fn report(&self) -> Report {
        let action = match (self.kind, self.destroys) {
            (Reason::Deploy, false) => "deploy",
            (Reason::Deploy, true) => "destroy",
            _ => "attest",
        };
        Report {
            enclave_id: ID.to_owned(),
            action: action.to_owned(),
            execution_arn: self.arn(),
            error: Caught {
                error: "Failed".to_owned(),
                cause: "why".to_owned(),
            },
            rollback: None,
            reason: (self.kind == Reason::Resume).then_some(Reason::Resume),
        }
    }
}
