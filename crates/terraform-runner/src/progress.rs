//! What people see on the item while Terraform runs.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// Between two writes. What is said meanwhile is replaced by the latest.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a write may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line, in characters.
const MAX_LINE: usize = 200;

/// Writes one line to the item, as well as it can: progress is never a reason to
/// fail.
pub struct Progress {
    line: watch::Sender<String>,
    writer: Option<JoinHandle<()>>,
}

impl Progress {
    /// Nobody is told.
    pub fn nowhere() -> Self {
        Self {
            line: watch::Sender::new(String::new()),
            writer: None,
        }
    }

    /// Writes to `progress` of an item while the execution's runner is the one that may.
    pub fn on_item(
        client: Client,
        table: String,
        enclave_id: String,
        execution_arn: String,
    ) -> Self {
        let line = watch::Sender::new(String::new());
        let mut lines = line.subscribe();
        let writer = tokio::spawn(async move {
            while lines.changed().await.is_ok() {
                let line = lines.borrow_and_update().clone();
                let write = write(&client, &table, &enclave_id, &execution_arn, line);
                match timeout(TIMEOUT, write).await {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => debug!(event = "progress-lost", "{why}"),
                    Err(_) => debug!(event = "progress-lost", "no answer within {TIMEOUT:?}"),
                }
                sleep(INTERVAL).await;
            }
        });
        Self {
            line,
            writer: Some(writer),
        }
    }

    /// Says what is being done.
    pub(super) fn say(&self, line: impl AsRef<str>) {
        let line: String = line.as_ref().chars().take(MAX_LINE).collect();
        self.line.send_replace(line);
    }

    /// Ends before the workflow goes on, so that nothing is written after it.
    pub(super) async fn finish(self) {
        if let Some(writer) = self.writer {
            writer.abort();
            let _ = writer.await;
        }
    }
}

async fn write(
    client: &Client,
    table: &str,
    enclave_id: &str,
    execution_arn: &str,
    line: String,
) -> Result<(), String> {
    let now = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .map_err(|error| error.to_string())?;
    // Neither the status nor the owner is read: a runner that IAM lets name them in a
    // condition could write them, too.
    client
        .update_item()
        .table_name(table)
        .key("id", AttributeValue::S(enclave_id.to_owned()))
        .update_expression("SET progress = :progress, updated_at = :now")
        .condition_expression("runner = :own")
        .expression_attribute_values(":own", AttributeValue::S(execution_arn.to_owned()))
        .expression_attribute_values(":progress", AttributeValue::S(line))
        .expression_attribute_values(":now", AttributeValue::S(now))
        .send()
        .await
        .map(drop)
        .map_err(|error| aws_sdk_dynamodb::error::DisplayErrorContext(error).to_string())
}
