//! The key that messages are encrypted to.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use subtle::Choice;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::malformed::Malformed;
use crate::message::Message;
use crate::padding;
use crate::size::{BLOCK_BYTES, CONTENT_KEY_BYTES};

/// An RSA key that KMS encrypts to.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public_der: Vec<u8>,
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// AWS-LC made none.
    #[error("an RSA key cannot be made: the random number generator or the memory fails")]
    Generate(#[from] Unspecified),
    /// The bytes are not a private key that can be used.
    #[error("the private key cannot be used ({0}): PKCS#8 of an RSA key of 2048 to 8192 bits can")]
    Rejected(#[from] KeyRejected),
}

/// Why a message was not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It has another form than the messages of KMS.
    #[error("this is not an EnvelopedData as KMS sends it: {0}")]
    Malformed(#[from] Malformed),
    /// The key does not open it. This is all that is said, because whoever can have
    /// messages opened would learn the plaintext of others from the difference between a
    /// wrong key, a key of the wrong length and a wrong padding.
    #[error(
        "the EnvelopedData cannot be opened: it was encrypted to another key, or has been changed; ask KMS again with an attestation document that carries this key"
    )]
    Refused,
}

impl RecipientKey {
    /// A new key of 2048 bits.
    pub fn generate() -> Result<Self, KeyError> {
        Self::new(PrivateDecryptingKey::generate(KeySize::Rsa2048)?)
    }

    /// A key that another program has made: `PrivateKeyInfo` (RFC 5208), DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Self::new(PrivateDecryptingKey::from_pkcs8(der)?)
    }

    fn new(private: PrivateDecryptingKey) -> Result<Self, KeyError> {
        Ok(Self {
            public_der: private.public_key().as_der()?.as_ref().to_vec(),
            private: OaepPrivateDecryptingKey::new(private)?,
        })
    }

    /// The public key: `SubjectPublicKeyInfo` (RFC 5280, section 4.1), DER. It is what an
    /// attestation document has in `public_key`.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_der
    }

    /// The plaintext of a message that was encrypted to this key: `CiphertextForRecipient`
    /// of an answer of KMS, base64 decoded.
    pub fn open(&self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let message = Message::parse(message)?;
        // The same steps follow whatever is wrong: with a key that cannot be decrypted a
        // random one takes its place, as RFC 3218 (section 2.3.2) has it against the attack
        // by a million messages, so that neither the error nor the time tells which step
        // failed. The time depends on what anybody can see: the sizes of key and content,
        // and whether the encrypted key is a number below the public modulus.
        let (key, is_unwrapped) = self.unwrap(message.encrypted_key);
        let mut content = message.content;
        let is_decrypted = decrypt(&key, message.initialisation_vector, &mut content).is_ok();
        let (length, is_padded) = padding::unpadded(&content);
        let is_right =
            Choice::from(u8::from(is_unwrapped)) & Choice::from(u8::from(is_decrypted)) & is_padded;
        if !bool::from(is_right) {
            return Err(OpenError::Refused);
        }
        content.truncate(length);
        Ok(content)
    }

    /// The content's key, or a random one, and whether it is the content's.
    fn unwrap(&self, encrypted_key: &[u8]) -> (Zeroizing<[u8; CONTENT_KEY_BYTES]>, bool) {
        let mut key = Zeroizing::new([0; CONTENT_KEY_BYTES]);
        let is_random = rand::fill(key.as_mut_slice()).is_ok();
        let mut buffer = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let unwrapped =
            self.private
                .decrypt(&OAEP_SHA256_MGF1SHA256, encrypted_key, &mut buffer, None);
        let Ok(Ok(unwrapped)) =
            unwrapped.map(|bytes| <&[u8; CONTENT_KEY_BYTES]>::try_from(&*bytes))
        else {
            return (key, false);
        };
        key.copy_from_slice(unwrapped);
        (key, is_random)
    }
}

fn decrypt(
    key: &[u8; CONTENT_KEY_BYTES],
    initialisation_vector: [u8; BLOCK_BYTES],
    content: &mut [u8],
) -> Result<(), Unspecified> {
    let key = DecryptingKey::cbc(UnboundCipherKey::new(&AES_256, key)?)?;
    let vector = DecryptionContext::Iv128(FixedLength::from(initialisation_vector));
    key.decrypt(content, vector).map(|_| ())
}
