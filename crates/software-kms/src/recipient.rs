//! The enclave that an answer is encrypted to.

use std::time::{Duration, SystemTime};

use attestation::{Nonce, Pcr, Policy, Roots, Verifier};
use enveloped_data::{Encoding, seal};

use crate::error::{Kind, Refusal};
use crate::wire::{Blob, Recipient};

/// The one way of encrypting to an enclave that KMS has.
const ALGORITHM: &str = "RSAES_OAEP_SHA_256";
/// Largest document in bytes that the service's model admits.
const MAX_DOCUMENT_BYTES: usize = 262_144;

/// How old a document may be.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// Verifies documents as KMS does.
pub(crate) struct DocumentVerifier {
    verifier: Verifier,
    /// Any image, in debug mode too: a key policy's conditions compare registers, and those
    /// of debug mode are zero.
    policy: Policy,
}

/// What a document proves.
pub(crate) struct Enclave {
    pub(crate) registers: Vec<(u8, Pcr)>,
    public_key: Vec<u8>,
}

impl DocumentVerifier {
    pub(crate) fn new(roots: Roots) -> Self {
        let policy = Policy::builder().allow_any_image().allow_debug();
        let policy = policy.max_age(MAX_AGE).build();
        Self {
            verifier: Verifier::new(roots),
            policy: policy.expect("a policy that demands nothing"),
        }
    }

    pub(crate) fn verify(
        &self,
        recipient: &Recipient,
        now: SystemTime,
    ) -> Result<Enclave, Refusal> {
        let algorithm = recipient.key_encryption_algorithm.as_deref();
        if algorithm != Some(ALGORITHM) {
            return Err(Refusal::constraint(
                "recipient.keyEncryptionAlgorithm",
                &format!("satisfy enum value set: [{ALGORITHM}]"),
            ));
        }
        let document = match &recipient.attestation_document {
            Some(Blob(bytes)) if (1..=MAX_DOCUMENT_BYTES).contains(&bytes.len()) => bytes,
            _ => {
                return Err(Refusal::constraint(
                    "recipient.attestationDocument",
                    "have length between 1 and 262144",
                ));
            }
        };
        let refused = |reason: String| {
            Refusal::new(
                Kind::Validation,
                format!("The attestation document is not valid: {reason}"),
            )
        };
        // Before 1970 there were no documents, and none is fresh.
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now_ms = now.map_or(0, |since| since.as_millis());
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let verification =
            self.verifier
                .verify_at(document, &self.policy, Nonce::Unchallenged, now_ms);
        let accepted = verification
            .outcome
            .map_err(|rejection| refused(format!("{}: {}", rejection.rule, rejection.reason)))?;
        let public_key = accepted
            .public_key()
            .ok_or_else(|| refused("it has no public_key to encrypt to".to_owned()))?;
        let registers = accepted
            .pcrs()
            .filter_map(|(index, pcr)| Some((u8::try_from(index).ok()?, pcr)));
        Ok(Enclave {
            registers: registers.collect(),
            public_key: public_key.to_vec(),
        })
    }
}

impl Enclave {
    /// The value of `CiphertextForRecipient`.
    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Result<Blob, Refusal> {
        seal(&self.public_key, plaintext, Encoding::Kms)
            .map(Blob)
            .map_err(|error| Refusal::new(Kind::Validation, error.to_string()))
    }
}
