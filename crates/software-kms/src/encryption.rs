//! The calls that encrypt and decrypt.

use key_policy::Action;

use crate::answer::Answer;
use crate::call::{Call, Chosen, Wanted, revealed, sized};
use crate::error::{Kind, Refusal};
use crate::key::Key;
use crate::operation::{Decrypt, Encrypt, ReEncrypt};
use crate::recipient::Enclave;
use crate::symmetric::{Ciphertext, SYMMETRIC_DEFAULT};
use crate::wire::{Blob, Context};

/// Largest plaintext in bytes that is encrypted.
const MAX_PLAINTEXT_BYTES: usize = 4096;
/// Largest ciphertext in bytes that is decrypted.
const MAX_CIPHERTEXT_BYTES: usize = 6144;
/// The condition key of the algorithm.
const ALGORITHM: &[(&str, &str)] = &[("kms:EncryptionAlgorithm", SYMMETRIC_DEFAULT)];

/// What is to be opened, for whom.
struct Opening<'a> {
    action: &'a Action,
    /// As the call names the key's parameter.
    member: &'static str,
    key: Option<&'a str>,
    ciphertext: Option<&'a Blob>,
    context: &'a Context,
    enclave: Option<&'a Enclave>,
}

impl Call<'_> {
    pub(crate) fn decrypt(&self, request: &Decrypt) -> Result<Answer, Refusal> {
        let algorithm = request.encryption_algorithm.as_deref();
        check_algorithm("encryptionAlgorithm", algorithm)?;
        let enclave = self.enclave(request.recipient.as_ref())?;
        let (key, plaintext) = self.open(&Opening {
            action: &Action::DECRYPT,
            member: "keyId",
            key: request.key_id.as_deref(),
            ciphertext: request.ciphertext_blob.as_ref(),
            context: &request.encryption_context,
            enclave: enclave.as_ref(),
        })?;
        let (plaintext, for_recipient) = revealed(plaintext, enclave.as_ref())?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            encryption_algorithm: Some(SYMMETRIC_DEFAULT),
            plaintext: Some(plaintext.unwrap_or_default()),
            ciphertext_for_recipient: for_recipient,
            ..Answer::default()
        })
    }

    pub(crate) fn encrypt(&self, request: &Encrypt) -> Result<Answer, Refusal> {
        let plaintext = request.plaintext.as_ref();
        let plaintext = sized("plaintext", plaintext, MAX_PLAINTEXT_BYTES)?;
        let algorithm = request.encryption_algorithm.as_deref();
        check_algorithm("encryptionAlgorithm", algorithm)?;
        let key = self.key("keyId", request.key_id.as_deref())?;
        let context = &request.encryption_context;
        let ciphertext = self.close(&Action::ENCRYPT, key, plaintext, context)?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            ciphertext_blob: Some(Blob(ciphertext)),
            encryption_algorithm: Some(SYMMETRIC_DEFAULT),
            ..Answer::default()
        })
    }

    pub(crate) fn re_encrypt(&self, request: &ReEncrypt) -> Result<Answer, Refusal> {
        for (member, algorithm) in [
            (
                "sourceEncryptionAlgorithm",
                &request.source_encryption_algorithm,
            ),
            (
                "destinationEncryptionAlgorithm",
                &request.destination_encryption_algorithm,
            ),
        ] {
            check_algorithm(member, algorithm.as_deref())?;
        }
        let key = self.key("destinationKeyId", request.destination_key_id.as_deref())?;
        let (source, plaintext) = self.open(&Opening {
            action: &Action::RE_ENCRYPT_FROM,
            member: "sourceKeyId",
            key: request.source_key_id.as_deref(),
            ciphertext: request.ciphertext_blob.as_ref(),
            context: &request.source_encryption_context,
            enclave: None,
        })?;
        let to = "kms:ReEncryptTo".parse().expect("a call to KMS");
        let context = &request.destination_encryption_context;
        let ciphertext = self.close(&to, key, &plaintext, context)?;
        Ok(Answer {
            key_id: Some(key.arn.to_string()),
            source_key_id: Some(source.arn.to_string()),
            ciphertext_blob: Some(Blob(ciphertext)),
            source_encryption_algorithm: Some(SYMMETRIC_DEFAULT),
            destination_encryption_algorithm: Some(SYMMETRIC_DEFAULT),
            ..Answer::default()
        })
    }

    /// The key of a ciphertext, and what is in it.
    fn open(&self, wanted: &Opening<'_>) -> Result<(&Key, Vec<u8>), Refusal> {
        let bytes = sized("ciphertextBlob", wanted.ciphertext, MAX_CIPHERTEXT_BYTES)?;
        let named = wanted.key.map(|name| self.key(wanted.member, Some(name)));
        let (ciphertext, key, chosen) = match (Ciphertext::parse(bytes), named.transpose()?) {
            (ciphertext, Some(key)) => (ciphertext, key, Chosen::ByName),
            (ciphertext, None) => {
                let ciphertext = ciphertext?;
                let key = self.keys.get(&ciphertext.key);
                let key = key.ok_or_else(|| self.hidden(wanted.action))?;
                (Ok(ciphertext), key, Chosen::ByCiphertext)
            }
        };
        let request = Wanted {
            context: wanted.context,
            enclave: wanted.enclave,
            chosen,
            conditions: ALGORITHM,
            ..Wanted::new(wanted.action)
        };
        self.authorise(key, &request)?;
        let material = key.symmetric(wanted.action)?;
        let ciphertext = ciphertext?;
        if ciphertext.key != key.id {
            return Err(Refusal::new(
                Kind::IncorrectKey,
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ));
        }
        Ok((key, material.decrypt(&ciphertext, wanted.context)?))
    }

    fn close(
        &self,
        action: &Action,
        key: &Key,
        plaintext: &[u8],
        context: &Context,
    ) -> Result<Vec<u8>, Refusal> {
        let wanted = Wanted {
            context,
            conditions: ALGORITHM,
            ..Wanted::new(action)
        };
        self.authorise(key, &wanted)?;
        key.symmetric(action)?.encrypt(plaintext, context)
    }
}

fn check_algorithm(member: &str, algorithm: Option<&str>) -> Result<(), Refusal> {
    match algorithm {
        None | Some(SYMMETRIC_DEFAULT) => Ok(()),
        Some(_) => Err(Refusal::constraint(
            member,
            &format!("satisfy enum value set: [{SYMMETRIC_DEFAULT}]"),
        )),
    }
}
