//! The attestation gate of the control plane: a Lambda function that calls an
//! enclave deployed only once its document has been verified.
//!
//! The agent asks it for a challenge at an interval, has the enclave make a
//! document with that nonce, and hands it over. It judges nothing: what the gate
//! says is kept for `status`, for metrics and in the log. In the same way it takes
//! sealed secrets to the enclave, also while that boots and waits for them.

mod pace;
mod protocol;
mod sealing;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_clients::{Client, ConfigError, InvokeError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use manifest::Interval;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::enclave::Phase;
use crate::event::{self, Event, RequestError};
use crate::report::{Report, Reporter};
use crate::status::{Board, GateBoard, GateStatus};

use pace::Pace;
use protocol::{ChallengeAnswer, DocumentAnswer, Question};

/// How often the gate is asked, unless it is said.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
/// How often it is looked whether there is something to ask for.
const PHASE_POLL: Duration = Duration::from_millis(250);
/// How often one challenge or request is answered, if the gate goes on asking.
const MAX_SUBMISSIONS: u32 = 5;

/// Which gate is asked, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// The Lambda function.
    pub function: FunctionName,
    /// The enclave's identifier in the control plane.
    pub enclave_id: String,
    /// How often it is asked.
    pub interval: Duration,
}

/// The attestation gate of a control plane.
#[derive(Debug, Args)]
#[command(next_help_heading = "Attestation gate")]
pub struct GateArgs {
    /// Answer the challenges of this Lambda function.
    #[arg(long = "gate", value_name = "FUNCTION")]
    pub function: Option<FunctionName>,
    /// How often it is asked [default: 30s].
    #[arg(long = "gate-interval", value_name = "TIME", requires = "function")]
    pub interval: Option<Interval>,
    /// The enclave's identifier in the control plane [default: its name].
    #[arg(long, value_name = "ID", requires = "function")]
    pub enclave_id: Option<String>,
}

impl GateArgs {
    /// The gate, which may be `configured` as well; `id` is the enclave's unless it
    /// is said.
    pub(crate) fn config(self, id: &str, configured: Option<GateConfig>) -> Option<GateConfig> {
        let Some(function) = self.function else {
            return configured;
        };
        Some(GateConfig {
            function,
            enclave_id: self.enclave_id.unwrap_or_else(|| id.to_owned()),
            interval: self
                .interval
                .map_or(DEFAULT_INTERVAL, Interval::as_duration),
        })
    }
}

/// A Lambda function's name or ARN: 1 to 170 letters, digits and `- _ : $ .`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionName(String);

impl FunctionName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FunctionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:$.".contains(&byte);
        if (1..=170).contains(&text.len()) && text.bytes().all(is_allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err("a function's name or ARN has 1 to 170 letters, digits and - _ : $ .".to_owned())
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a round with the gate came to nothing.
#[derive(Debug, Error)]
enum GateError {
    /// The function could not be invoked, or has failed.
    #[error("{0}")]
    Invoke(#[from] InvokeError),
    /// Its answer is of another kind.
    #[error("the gate's answer cannot be parsed: {0}")]
    Answer(String),
    /// The enclave made no document.
    #[error("the enclave made no document: {0}")]
    Document(#[from] RequestError),
    /// The enclave said nothing to a secret.
    #[error("the enclave did not answer to a sealed secret: {0}")]
    Secret(RequestError),
}

impl GateError {
    /// What an operator can do about it.
    fn advice(&self) -> &'static str {
        match self {
            Self::Invoke(InvokeError::Service(error)) if error.is_denied() => {
                "; allow lambda:InvokeFunction on it to the instance's role"
            }
            Self::Invoke(InvokeError::Service(error)) if error.is_not_found() => {
                "; name the function that the control plane has"
            }
            Self::Answer(_) => "; agent and control plane must be of releases that fit",
            _ => "",
        }
    }
}

/// How a round ended that reached its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nobody wants to know.
    Idle,
    /// The document was accepted.
    Accepted,
    /// The document was refused.
    Refused,
    /// Something was done for a sealed secret.
    Sealing,
}

/// Why the gate is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Occasion {
    /// The enclave is ready.
    Ready,
    /// It boots, and waits for what is said here before its workload starts.
    Waits(String),
}

/// How a gate is asked.
#[derive(Debug, Clone)]
pub(crate) struct GateClient {
    config: GateConfig,
    lambda: Client,
}

impl GateClient {
    /// A client of the gate, which is not asked yet.
    pub(crate) async fn new(config: GateConfig, region: Option<&str>) -> Result<Self, ConfigError> {
        let lambda = Client::new(region).await?;
        Ok(Self { config, lambda })
    }

    /// What is known of the gate: nothing yet.
    pub(crate) fn board(&self) -> Arc<GateBoard> {
        Arc::new(GateBoard::new(self.config.function.as_str()))
    }
}

/// Asks the gate on behalf of one enclave.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) client: GateClient,
    pub(crate) board: Arc<Board>,
    pub(crate) outcome: Arc<GateBoard>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) reporter: Reporter,
}

impl Gate {
    /// Asks until the future is dropped.
    pub(crate) async fn serve(self) {
        let mut pace = Pace::new(self.client.config.interval, Instant::now());
        let mut was_ready = false;
        let mut last = Last::default();
        loop {
            let pause = match self.occasion() {
                Some(occasion) => {
                    let is_ready = occasion == Occasion::Ready;
                    if is_ready && !was_ready {
                        pace = Pace::new(self.client.config.interval, Instant::now());
                    }
                    was_ready = is_ready;
                    self.turn(&occasion, &mut last, &mut pace).await
                }
                None => PHASE_POLL,
            };
            sleep(pause).await;
        }
    }

