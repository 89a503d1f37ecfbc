//! Sealed secrets, on their way from an operator through the gate to the enclave.
//!
//! The agent carries: the operator's nonce to the enclave and its document back, then what
//! was sealed to the key in it, and what the enclave says to that. Whatever it carries
//! instead is refused, by the operator or by the enclave.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tracing::{info, warn};

use super::protocol::{self, DocumentAnswer, GateSealing, Question};
use super::{Gate, GateError, Round, Submitted};
use crate::event::{self, RequestError};

impl Gate {
    /// Does what is next for the operator's request.
    pub(super) async fn seal(
        &self,
        request: &GateSealing,
        last: &mut Submitted,
    ) -> Result<Round, GateError> {
        match &request.sealed {
            Some(sealed) => self.hand_in(&request.nonce, sealed).await,
            None if last.may_answer(&request.nonce) => self.attest(&request.nonce, last).await,
            None => Ok(Round::Idle),
        }
    }

    /// Brings the gate a document of the key that secrets are sealed to.
    async fn attest(&self, request: &str, last: &mut Submitted) -> Result<Round, GateError> {
        let nonce = protocol::nonce(request).map_err(GateError::Answer)?;
        let asked = event::Question::SealingChallenge(nonce).ask(&self.events);
        let document = match asked.await {
            Ok(document) => STANDARD.encode(document),
            Err(RequestError::Refused(reason)) => return self.settle(request, Err(reason)).await,
            Err(error) => return Err(error.into()),
        };
        let answer: DocumentAnswer = self
            .ask(&Question::SealDocument {
                enclave_id: &self.client.config.enclave_id,
                nonce: request,
                document: &document,
            })
            .await?;
        last.answered(request);
        if answer.accepted {
            return Ok(Round::Sealing);
        }
        let message = plain_text::plain(&answer.message);
        let (function, enclave) = (&self.client.config.function, &self.client.config.enclave_id);
        warn!(%function, %enclave, "the attestation gate has refused the enclave's document for a sealed secret: {message}");
        Ok(Round::Refused)
    }

    /// Hands the enclave what was sealed to it. If its answer does not reach the gate, it
    /// is handed in again, of which nothing comes.
    async fn hand_in(&self, request: &str, sealed: &str) -> Result<Round, GateError> {
        let sealed = protocol::sealed(sealed).map_err(GateError::Answer)?;
        let handed_in = event::Question::SealedSecret(sealed).ask(&self.events);
        match handed_in.await {
            Ok(_) => self.settle(request, Ok(())).await,
            Err(RequestError::Refused(reason)) => self.settle(request, Err(reason)).await,
            Err(error) => Err(GateError::Secret(error)),
        }
    }

    /// Tells the gate what the enclave has said.
    async fn settle(&self, request: &str, said: Result<(), String>) -> Result<Round, GateError> {
        let message = said.as_ref().err().map_or("", String::as_str);
        // There is nothing in the answer that an agent would do something about.
        let _: Value = self
            .ask(&Question::SealOutcome {
                enclave_id: &self.client.config.enclave_id,
                nonce: request,
                opened: said.is_ok(),
                message,
            })
            .await?;
        let (function, enclave) = (&self.client.config.function, &self.client.config.enclave_id);
        match said {
            Ok(()) => {
                info!(%function, %enclave, "the enclave has opened a sealed secret that came through the attestation gate");
            }
            Err(reason) => {
                let reason = plain_text::plain(&reason);
                warn!(%function, %enclave, "the enclave has refused to be sealed a secret through the attestation gate: {reason}");
            }
        }
        Ok(Round::Sealing)
    }
}
