//! The function that runs on a schedule: it moves pauses on, finds what was left
//! behind, and has deployed enclaves attest again.
//!
//! It reads an index of statuses, never the whole table.

mod decide;

use std::collections::HashMap;

use control_plane_model::Failure;
use control_plane_model::execution::{Reason, execution_arn, execution_name};
use control_plane_model::item::{AttestationState, Enclave};
use control_plane_model::status::Status;
use control_plane_model::store::{Outcome, Store};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tracing::{error, info, warn};

use crate::function::emit_metrics;
use crate::workflows::{Progress, Workflows};

pub use decide::{
    ABANDONED, INSTANCE_GONE, Instance, Needs, ORPHAN_LIMIT, QUIET, REQUEST_LIMIT, Step, decide,
    needs, resume_name, should_attest,
};

/// Items that a run looks at, in each status. The rest is next run's.
const MAX_ITEMS: usize = 5000;
/// Instances that EC2 is asked about at once: a filter takes 200 values.
const INSTANCES_AT_ONCE: usize = 200;
/// After this long in motion an enclave counts as stuck.
const STUCK: std::time::Duration = std::time::Duration::from_secs(45 * 60);

/// What a schedule asks for.
#[derive(Debug, Deserialize)]
#[serde(tag = "task", rename_all = "lowercase")]
enum Task {
    /// Move on what is in motion.
    Statuses,
    /// Have what is deployed attest.
    Reattest,
}

/// The monitor.
#[derive(Debug)]
pub struct Monitor {
    store: Store,
    workflows: Workflows,
    aws: aws_request::Client,
    index: String,
}

impl Monitor {
    /// A monitor of the items in an index.
    pub fn new(
        store: Store,
        workflows: Workflows,
        aws: aws_request::Client,
        index: impl Into<String>,
    ) -> Self {
        Self {
            store,
            workflows,
            aws,
            index: index.into(),
        }
    }

    /// Handles an invocation.
    pub async fn handle(&self, event: Value) -> Result<Value, Failure> {
        match serde_json::from_value(event).map_err(Failure::input)? {
            Task::Statuses => self.statuses().await,
            Task::Reattest => self.reattest().await,
        }
    }

    async fn statuses(&self) -> Result<Value, Failure> {
        let now = OffsetDateTime::now_utc();
        let mut items = Vec::new();
        for status in Status::WATCHED {
            items.extend(self.with_status(status).await?);
        }
        let with_instances: Vec<_> = items
            .iter()
            .filter(|item| needs(item, now).instance)
            .map(|item| item.id.as_str())
            .collect();
        let instances = self.instances(&with_instances).await?;
        let (mut moved, mut failed) = (0_u64, 0_u64);
        for item in &items {
            match self.look_at(item, instances.get(&item.id), now).await {
                Ok(true) => moved += 1,
                Ok(false) => {}
                // One item's trouble is not another's.
                Err(failure) => {
                    failed += 1;
                    error!(enclave_id = item.id, error = %failure, "an item is left for later");
                }
            }
        }
        let stuck = items
            .iter()
            .filter(|item| item.is_older(STUCK, now))
            .count();
        emit_metrics(&[
            ("EnclavesInMotion", items.len() as u64),
            ("EnclavesStuck", stuck as u64),
            ("MonitorErrors", failed),
        ]);
        Ok(json!({ "seen": items.len(), "moved": moved, "stuck": stuck, "failed": failed }))
    }

    async fn look_at(
        &self,
        item: &Enclave,
        instance: Option<&Instance>,
        now: OffsetDateTime,
    ) -> Result<bool, Failure> {
        let execution = if needs(item, now).execution {
            self.execution(item).await?
        } else {
            None
        };
        let step = decide(item, execution, instance.unwrap_or(&Instance::Gone), now);
        let id = item.id.as_str();
        match &step {
            Step::Wait => return Ok(false),
            Step::Stop(instance) => self
                .aws
                .ec2()
                .stop(&[instance])
                .await
                .map_err(|error| ec2(&error))?,
            Step::Start(instance) => self
                .aws
                .ec2()
                .start(&[instance])
                .await
                .map_err(|error| ec2(&error))?,
            Step::Attest(name) => self.attest(id, Reason::Resume, name).await?,
            Step::Write(update) => {
                if self.store.apply(update).await? == Outcome::Lost {
                    info!(enclave_id = id, "the item changed meanwhile");
                    return Ok(false);
                }
            }
        }
        info!(
            enclave_id = id,
            status = item.status_text,
            ?step,
            "moved on"
        );
        Ok(true)
    }

