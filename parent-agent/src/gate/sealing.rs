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
use super::{Gate, GateError, Last, Round, Submitted};
use crate::event::{self, RequestError};

impl Gate {
    /// Does what is next for the operator's request.
    pub(super) async fn seal(
        &self,
        request: &GateSealing,
        last: &mut Last,
    ) -> Result<Round, GateError> {
        let nonce = &request.nonce;
        match &request.sealed {
            Some(sealed) if last.handed_in.may_answer(nonce) => {
                self.hand_in(nonce, sealed, &mut last.handed_in).await
            }
            None if last.sealing.may_answer(nonce) => self.attest(nonce, &mut last.sealing).await,
            _ => Ok(Round::Idle),
        }
    }

    /// Brings the gate a document of the key that secrets are sealed to.
    async fn attest(&self, request: &str, last: &mut Submitted) -> Result<Round, GateError> {
        let nonce = protocol::nonce(request).map_err(GateError::Answer)?;
        let asked = event::Question::SealingChallenge(nonce).ask(&self.events);
        let document = match asked.await {
            Ok(document) => STANDARD.encode(document),
            Err(RequestError::Refused(reason)) => {
                let settled = self.settle(request, Err(reason)).await?;
                last.answered(request);
                return Ok(settled);
            }
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

    /// Hands the enclave what was sealed to it. If the enclave's answer does not reach the
    /// gate, it is handed in again, which changes nothing: the enclave keeps its first value.
    async fn hand_in(
        &self,
        request: &str,
        sealed: &str,
        last: &mut Submitted,
    ) -> Result<Round, GateError> {
        let sealed = protocol::sealed(sealed).map_err(GateError::Answer)?;
        let handed_in = event::Question::SealedSecret(sealed).ask(&self.events);
        let said = match handed_in.await {
            Ok(_) => Ok(()),
            Err(RequestError::Refused(reason)) => Err(reason),
            Err(error) => return Err(GateError::Secret(error)),
        };
        let settled = self.settle(request, said).await?;
        last.answered(request);
        Ok(settled)
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
                warn!(%function, %enclave, "the enclave has refused a sealed secret, or a document for one, that was asked for through the attestation gate: {reason}");
            }
        }
        Ok(Round::Sealing)
    }
}
