//! A seed on its way from one enclave to another: the same suite, without a sender.
//!
//! Who has encrypted it is said by the attestation document that goes with it.

use rustls::crypto::hpke::EncapsulatedSecret;
use zeroize::Zeroizing;

use crate::key::{OpenError, SealError, SealingKey};
use crate::suite::{HPKE, KEY_BYTES, PublicKey};

/// The beginning of HPKE's `info`; the context follows. No sealed secret's begins so.
const INFO: &[u8] = b"enclave key hand-over, version 1\0";

/// Encrypts a seed to the key in a verified document, for a context that the enclave with
/// that key knows: what HPKE encapsulates, and the ciphertext.
pub fn seal_seed(seed: &[u8], recipient: &PublicKey, context: &[u8]) -> Result<Vec<u8>, SealError> {
    let info = [INFO, context].concat();
    let (encapsulated, ciphertext) = HPKE
        .seal(&info, &[], seed, &recipient.hpke())
        .map_err(|_| SealError::Recipient)?;
    Ok([encapsulated.0, ciphertext].concat())
}

impl SealingKey {
    /// The seed, if it was encrypted to this key and for this context.
    pub fn open_seed(
        &self,
        sealed: &[u8],
        context: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(KEY_BYTES).ok_or(OpenError)?;
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let info = [INFO, context].concat();
        let seed = HPKE.open(&encapsulated, &info, &[], ciphertext, self.private());
        seed.map(Zeroizing::new).map_err(|_| OpenError)
    }
}

#[cfg(test)]
mod tests {
    use measurements::Pcr;

    use super::*;
    use crate::{Binding, Sealed, SenderKey, seal};

    const CONTEXT: &[u8] = b"a context";

    #[test]
    fn hand_over_opens_with_its_key_in_its_context_and_unchanged() {
        let (key, other) = (
            SealingKey::generate().unwrap(),
            SealingKey::generate().unwrap(),
        );
        let sealed = seal_seed(&[7; 32], &key.public_key(), CONTEXT).unwrap();
        assert_eq!(*key.open_seed(&sealed, CONTEXT).unwrap(), [7; 32]);
        assert_eq!(other.open_seed(&sealed, CONTEXT), Err(OpenError));
        assert_eq!(key.open_seed(&sealed, b"another"), Err(OpenError));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(key.open_seed(&changed, CONTEXT), Err(OpenError), "{place}");
            assert_eq!(key.open_seed(&sealed[..place], CONTEXT), Err(OpenError));
        }
    }

    /// Neither kind is taken for the other, even under one key.
    #[test]
    fn hand_over_and_sealed_secrets_do_not_open_as_each_other() {
        let key = SealingKey::generate().unwrap();
        let binding = Binding::new("i-1-enc1", [(0, Pcr::new([7; 48]))]);
        let sender = SenderKey::from_pem(include_bytes!("../tests/vectors/sender.key")).unwrap();
        let secret = seal(&[7; 32], "a", &key.public_key(), &binding, &sender).unwrap();
        let secret = Sealed::parse(&secret).unwrap();
        let bytes = [
            secret.content.encapsulated.to_vec(),
            secret.content.ciphertext.to_vec(),
        ]
        .concat();
        let bound_to = [binding.digest().as_slice(), b"a"].concat();
        assert_eq!(key.open_seed(&bytes, &bound_to), Err(OpenError));

        let sealed = seal_seed(&[7; 32], &key.public_key(), &bound_to).unwrap();
        let (encapsulated, ciphertext) = sealed.split_at(KEY_BYTES);
        let mut content = secret.content.clone();
        content.encapsulated = encapsulated.to_vec().into();
        content.ciphertext = ciphertext.to_vec().into();
        let mut envelope = secret.envelope.clone();
        envelope.content = crate::format::encode(&content).into();
        envelope.signature = sender.sign(&envelope.content).into();
        let moved = Sealed { envelope, content };
        let opened = key.open(&moved, &sender.sender(), &binding);
        assert_eq!(opened, Err(OpenError));
    }
}
