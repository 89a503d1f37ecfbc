//! Signed results for relying parties, by a key that never leaves KMS.

use std::time::Duration;

use attestation::{Profile, Report};
use attestation_results::{Appraisal, ExternalKey, Issuer};
use control_plane_model::Failure;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Who answers for the results.
const DEVELOPER: &str = "enclave control plane";
/// How long a result is good for.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// KMS's name for what the key does.
const ALGORITHM: &str = "ECDSA_SHA_384";

/// A KMS key of the type `ECC_NIST_P384`.
#[derive(Debug)]
pub struct EarSigner {
    aws: aws_request::Client,
    key_id: String,
    issuer: Issuer,
    public: OnceCell<ExternalKey>,
}

impl EarSigner {
    /// The signer with a key's id or ARN.
    pub fn new(aws: aws_request::Client, key_id: impl Into<String>) -> Self {
        Self {
            aws,
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
            nonce: Some(nonce),
        };
        let token = self
            .issuer
            .unsigned(self.public().await?, &appraisal, now)
            .map_err(Failure::internal)?;
        let signature = self
            .aws
            .kms()
            .sign_digest(&self.key_id, &token.digest(), ALGORITHM)
            .await
            .map_err(|error| Failure::new("ServiceUnavailable", error.to_string()))?;
        token.signed(&signature).map_err(Failure::internal)
    }

    /// The keys that relying parties verify with (RFC 7517, section 5).
    pub(super) async fn jwks(&self) -> Result<Value, Failure> {
        Ok(json!({ "keys": [self.public().await?.jwk()] }))
    }

    async fn public(&self) -> Result<&ExternalKey, Failure> {
        self.public
            .get_or_try_init(|| async {
                let spki = self
                    .aws
                    .kms()
                    .public_key(&self.key_id)
                    .await
                    .map_err(|error| Failure::new("ServiceUnavailable", error.to_string()))?;
                ExternalKey::from_spki(&spki)
                    .map_err(|error| Failure::new("NotConfigured", format!("EAR_KEY_ID: {error}")))
            })
            .await
    }
}