    /// How far the execution is that the decision is about.
    async fn execution(&self, item: &Enclave) -> Result<Option<Progress>, Failure> {
        if let Some(arn) = &item.execution_arn {
            let progress = self.workflows.progress(arn).await?;
            let of_pause = arn
                .rsplit(':')
                .next()
                .is_some_and(|name| name.starts_with("resume-"));
            if progress == Progress::Running || item.status() != Some(Status::Resuming) || of_pause
            {
                return Ok(Some(progress));
            }
        }
        if item.status() != Some(Status::Resuming) {
            return Ok(None);
        }
        let arn = execution_arn(self.workflows.attestation_arn()?, &resume_name(item));
        self.workflows.progress(&arn).await.map(Some)
    }

    async fn reattest(&self) -> Result<Value, Failure> {
        let now = OffsetDateTime::now_utc();
        let items = self.with_status(Status::Deployed).await?;
        // A schedule that fires twice starts nothing twice.
        let minute = (now.unix_timestamp() / 60).to_string();
        let (mut started, mut failed) = (0_u64, 0_u64);
        for item in items.iter().filter(|item| should_attest(item, now)) {
            let name = execution_name(Reason::Schedule.name(), &item.id, &minute);
            match self.attest(&item.id, Reason::Schedule, &name).await {
                Ok(()) => started += 1,
                Err(failure) => {
                    failed += 1;
                    error!(enclave_id = item.id, error = %failure, "no attestation was started");
                }
            }
        }
        let unattested = items
            .iter()
            .filter(|item| {
                let state = item
                    .attestation
                    .as_ref()
                    .map(|attestation| attestation.state);
                state == Some(AttestationState::Failed)
            })
            .count();
        emit_metrics(&[
            ("EnclavesDeployed", items.len() as u64),
            ("EnclavesNotAttested", unattested as u64),
            ("MonitorErrors", failed),
        ]);
        Ok(json!({ "deployed": items.len(), "started": started, "failed": failed }))
    }

    async fn attest(&self, id: &str, reason: Reason, name: &str) -> Result<(), Failure> {
        let input = json!({ "enclave_id": id, "reason": reason }).to_string();
        self.workflows
            .start_named(self.workflows.attestation_arn()?, name, input)
            .await
    }

    async fn with_status(&self, status: Status) -> Result<Vec<Enclave>, Failure> {
        let mut items = Vec::new();
        let mut next = None;
        loop {
            let page = self.store.with_status(&self.index, status, next).await?;
            items.extend(page.enclaves.into_iter().filter(|item| !item.is_foreign()));
            next = page.next;
            if next.is_none() {
                return Ok(items);
            }
            if items.len() >= MAX_ITEMS {
                warn!(%status, seen = items.len(), "more items than one run looks at");
                return Ok(items);
            }
        }
    }

    /// The instances of these enclaves. One that is terminated hides none that runs.
    async fn instances(&self, ids: &[&str]) -> Result<HashMap<String, Instance>, Failure> {
        let mut found: HashMap<String, Instance> = HashMap::new();
        for ids in ids.chunks(INSTANCES_AT_ONCE) {
            let instances = self
                .aws
                .ec2()
                .instances(&[("tag:EnclaveId", ids)])
                .await
                .map_err(|error| ec2(&error))?;
            for instance in instances {
                let Some(id) = instance.tags.get("EnclaveId") else {
                    continue;
                };
                let state = Instance::of(&instance.id, &instance.state);
                if state != Instance::Gone || !found.contains_key(id) {
                    found.insert(id.clone(), state);
                }
            }
        }
        Ok(found)
    }
}

fn ec2(error: &aws_request::Error) -> Failure {
    Failure::new("ServiceUnavailable", error.to_string())
}
