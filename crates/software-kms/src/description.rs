//! The calls that are about a key, and the one that agrees on a secret with it.

use std::time::SystemTime;

use key_policy::{Account, Action};

use crate::agreement::ECDH;
use crate::answer::{Answer, KeyMetadata};
use crate::call::{Call, Wanted, revealed, sized};
use crate::error::{Kind, Refusal};
use crate::key::{Key, ORIGIN};
use crate::operation::{DeriveSharedSecret, NamedKey};
use crate::wire::Blob;

/// Largest public key in bytes that the service's model admits.
const MAX_PUBLIC_KEY_BYTES: usize = 8192;

impl Call<'_> {
    pub(crate) fn derive_shared_secret(
        &self,
        request: &DeriveSharedSecret,
    ) -> Result<Answer, Refusal> {
        let peer = request.public_key.as_ref();
        let peer = sized("publicKey", peer, MAX_PUBLIC_KEY_BYTES)?;
        if request.key_agreement_algorithm.as_deref() != Some(ECDH) {
            return Err(Refusal::constraint(
                "keyAgreementAlgorithm",
                &format!("satisfy enum value set: [{ECDH}]"),
            ));
        }
        let enclave = self.enclave(request.recipient.as_ref())?;
        let key = self.key("keyId", request.key_id.as_deref())?;
        let action = Action::DERIVE_SHARED_SECRET;
        let wanted = Wanted {
            enclave: enclave.as_ref(),
            conditions: &[("kms:KeyAgreementAlgorithm", ECDH)],
            ..Wanted::new(&action)
        };
        self.authorise(key, &wanted)?;
        let secret = key.agreement(&action)?.secret(peer)?;
        let (secret, for_recipient) = revealed(secret, enclave.as_ref())?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            shared_secret: secret,
            ciphertext_for_recipient: for_recipient,
            key_agreement_algorithm: Some(ECDH),
            key_origin: Some(ORIGIN),
            ..Answer::default()
        })
    }

    pub(crate) fn describe_key(&self, request: &NamedKey) -> Result<Answer, Refusal> {
        let key = self.key("keyId", request.key_id.as_deref())?;
        self.authorise(key, &Wanted::new(&Action::DESCRIBE_KEY))?;
        Ok(Answer {
            key_metadata: Some(metadata(key, self.account)),
            ..Answer::default()
        })
    }

    pub(crate) fn get_public_key(&self, request: &NamedKey) -> Result<Answer, Refusal> {
        let key = self.key("keyId", request.key_id.as_deref())?;
        let action = "kms:GetPublicKey".parse().expect("a call to KMS");
        self.authorise(key, &Wanted::new(&action))?;
        let public_key = key.public_key().ok_or_else(|| {
            let spec = key.spec.name();
            Refusal::new(
                Kind::UnsupportedOperation,
                format!(
                    "{} key spec is {spec} which is not valid for GetPublicKey.",
                    key.arn
                ),
            )
        })?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            public_key: Some(Blob(public_key.to_vec())),
            key_spec: Some(key.spec.name()),
            key_usage: Some(key.spec.usage()),
            key_agreement_algorithms: key.spec.key_agreement_algorithms(),
            ..Answer::default()
        })
    }
}

/// What a key of this account is.
pub(crate) fn metadata(key: &Key, account: &Account) -> KeyMetadata {
    let age = key.created.duration_since(SystemTime::UNIX_EPOCH);
    KeyMetadata {
        account: account.to_string(),
        arn: key.arn.to_string(),
        creation_date: age.unwrap_or_default().as_secs_f64(),
        enabled: true,
        encryption_algorithms: key.spec.encryption_algorithms(),
        key_agreement_algorithms: key.spec.key_agreement_algorithms(),
        key_id: key.id.to_string(),
        key_manager: "CUSTOMER",
        key_spec: key.spec.name(),
        key_state: "Enabled",
        key_usage: key.spec.usage(),
        multi_region: false,
        origin: ORIGIN,
    }
}
