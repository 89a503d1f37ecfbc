//! The seed as a key of KMS wraps it, in a parameter of Systems Manager. The first enclave
//! of the family has KMS make it; of two that do so at once, the one that stores it first
//! has made it for both.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet_key::{Family, Seed, SeedError};
use hyper::StatusCode;
use manifest::{MAX_CIPHERTEXT_BYTES, WrappedSeed};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::aws::{Answer, CallError, Client, Parameter, Patience, Service, is_of_same_account};
use crate::kms::{Kms, KmsError};

/// How long it may take to have the seed. The agent hears the init's health meanwhile, so that
/// its patience with the boot does not end.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);
/// The member of the encryption context that names the family.
const CONTEXT: &str = "enclave-key-family";

/// What has the wrapped seed, and what unwraps it.
pub(super) struct Store {
    kms: Kms,
    client: Client,
    ssm: Option<Service>,
    wrapped: WrappedSeed,
    context: BTreeMap<String, String>,
}

/// A seed that KMS has unwrapped.
pub(super) struct Opened {
    pub(super) seed: Seed,
    /// Whether this enclave has made it.
    pub(super) is_new: bool,
}

/// What KMS gives with a data key. The key itself is not read: what is used is what is
/// stored.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DataKey {
    ciphertext_blob: String,
}

