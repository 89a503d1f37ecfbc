//! The calls that make keys and random bytes for the caller.

use aws_lc_rs::rand;
use key_policy::Action;

use crate::answer::Answer;
use crate::call::{Call, Wanted, revealed};
use crate::error::{Kind, Refusal};
use crate::operation::{GenerateDataKey, GenerateDataKeyPair, GenerateRandom};
use crate::symmetric::SYMMETRIC_DEFAULT;
use crate::wire::Blob;

impl Call<'_> {
    pub(crate) fn generate_data_key(
        &self,
        request: &GenerateDataKey,
        action: &Action,
    ) -> Result<Answer, Refusal> {
        let size = request.size()?;
        let enclave = self.enclave(request.recipient.as_ref())?;
        let key = self.key("keyId", request.key_id.as_deref())?;
        let context = &request.encryption_context;
        let wanted = Wanted {
            context,
            enclave: enclave.as_ref(),
            conditions: &[("kms:EncryptionAlgorithm", SYMMETRIC_DEFAULT)],
            ..Wanted::new(action)
        };
        self.authorise(key, &wanted)?;
        let data_key = random(size)?;
        let ciphertext = key.symmetric(action)?.encrypt(&data_key, context)?;
        let (plaintext, for_recipient) = revealed(data_key, enclave.as_ref())?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            ciphertext_blob: Some(Blob(ciphertext)),
            plaintext: Some(plaintext.unwrap_or_default()),
            ciphertext_for_recipient: for_recipient,
            ..Answer::default()
        })
    }

    pub(crate) fn generate_data_key_pair(
        &self,
        request: &GenerateDataKeyPair,
        action: &Action,
    ) -> Result<Answer, Refusal> {
        let spec = request.spec()?;
        let enclave = self.enclave(request.recipient.as_ref())?;
        let key = self.key("keyId", request.key_id.as_deref())?;
        let context = &request.encryption_context;
        let wanted = Wanted {
            context,
            enclave: enclave.as_ref(),
            conditions: &[
                ("kms:DataKeyPairSpec", spec.name),
                ("kms:EncryptionAlgorithm", SYMMETRIC_DEFAULT),
            ],
            ..Wanted::new(action)
        };
        self.authorise(key, &wanted)?;
        let material = key.symmetric(action)?;
        let pair = spec.generate();
        let pair = pair.map_err(|_| Refusal::bare(Kind::InternalFailure))?;
        let ciphertext = material.encrypt(&pair.private, context)?;
        let (private, for_recipient) = revealed(pair.private, enclave.as_ref())?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            key_pair_spec: Some(spec.name),
            public_key: Some(Blob(pair.public)),
            private_key_ciphertext_blob: Some(Blob(ciphertext)),
            private_key_plaintext: private,
            ciphertext_for_recipient: for_recipient,
            ..Answer::default()
        })
    }

    /// No key policy is about it, and everybody who is known may call it.
    pub(crate) fn generate_random(&self, request: &GenerateRandom) -> Result<Answer, Refusal> {
        let size = request.size()?;
        let enclave = self.enclave(request.recipient.as_ref())?;
        let (plaintext, for_recipient) = revealed(random(size)?, enclave.as_ref())?;
        Ok(Answer {
            plaintext: Some(plaintext.unwrap_or_default()),
            ciphertext_for_recipient: for_recipient,
            ..Answer::default()
        })
    }
}

fn random(size: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = vec![0; size];
    rand::fill(&mut bytes).map_err(|_| Refusal::bare(Kind::InternalFailure))?;
    Ok(bytes)
}
