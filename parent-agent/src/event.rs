//! What the parts of the agent tell the one that supervises the enclave.

use std::time::Duration;

use link::BootId;
use link::control::{FromAgent, FromInit, KeyStep, MAX_NONCE, MAX_SEALED_SECRET};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::enclave::Phase;

/// Most events that wait.
pub const MAX_EVENTS: usize = 256;
/// How long the enclave may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that the supervisor must know.
#[derive(Debug)]
pub enum Event {
    /// The enclave gave a heartbeat.
    Heartbeat,
    /// The init opened a control connection.
    Connected {
        /// The connection's number.
        connection: u64,
        /// Which boot it is of.
        boot: BootId,
        /// The init's release.
        version: String,
        /// What is sent here goes to the init; dropping it closes the connection.
        sender: mpsc::Sender<FromAgent>,
    },
    /// The init said something.
    Message {
        /// The connection's number.
        connection: u64,
        /// What it said.
        message: FromInit,
    },
    /// A control connection has ended.
    Disconnected {
        /// The connection's number.
        connection: u64,
    },
    /// A peer on the agent's port does not understand this agent.
    Incompatible(String),
    /// Somebody asks for something that the enclave answers.
    Request(Request),
    /// Somebody asks for the end.
    Stop {
        /// What the workload gets between the stop signal and SIGKILL, if not the manifest's.
        grace: Option<Duration>,
        /// Whether a second request means that patience has ended.
        insists: bool,
    },
    /// Somebody wants the enclave to go on without this agent.
    Detach(oneshot::Sender<Result<(), DetachError>>),
}

/// Why an agent does not leave its enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DetachError {
    /// The enclave would end with it.
    #[error(
        "the enclave would end with its agent: it continues without one only if `run` was given --keep-for"
    )]
    NotKept,
    /// The enclave does not run.
    #[error("the enclave is {0}: its agent stays with it")]
    NotRunning(Phase),
}

/// A request that the enclave answers.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub question: Question,
    /// Where the answer goes: a document, what came of a step, or nothing.
    pub reply: oneshot::Sender<Result<Vec<u8>, RequestError>>,
}

/// What the enclave is asked.
#[derive(Debug)]
pub enum Question {
    /// For a document with the verifier's nonce, which is all that it, or this agent, puts
    /// into it.
    Challenge(link::Bytes<MAX_NONCE>),
    /// The same for the key that secrets are sealed to.
    SealingChallenge(link::Bytes<MAX_NONCE>),
    /// To open a sealed secret and keep it.
    SealedSecret(link::Bytes<MAX_SEALED_SECRET>),
    /// To do a step with the seed of its family.
    Keys(KeyStep),
}

impl Question {
    /// Has the enclave answer, within [`ANSWER_TIMEOUT`].
    pub(crate) async fn ask(self, events: &mpsc::Sender<Event>) -> Result<Vec<u8>, RequestError> {
        const ENDING: RequestError = RequestError::NotConnected("ending");
        let (reply, answer) = oneshot::channel();
        let question = self;
        let request = Request { question, reply };
        let answer = async {
            let sent = events.send(Event::Request(request)).await;
            sent.map_err(|_| ENDING)?;
            answer.await.unwrap_or(Err(ENDING))
        };
        let answer = timeout(ANSWER_TIMEOUT, answer).await;
        answer.unwrap_or(Err(RequestError::TimedOut))
    }

    /// The message to the init.
    pub(crate) fn message(self, id: u64) -> FromAgent {
        match self {
            Self::Challenge(nonce) => FromAgent::Challenge { id, nonce },
            Self::SealingChallenge(nonce) => FromAgent::SealingChallenge { id, nonce },
            Self::SealedSecret(sealed) => FromAgent::SealedSecret { id, sealed },
            Self::Keys(step) => FromAgent::Keys { id, step },
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The init is not connected yet, or no longer.
    #[error("the enclave is {0}: try again once it is ready")]
    NotConnected(&'static str),
    /// Too many requests wait for their answers.
    #[error("too many requests are waiting for the enclave's answers: try again")]
    Busy,
    /// The enclave refused.
    #[error("the enclave refused: {0}")]
    Refused(String),
    /// No answer came.
    #[error("the enclave did not answer in time")]
    TimedOut,
}
