//! Signed results for relying parties, by a key that never leaves KMS.

use std::time::Duration;

use attestation::{Profile, Report};
use attestation_results::{Appraisal, ExternalKey, Issuer, NonceSource};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use control_plane_model::Failure;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Who answers for the results.
const DEVELOPER: &str = "enclave control plane";
/// How long a result is good for.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A KMS key of the type `ECC_NIST_P384`.
#[derive(Debug)]
pub struct EarSigner {
    kms: Client,
    key_id: String,
    issuer: Issuer,
    public: OnceCell<ExternalKey>,
}

impl EarSigner {
    /// The signer with a key's id or ARN.
    pub fn new(kms: Client, key_id: impl Into<String>) -> Self {
        Self {
            kms,
            key_id: key_id.into(),
            issuer: Issuer {
                developer: DEVELOPER.to_owned(),
                url: None,
                lifetime: LIFETIME,
            },
            public: OnceCell::new(),
        }
    }

    /// The result of a verification as a signed JWT; `now` is in seconds since 1970.
    pub(super) async fn sign(
        &self,
        report: &Report,
        document: &[u8],
        image: &str,
        nonce: &[u8],
        now: u64,
    ) -> Result<String, Failure> {
        let appraisal = Appraisal {
            report,
            document,
            profile: Profile::Enclave,
            policy_ids: &[image],
            nonce: NonceSource::Challenge(nonce),
        };
        let token = self
            .issuer
            .unsigned(self.public().await?, &appraisal, now)
            .map_err(Failure::internal)?;
        let call = self.kms.sign().key_id(&self.key_id);
        let call = call
            .message(Blob::new(token.digest()))
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha384);
        let answer = call
            .send()
            .await
            .map_err(|error| Failure::of_call("Sign", &self.key_id, &error))?;
        let signature = answer.signature().map_or(&[][..], Blob::as_ref);
        token.signed(signature).map_err(Failure::internal)
    }

    /// The keys that relying parties verify with (RFC 7517, section 5).
    pub(super) async fn jwks(&self) -> Result<Value, Failure> {
        Ok(json!({ "keys": [self.public().await?.jwk()] }))
    }

    async fn public(&self) -> Result<&ExternalKey, Failure> {
        self.public
            .get_or_try_init(|| async {
                let call = self.kms.get_public_key().key_id(&self.key_id);
                let answer = call
                    .send()
                    .await
                    .map_err(|error| Failure::of_call("GetPublicKey", &self.key_id, &error))?;
                let spki = answer.public_key().map_or(&[][..], Blob::as_ref);
                ExternalKey::from_spki(spki)
                    .map_err(|error| Failure::new("NotConfigured", format!("EAR_KEY_ID: {error}")))
            })
            .await
    }
}
