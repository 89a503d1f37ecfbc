//! KMS for the workload: calls that KMS answers with plaintext carry a document of this
//! enclave, so that KMS encrypts the plaintext to a key of the init's and nobody else
//! reads it, whoever carries the answer and whoever has the credentials.
//!
//! What is sent is decided in `message`, the key and its documents are in `recipient`,
//! and who may call in `caller`.

mod caller;
mod counts;
mod error;
mod failures;
mod message;
mod recipient;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use link::control::FromInit;
use link::kms::Outcome;
use serde_json::json;
use zeroize::Zeroizing;

pub(crate) use self::caller::check as check_caller;
pub(crate) use self::counts::Told;
use self::counts::{Counts, of_answer, of_error};
pub(crate) use self::error::KmsError;
use self::failures::Failures;
use self::message::{AnswerMembers, Released};
use self::recipient::Recipient;
use crate::aws::{Answer, Client, Service};
use crate::logs::Logs;
use crate::security_module::SecurityModule;

/// What signatures name.
const SERVICE: &str = "kms";
/// What `X-Amz-Target` begins with.
const TARGET: &str = "TrentService.";

/// KMS at its endpoint; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Kms(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    service: Service,
    recipient: Recipient,
    counts: Counts,
    failures: Failures,
}

impl Kms {
    /// Starts to make the key; nothing is asked of KMS. Within the runtime.
    pub(crate) fn start(
        client: Client,
        config: &manifest::Kms,
        nsm: SecurityModule,
        logs: Logs,
    ) -> Self {
        let service = Service::new(SERVICE, config.endpoint.clone(), &config.region);
        Self(Arc::new(Shared {
            client,
            service,
            recipient: Recipient::start(nsm),
            counts: Counts::default(),
            failures: Failures::new(logs),
        }))
    }

    /// The plaintext of a ciphertext of KMS's. A key that is named must have encrypted it;
    /// named by its ARN, it is that of the account that the caller means.
    pub(crate) async fn decrypt(
        &self,
        ciphertext: &[u8],
        key_id: Option<&str>,
        encryption_context: &BTreeMap<String, String>,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        // KMS takes null for what is not there.
        let body = json!({
            "CiphertextBlob": STANDARD.encode(ciphertext),
            "EncryptionContext": encryption_context,
            "KeyId": key_id,
        })
        .to_string();
        let released = self
            .release("Decrypt", Released::Plaintext, body.as_bytes())
            .await;
        self.count("Decrypt", &released, |_| Outcome::Answered);
        released.map(|(_, plaintext)| plaintext)
    }

    /// Makes the workload's call, by `X-Amz-Target`, and gives KMS's answer as if KMS had
    /// been called without a recipient. Calls that are answered with no plaintext, and
    /// those that have a recipient of their own, pass as they are.
    pub(crate) async fn forward(
        &self,
        target: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Answer, KmsError> {
        let operation = target
            .strip_prefix(TARGET)
            .ok_or(KmsError::UnknownOperation)?;
        let answered = self.answer(operation, target, body).await;
        let outcome = self.count(operation, &answered, of_answer);
        if outcome != Outcome::Answered {
            let failures = &self.0.failures;
            match &answered {
                Ok(answer) => {
                    let reason = format!("KMS refused the call: {}", answer.refusal());
                    failures.tell(operation, outcome, &reason);
                }
                Err(error) => failures.tell(operation, outcome, error),
            }
        }
        answered
    }

    async fn answer(
        &self,
        operation: &str,
        target: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Answer, KmsError> {
        match Released::by(operation) {
            Some(released) if !message::has_recipient(&body)? => {
                let (members, plaintext) = self.release(operation, released, &body).await?;
                Ok(members.into_answer(released, &plaintext))
            }
            _ => {
                let call = self.0.client.call(&self.0.service, target, body);
                Ok(call.await?)
            }
        }
    }

    fn count<T>(
        &self,
        operation: &str,
        called: &Result<T, KmsError>,
        outcome: impl Fn(&T) -> Outcome,
    ) -> Outcome {
        let outcome = called.as_ref().map_or_else(of_error, outcome);
        self.0.counts.count(operation, outcome);
        outcome
    }

    /// What the agent is to be told of the calls, if that is more than it has been.
    pub(crate) fn news(&self, told: &mut Told) -> Option<FromInit> {
        self.0.counts.news(self.0.service.load(), told)
    }

    /// Makes a call with a recipient, and opens what it releases.
    async fn release(
        &self,
        operation: &str,
        released: Released,
        body: &[u8],
    ) -> Result<(AnswerMembers, Zeroizing<Vec<u8>>), KmsError> {
        let document = self.0.recipient.document().await?;
        let (body, key_id) = message::with_recipient(body, &document)?;
        let target = format!("{TARGET}{operation}");
        let call = self.0.client.call(&self.0.service, &target, body);
        let answer = call.await?;
        if answer.status != StatusCode::OK {
            return Err(KmsError::Refused(answer.into()));
        }
        let mut members = AnswerMembers::parse(answer)?;
        let sealed = members.take_sealed(released)?;
        let plaintext = self.0.recipient.open(sealed).await?;
        members.check_key(key_id.as_deref())?;
        Ok((members, plaintext))
    }
}