    /// Why the gate is asked now, if it is.
    fn occasion(&self) -> Option<Occasion> {
        self.board.update(|live| match live.phase {
            Phase::Ready => Some(Occasion::Ready),
            // For secrets, for the seed of its family, or for its health: before the control
            // channel is up, nothing is known of them.
            Phase::Booting
                if !live.health.detail.is_empty()
                    || live.secrets.is_some_and(|secrets| secrets.missing() > 0) =>
            {
                Some(Occasion::Waits(live.health.detail.clone()))
            }
            _ => None,
        })
    }

    /// One round, its result noted, and the pause after it.
    async fn turn(&self, occasion: &Occasion, last: &mut Last, pace: &mut Pace) -> Duration {
        match self.round(occasion, last).await {
            Ok(round) => {
                if self.outcome.update(GateStatus::reached) {
                    info!(function = %self.client.config.function, enclave = %self.client.config.enclave_id, "the attestation gate answers again");
                }
                match round {
                    Round::Idle => pace.idle(Instant::now()),
                    Round::Accepted => pace.accepted(),
                    Round::Refused => pace.failed(),
                    Round::Sealing => pace.awaited(Instant::now()),
                }
            }
            Err(error) => {
                let text = format!("{error}{}", error.advice());
                if self.outcome.update(|status| status.failed(&text)) {
                    warn!(function = %self.client.config.function, enclave = %self.client.config.enclave_id, "the attestation gate could not be served: {text}");
                }
                pace.failed()
            }
        }
    }

    async fn round(&self, occasion: &Occasion, last: &mut Last) -> Result<Round, GateError> {
        let question = Question::Challenge {
            enclave_id: &self.client.config.enclave_id,
            waiting: match occasion {
                Occasion::Ready => None,
                Occasion::Waits(detail) => Some(detail.as_str()).filter(|text| !text.is_empty()),
            },
        };
        let answer: ChallengeAnswer = self.ask(&question).await?;
        // A workload that does not run yet is not what a deployment asks for.
        if *occasion == Occasion::Ready
            && let Some(challenge) = answer.challenge
            && last.challenge.may_answer(&challenge.nonce)
        {
            return self.answer(&challenge.nonce, &mut last.challenge).await;
        }
        match answer.sealing {
            Some(request) => self.seal(&request, last).await,
            None => Ok(Round::Idle),
        }
    }

    /// Has the enclave answer a challenge.
    async fn answer(&self, challenge: &str, last: &mut Submitted) -> Result<Round, GateError> {
        let nonce = protocol::nonce(challenge).map_err(GateError::Answer)?;
        let document = event::Question::Challenge(nonce).ask(&self.events).await?;
        let document = STANDARD.encode(document);
        let self_check = self.board.update(|live| live.self_check.clone());
        let question = Question::Document {
            enclave_id: &self.client.config.enclave_id,
            document: &document,
            self_check: self_check.as_ref(),
        };
        let answer: DocumentAnswer = self.ask(&question).await?;
        last.answered(challenge);
        self.note(&answer);
        Ok(if answer.accepted {
            Round::Accepted
        } else {
            Round::Refused
        })
    }

    fn note(&self, answer: &DocumentAnswer) {
        let message = plain_text::plain(&answer.message);
        let (accepted, function) = (answer.accepted, &self.client.config.function);
        self.outcome
            .update(|status| status.answered(accepted, &message));
        let enclave = &self.client.config.enclave_id;
        if accepted {
            info!(%function, %enclave, "the attestation gate has accepted the enclave's document");
        } else {
            warn!(%function, %enclave, "the attestation gate has refused the enclave's document: {message}");
        }
        self.reporter.report(&Report::Gate {
            accepted,
            message: &message,
        });
    }

    /// Invokes the function. That a question arrives twice does no harm.
    async fn ask<T: DeserializeOwned>(&self, question: &impl Serialize) -> Result<T, GateError> {
        let payload =
            serde_json::to_vec(question).map_err(|error| GateError::Answer(error.to_string()))?;
        let answer = self
            .client
            .lambda
            .invoke(self.client.config.function.as_str(), Bytes::from(payload))
            .await?;
        serde_json::from_slice(&answer).map_err(|error| GateError::Answer(error.to_string()))
    }
}

/// What was answered last.
#[derive(Debug, Default)]
struct Last {
    challenge: Submitted,
    /// Questions for a document to seal a secret to.
    sealing: Submitted,
    /// Secrets that the enclave was handed.
    handed_in: Submitted,
}

/// The challenge that was answered last, and how often.
#[derive(Debug, Default)]
struct Submitted {
    nonce: String,
    times: u32,
}

impl Submitted {
    fn may_answer(&self, nonce: &str) -> bool {
        self.nonce != nonce || self.times < MAX_SUBMISSIONS
    }

    fn answered(&mut self, nonce: &str) {
        if self.nonce == nonce {
            self.times += 1;
        } else {
            nonce.clone_into(&mut self.nonce);
            self.times = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_not_answered_for_ever() {
        let mut last = Submitted::default();
        for _ in 0..MAX_SUBMISSIONS {
            assert!(last.may_answer("aa"));
            last.answered("aa");
        }
        assert!(!last.may_answer("aa"));
        assert!(last.may_answer("bb"));
    }

    #[test]
    fn functions_are_named_as_the_service_takes_them() {
        for good in [
            "gate",
            "arn:aws:lambda:us-west-2:123456789012:function:gate:$LATEST",
        ] {
            good.parse::<FunctionName>().unwrap();
        }
        for bad in ["", "a b", "a/b", &"x".repeat(171)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }
}
