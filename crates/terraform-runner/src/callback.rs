//! The workflow that waits for the task.

use std::time::{Duration, Instant};

use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::http::HttpResponse;
use aws_sdk_sfn::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use tokio::time::sleep;
use tracing::warn;

use crate::Report;
use crate::failure::Failure;

/// How often an answer is tried; with doubling pauses that is over four minutes.
const ATTEMPTS: u32 = 8;
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Service limit of a failure's cause, in bytes.
const MAX_CAUSE: usize = 32_768;

/// The way to answer the workflow.
#[derive(Clone)]
pub struct Callback {
    client: Client,
    token: String,
    pause: Duration,
}

impl Callback {
    /// `pause` is the first one between two attempts.
    pub fn new(client: Client, token: String, pause: Duration) -> Self {
        Self {
            client,
            token,
            pause,
        }
    }

    /// Sends heartbeats until the workflow is gone, and says why it is.
    pub(super) async fn beat(&self, interval: Duration, loss: Duration) -> String {
        let mut last = Instant::now();
        loop {
            let result = self
                .client
                .send_task_heartbeat()
                .task_token(&self.token)
                .send()
                .await;
            match result {
                Ok(_) => last = Instant::now(),
                Err(error) => {
                    if let Some(reason) = refused(&error) {
                        return reason.to_owned();
                    }
                    let why = DisplayErrorContext(&error).to_string();
                    warn!(
                        event = "heartbeat-failed",
                        "a heartbeat could not be sent: {why}"
                    );
                    if last.elapsed() > loss {
                        return format!(
                            "no heartbeat has reached it for {} s: {why}",
                            last.elapsed().as_secs()
                        );
                    }
                }
            }
            sleep(interval).await;
        }
    }

    /// Tells the workflow what was done.
    pub(super) async fn succeed(&self, report: &Report) -> Result<(), Failure> {
        let output = serde_json::to_string(report)
            .map_err(|error| Failure::Unreported(error.to_string()))?;
        self.tell(|| {
            self.client
                .send_task_success()
                .task_token(&self.token)
                .output(&output)
                .send()
        })
        .await
    }

    /// Tells the workflow why it failed.
    pub async fn fail(&self, failure: &Failure) -> Result<(), Failure> {
        let mut cause = failure.cause();
        if cause.len() > MAX_CAUSE {
            cause = failure.to_string().chars().take(MAX_CAUSE / 4).collect();
        }
        self.tell(|| {
            self.client
                .send_task_failure()
                .task_token(&self.token)
                .error(failure.name())
                .cause(&cause)
                .send()
        })
        .await
    }

    /// Sends an answer until it is taken, or never will be.
    async fn tell<O, E, F>(&self, send: impl Fn() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut pause = self.pause;
        let mut attempt = 1;
        loop {
            let Err(error) = send().await else {
                return Ok(());
            };
            if let Some(reason) = refused(&error) {
                return Err(Failure::Abandoned(reason.to_owned()));
            }
            let why = DisplayErrorContext(&error).to_string();
            if attempt == ATTEMPTS {
                return Err(Failure::Unreported(why));
            }
            pause = wait(pause, &why).await;
            attempt += 1;
        }
    }
}

async fn wait(pause: Duration, why: &str) -> Duration {
    warn!(
        event = "answer-failed",
        "the workflow could not be told, trying again: {why}"
    );
    // Between half and the whole of it, so that many tasks do not retry together.
    sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    (pause * 2).min(MAX_PAUSE)
}

/// Why the workflow takes no answer any more; the three calls have the same errors.
fn refused<E>(error: &SdkError<E, HttpResponse>) -> Option<&'static str>
where
    E: ProvideErrorMetadata,
{
    match error.as_service_error()?.code()? {
        "TaskTimedOut" => Some("the task has timed out"),
        "TaskDoesNotExist" => Some("the task has ended already"),
        "InvalidToken" => Some("the task's token is not valid"),
        _ => None,
    }
}
