//! The function on the table's stream: it starts a workflow for each request, once,
//! and puts back what clients may not write.

mod change;

use std::time::Duration;

use control_plane_model::Failure;
use control_plane_model::attributes::get_text;
use control_plane_model::execution::Input;
use control_plane_model::item::name;
use control_plane_model::store::{Outcome, Store};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::workflows::{Progress, Workflows};

pub use change::{Admission, Change, Decision, Poison, undoes};

/// `error_type` of a write that was put back.
pub const REFUSED: &str = "Refused";
/// `error_type` of a request that cannot be read.
pub const UNREADABLE: &str = "UnreadableRequest";

/// How often, and how long apart, an item is looked at whose last execution is about
/// to end.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);

/// Handles a batch. A record that failed, and all behind it, are delivered again.
pub async fn handle(store: &Store, workflows: &Workflows, event: &Value) -> Value {
    let records = event.get("Records").and_then(Value::as_array);
    for record in records.into_iter().flatten() {
        if let Err(failure) = handle_record(store, workflows, record).await {
            let number = record.pointer("/dynamodb/SequenceNumber");
            error!(error = %failure, sequence_number = ?number, "a record is left for later");
            return json!({ "batchItemFailures": [{ "itemIdentifier": number }] });
        }
    }
    json!({ "batchItemFailures": [] })
}

async fn handle_record(
    store: &Store,
    workflows: &Workflows,
    record: &Value,
) -> Result<(), Failure> {
    let now = OffsetDateTime::now_utc();
    let change = match Change::parse(record) {
        Ok(change) => change,
        Err(poison) => {
            error!(
                enclave_id = poison.id,
                reason = poison.reason,
                "a record is dropped"
            );
            if let Some(update) = poison.reject(now) {
                store.apply(&update).await?;
            }
            return Ok(());
        }
    };
    let id = change
        .new
        .as_ref()
        .and_then(|new| get_text(new, name::ID))
        .unwrap_or_default();
    match change.decide(now) {
        Decision::Start(input) => admit(store, workflows, &change, &input).await?,
        Decision::Refuse {
            instead: Some((owner, input)),
            ..
        } if workflows.progress(&owner).await? != Progress::Running => {
            admit(store, workflows, &change, &input).await?;
        }
        Decision::Refuse {
            put_back, message, ..
        } => {
            let outcome = store.apply(&put_back).await?;
            if outcome == Outcome::Lost
                && let Some(restore) = change.restore(&id)
            {
                store.apply(&restore).await?;
            }
            warn!(
                enclave_id = id,
                message,
                ?outcome,
                "a client's write is put back"
            );
        }
        Decision::Ignore(reason) => info!(enclave_id = id, reason, "nothing to do"),
    }
    Ok(())
}

async fn admit(
    store: &Store,
    workflows: &Workflows,
    change: &Change,
    input: &Input,
) -> Result<(), Failure> {
    let id = input.enclave_id.as_str();
    for _ in 0..ATTEMPTS {
        let Some(item) = store.get(id).await? else {
            info!(enclave_id = id, "the item was deleted");
            return Ok(());
        };
        let owner = match change.owner(&item) {
            Some(arn) => Some(workflows.progress(&arn).await?),
            None => None,
        };
        match change.admit(&item, owner, OffsetDateTime::now_utc()) {
            Admission::Ticket(ticket) => {
                if store.apply(&ticket).await? == Outcome::Done {
                    let name = workflows.start(input).await?;
                    let action = input.action.name();
                    info!(enclave_id = id, action, execution = name, "started");
                    return Ok(());
                }
            }
            Admission::PutBack(put_back) => {
                let outcome = store.apply(&put_back).await?;
                warn!(enclave_id = id, ?outcome, "a client's write is put back");
                return Ok(());
            }
            Admission::Restore(restore) => {
                let outcome = store.apply(&restore).await?;
                warn!(enclave_id = id, ?outcome, "its execution is restored");
                return Ok(());
            }
            Admission::Past => {
                info!(enclave_id = id, "the request is not the item's last");
                return Ok(());
            }
            Admission::Later => sleep(PAUSE).await,
        }
    }
    Err(Failure::new(
        "NotYet",
        format!("the last execution of {id} has not ended yet"),
    ))
}