/// Why there is no seed. No message holds anything of it.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Kms(#[from] KmsError),
    #[error("Systems Manager cannot be called: {0}")]
    Call(#[from] CallError),
    #[error("Systems Manager refused {call}: {}", answer.refusal())]
    Refused {
        call: &'static str,
        answer: Box<Answer>,
    },
    #[error("{0}'s answer is not understood")]
    Answer(&'static str),
    #[error("the parameter is {0}, in another account than the key")]
    OtherAccount(String),
    #[error("the parameter holds no ciphertext of KMS's")]
    Stored,
    #[error("what it unwraps to is no seed: {0}")]
    Seed(#[from] SeedError),
    #[error("the parameter was stored and cannot be read yet")]
    NotReadYet,
    #[error("Systems Manager has no host in the region of [kms]")]
    NoHost,
    #[error("it could not be had within {} s", OPENING_TIMEOUT.as_secs())]
    TimedOut,
}

impl Store {
    /// What has the seed of this family, in a region, of whose hosts FIPS's may be meant.
    pub(super) fn new(
        family: &Family,
        wrapped: &WrappedSeed,
        (region, fips): (&str, bool),
        kms: Kms,
        client: Client,
    ) -> Self {
        Self {
            kms,
            client,
            ssm: Service::regional(aws_endpoint::Service::Ssm, region, fips),
            wrapped: wrapped.clone(),
            context: BTreeMap::from([(CONTEXT.to_owned(), family.to_string())]),
        }
    }

    /// The seed, which is made if there is none. It is tried again for as long as that may
    /// help; the error says what to do.
    pub(super) async fn open(&self) -> Result<Opened, String> {
        let patience = Patience {
            deadline: Instant::now() + OPENING_TIMEOUT,
            longest_pause: OPENING_TIMEOUT,
        };
        let is_new = Cell::new(false);
        let seed = patience
            .attempt(Failure::TimedOut, Failure::is_transient, || {
                self.try_open(&is_new)
            })
            .await
            .map_err(|(failure, _)| self.explain(&failure))?;
        let is_new = is_new.get();
        Ok(Opened { seed, is_new })
    }

    async fn try_open(&self, is_new: &Cell<bool>) -> Result<Seed, Failure> {
        let wrapped = if let Some(wrapped) = self.fetch().await? {
            wrapped
        } else {
            let made = self.make().await?;
            if self.put_first(&made).await? {
                is_new.set(true);
            }
            // What was stored counts, whoever has made it.
            self.fetch().await?.ok_or(Failure::NotReadYet)?
        };
        let key_id = Some(&*self.wrapped.key_id);
        let seed = self.kms.decrypt(&wrapped, key_id, &self.context).await?;
        Ok(Seed::new(&seed)?)
    }

    /// The wrapped seed that is stored, if there is one.
    async fn fetch(&self) -> Result<Option<Vec<u8>>, Failure> {
        let body = json!({ "Name": &*self.wrapped.ssm });
        let answer = self.call("AmazonSSM.GetParameter", &body).await?;
        if answer.status != StatusCode::OK {
            return match answer.refusal().name.as_deref() {
                Some("ParameterNotFound") => Ok(None),
                _ => Err(Failure::refused("GetParameter", answer)),
            };
        }
        let Parameter { arn, value } =
            Parameter::of_answer(&answer.body).ok_or(Failure::Answer("Systems Manager"))?;
        // The parent hands in the credentials, and could hand in those of an account in which
        // it may store what it likes.
        if !is_of_same_account(&arn, &self.wrapped.key_id) {
            return Err(Failure::OtherAccount(arn));
        }
        let wrapped = STANDARD.decode(value.trim());
        wrapped
            .ok()
            .filter(|wrapped| (1..=MAX_CIPHERTEXT_BYTES).contains(&wrapped.len()))
            .map(Some)
            .ok_or(Failure::Stored)
    }

    /// A new wrapped seed, which nobody has unwrapped.
    async fn make(&self) -> Result<String, Failure> {
        let body = json!({
            "KeyId": &*self.wrapped.key_id,
            "NumberOfBytes": Seed::BYTES,
            "EncryptionContext": self.context,
        });
        let body = Zeroizing::new(body.to_string().into_bytes());
        let answer = self
            .kms
            .forward("TrentService.GenerateDataKey", body)
            .await?;
        let data_key: DataKey =
            serde_json::from_slice(&answer.body).map_err(|_| Failure::Answer("KMS"))?;
        Ok(data_key.ciphertext_blob)
    }

    /// Stores it unless another one is there already; false if one is.
    async fn put_first(&self, wrapped: &str) -> Result<bool, Failure> {
        let body = json!({
            "Name": &*self.wrapped.ssm,
            "Value": wrapped,
            "Type": "String",
            "Overwrite": false,
        });
        let answer = self.call("AmazonSSM.PutParameter", &body).await?;
        if answer.status == StatusCode::OK {
            return Ok(true);
        }
        match answer.refusal().name.as_deref() {
            Some("ParameterAlreadyExists") => Ok(false),
            _ => Err(Failure::refused("PutParameter", answer)),
        }
    }

    async fn call(&self, target: &str, body: &Value) -> Result<Answer, Failure> {
        let service = self.ssm.as_ref().ok_or(Failure::NoHost)?;
        let body = Zeroizing::new(body.to_string().into_bytes());
        Ok(self.client.call(service, target, body).await?)
    }

    /// What failed, about what, and what to do.
    fn explain(&self, failure: &Failure) -> String {
        let parameter = &*self.wrapped.ssm;
        let text = format!("the seed in the parameter {parameter}: {failure}");
        match failure.advice() {
            Some(advice) => format!("{text}; {advice}"),
            None => text,
        }
    }
}

impl Failure {
    fn refused(call: &'static str, answer: Answer) -> Self {
        let answer = answer.into();
        Self::Refused { call, answer }
    }

    /// Whether another attempt may help.
    fn is_transient(&self) -> bool {
        match self {
            Self::Kms(error) => error.is_transient(),
            Self::Call(error) => error.is_transient(),
            Self::Refused { answer, .. } => answer.is_transient(),
            Self::NotReadYet | Self::TimedOut => true,
            Self::Answer(_)
            | Self::OtherAccount(_)
            | Self::Stored
            | Self::Seed(_)
            | Self::NoHost => false,
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Kms(KmsError::Refused(answer)) => {
                Some(match answer.refusal().name.as_deref().unwrap_or_default() {
                    "AccessDeniedException" => {
                        "have the key's policy allow kms:Decrypt and kms:GenerateDataKey to the instance's role and to this image's measurements, as `image-builder kms-policy --fleet-key` writes it (in debug mode the measurements are zero)"
                    }
                    "InvalidCiphertextException" | "IncorrectKeyException" => {
                        "what is stored was wrapped by another key, or for another family: put back what was there, or delete the parameter to begin a new family"
                    }
                    "NotFoundException" => "is [kms] in the key's region, and the key there?",
                    _ => "look the error up in the documentation of KMS",
                })
            }
            Self::Refused { .. } => Some(
                "may the instance's role read and create it (ssm:GetParameter, ssm:PutParameter)?",
            ),
            Self::Stored | Self::Seed(_) => {
                Some("put back what was there, or delete the parameter to begin a new family")
            }
            Self::OtherAccount(_) => {
                Some("are the credentials that the agent hands in those of the key's account?")
            }
            Self::NoHost => Some("name an existing region in [kms]"),
            Self::TimedOut => Some("is the parent's agent well?"),
            Self::Kms(_) | Self::Call(_) | Self::Answer(_) | Self::NotReadYet => None,
        }
    }
}
