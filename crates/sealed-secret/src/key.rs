//! Sealing, and the key that opens.

use std::fmt;

use rustls::crypto::hpke::{EncapsulatedSecret, HpkePrivateKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::binding::Binding;
use crate::format::{
    Content, Envelope, FORMAT_VERSION, MAX_NAME, MAX_SECRET, Sealed, encode, is_name,
};
use crate::sender::{Sender, SenderKey};
use crate::suite::{HPKE, PublicKey, RandomError, SUITE};

/// The beginning of HPKE's `info`; the binding's digest and the name follow.
const INFO: &[u8] = b"enclave sealed secret, version 1\0";

/// Why a secret cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// Nothing, or too much.
    #[error("the secret has {0} bytes: 1 to {MAX_SECRET} can be sealed")]
    Size(usize),
    /// A name that no manifest can declare.
    #[error(
        "the secret's name is not 1 to {MAX_NAME} lower-case letters, digits and hyphens, as a manifest declares it"
    )]
    Name,
    /// A public key with which there is no agreement.
    #[error("nothing can be encrypted to the enclave's key: no enclave made it")]
    Recipient,
}

/// A secret does not open. There is one error for all causes: which one it was is
/// nothing for whoever tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the sealed secret does not open here: it was sealed to another enclave or an earlier boot of this one, the sender's signature is missing, or it was changed: seal it again with `attest seal`"
)]
pub struct OpenError;

/// Seals a secret to the enclave whose verified document has this key and binding.
pub fn seal(
    secret: &[u8],
    name: &str,
    recipient: &PublicKey,
    binding: &Binding,
    sender: &SenderKey,
) -> Result<Vec<u8>, SealError> {
    if !(1..=MAX_SECRET).contains(&secret.len()) {
        return Err(SealError::Size(secret.len()));
    }
    if !is_name(name) {
        return Err(SealError::Name);
    }
    let (encapsulated, ciphertext) = HPKE
        .seal(&info(binding, name), &[], secret, &recipient.hpke())
        .map_err(|_| SealError::Recipient)?;
    let content = encode(&Content {
        version: FORMAT_VERSION,
        suite: SUITE,
        name: name.to_owned(),
        registers: binding.mask(),
        encapsulated: encapsulated.0.into(),
        ciphertext: ciphertext.into(),
    });
    let signature = sender.sign(&content).into();
    Ok(encode(&Envelope {
        content: content.into(),
        signature,
    }))
}

/// The key of one boot. It does not leave the process that made it, and is overwritten
/// when it is dropped.
pub struct SealingKey {
    public: PublicKey,
    private: HpkePrivateKey,
}

impl SealingKey {
    /// A new key.
    pub fn generate() -> Result<Self, RandomError> {
        let (public, private) = HPKE.generate_key_pair().map_err(|_| RandomError)?;
        let public = public.0.try_into().map_err(|_| RandomError)?;
        Ok(Self {
            public: PublicKey::new(public),
            private,
        })
    }

    /// Its public half.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    pub(crate) const fn private(&self) -> &HpkePrivateKey {
        &self.private
    }

    /// The secret, if the sender has signed it and it was sealed to this key, for this
    /// binding. Nothing that others made is decrypted.
    pub fn open(
        &self,
        sealed: &Sealed,
        sender: &Sender,
        binding: &Binding,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let Sealed { content, .. } = sealed;
        if !sealed.is_signed_by(sender) || content.registers != binding.mask() {
            return Err(OpenError);
        }
        let encapsulated = EncapsulatedSecret(content.encapsulated.to_vec());
        let secret = HPKE.open(
            &encapsulated,
            &info(binding, &content.name),
            &[],
            &content.ciphertext,
            &self.private,
        );
        match secret.map(Zeroizing::new) {
            Ok(secret) if !secret.is_empty() => Ok(secret),
            _ => Err(OpenError),
        }
    }
}

impl fmt::Debug for SealingKey {
    /// The public half only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// What the key is derived for. The digest always has its length, so that the name is
/// what is left.
fn info(binding: &Binding, name: &str) -> Vec<u8> {
    [INFO, &binding.digest(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use measurements::Pcr;
    use proptest::prelude::*;

    use super::*;
    use crate::FormatError::{Form, TooLarge, Version};

    const SENDER: &[u8] = include_bytes!("../tests/vectors/sender.key");
    const OTHER: &[u8] = include_bytes!("../tests/vectors/other.key");

    fn binding() -> Binding {
        let registers = [(0, 1), (1, 2), (31, 3)];
        Binding::new(
            "i-1-enc1",
            registers.map(|(index, byte)| (index, Pcr::new([byte; 48]))),
        )
    }

    fn key() -> SealingKey {
        SealingKey::generate().unwrap()
    }

    fn sender() -> SenderKey {
        SenderKey::from_pem(SENDER).unwrap()
    }

    fn sealed(recipient: &SealingKey, secret: &[u8]) -> Vec<u8> {
        let key = recipient.public_key();
        seal(secret, "password", &key, &binding(), &sender()).unwrap()
    }

    /// What comes of bytes that somebody puts.
    fn open(key: &SealingKey, bytes: &[u8]) -> Option<Vec<u8>> {
        let sealed = Sealed::parse(bytes).ok()?;
        let opened = key.open(&sealed, &sender().sender(), &binding()).ok()?;
        Some(opened.to_vec())
    }

    /// Sealed by `tests/vectors/seal.py`, with pyca/cryptography's HPKE and Ed25519.
    #[test]
    fn sealed_by_another_implementation_opens() {
        let private = include_bytes!("../tests/vectors/recipient.raw").to_vec();
        let key = SealingKey {
            public: PublicKey::new([0; 32]),
            private: private.into(),
        };
        let sealed = Sealed::parse(include_bytes!("../tests/vectors/sealed.cbor")).unwrap();
        assert_eq!(sealed.name(), "db-password");
        assert!(sealed.registers().eq([0, 1, 31]));
        let opened = key.open(&sealed, &sender().sender(), &binding());
        assert_eq!(*opened.unwrap(), b"of another implementation");
    }

    #[test]
    fn sealed_secrets_open_in_one_boot_of_one_enclave() {
        let (key, sender) = (key(), sender().sender());
        let sealed = Sealed::parse(&sealed(&key, b"hunter2")).unwrap();
        assert_eq!(*key.open(&sealed, &sender, &binding()).unwrap(), b"hunter2");
        // It may be asked again.
        assert!(key.open(&sealed, &sender, &binding()).is_ok());
        let other_boot = self::key();
        assert_eq!(
            other_boot.open(&sealed, &sender, &binding()),
            Err(OpenError)
        );
        let register = |index: u8, byte| (index, Pcr::new([byte; 48]));
        for other in [
            Binding::new(
                "i-1-enc2",
                [register(0, 1), register(1, 2), register(31, 3)],
            ),
            Binding::new(
                "i-1-enc1",
                [register(0, 9), register(1, 2), register(31, 3)],
            ),
            Binding::new(
                "i-1-enc1",
                [register(0, 1), register(1, 2), register(31, 0)],
            ),
            Binding::new("i-1-enc1", [register(0, 1), register(1, 2)]),
            Binding::new(
                "i-1-enc1",
                [register(0, 1), register(1, 2), register(30, 3)],
            ),
        ] {
            assert_eq!(key.open(&sealed, &sender, &other), Err(OpenError));
        }
    }

    #[test]
    fn sealed_secrets_of_other_senders_do_not_open() {
        let key = key();
        let other = SenderKey::from_pem(OTHER).unwrap();
        let bytes = seal(b"mine", "password", &key.public_key(), &binding(), &other).unwrap();
        let sealed = Sealed::parse(&bytes).unwrap();
        assert!(key.open(&sealed, &other.sender(), &binding()).is_ok());
        let opened = key.open(&sealed, &sender().sender(), &binding());
        assert_eq!(opened, Err(OpenError));
        // One's signature on another's content.
        let of_sender = Sealed::parse(&self::sealed(&key, b"yours")).unwrap();
        let mixed = Sealed {
            envelope: Envelope {
                content: sealed.envelope.content.clone(),
                signature: of_sender.envelope.signature.clone(),
            },
            content: sealed.content.clone(),
        };
        let opened = key.open(&mixed, &sender().sender(), &binding());
        assert_eq!(opened, Err(OpenError));
    }

    #[test]
    fn sealed_secrets_do_not_open_under_another_name() {
        // Even where the sender signs the other name.
        let key = key();
        let mut content = Sealed::parse(&sealed(&key, b"hunter2")).unwrap().content;
        "passwore".clone_into(&mut content.name);
        let bytes = encode(&content);
        let signature = sender().sign(&bytes).into();
        let renamed = encode(&Envelope {
            content: bytes.into(),
            signature,
        });
        assert!(Sealed::parse(&renamed).is_ok());
        assert_eq!(open(&key, &renamed), None);
    }

    #[test]
    fn sealed_secrets_do_not_open_cut_lengthened_or_changed() {
        let key = key();
        let bytes = sealed(&key, b"hunter2");
        assert_eq!(open(&key, &bytes).unwrap(), b"hunter2");
        for length in 0..bytes.len() {
            assert_eq!(open(&key, &bytes[..length]), None, "{length}");
        }
        for byte in 0..=u8::MAX {
            assert_eq!(open(&key, &[&bytes[..], &[byte]].concat()), None);
        }
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                assert_eq!(open(&key, &changed), None, "{place} {bit}");
            }
        }
    }

    #[test]
    fn sealed_secrets_have_the_sizes_that_are_named() {
        let key = key();
        let longest = "n".repeat(MAX_NAME);
        let all = Binding::new("i", (0..32).map(|index| (index, Pcr::ZERO)));
        let bytes = seal(
            &vec![7; MAX_SECRET],
            &longest,
            &key.public_key(),
            &all,
            &sender(),
        );
        let bytes = bytes.unwrap();
        assert!(bytes.len() <= crate::MAX_SEALED, "{}", bytes.len());
        let sealed = Sealed::parse(&bytes).unwrap();
        let opened = key.open(&sealed, &sender().sender(), &all).unwrap();
        assert_eq!(*opened, vec![7; MAX_SECRET]);
        for (secret, name, error) in [
            (&b""[..], "a", SealError::Size(0)),
            (
                &vec![0; MAX_SECRET + 1],
                "a",
                SealError::Size(MAX_SECRET + 1),
            ),
            (b"x", "", SealError::Name),
            (b"x", "A", SealError::Name),
            (b"x", "a/b", SealError::Name),
            (b"x", &"n".repeat(MAX_NAME + 1), SealError::Name),
        ] {
            let sealed = seal(secret, name, &key.public_key(), &binding(), &sender());
            assert_eq!(sealed, Err(error));
        }
        // The points with which every agreement has the same result.
        let zero = PublicKey::new([0; 32]);
        let sealed = seal(b"x", "a", &zero, &binding(), &sender());
        assert_eq!(sealed, Err(SealError::Recipient));
    }

    #[test]
    fn sealed_secrets_of_other_versions_and_sizes_are_told_apart() {
        let key = key();
        let bytes = sealed(&key, b"hunter2");
        let mut content = Sealed::parse(&bytes).unwrap().content;
        content.version = 2;
        let newer = encode(&Envelope {
            content: encode(&content).into(),
            signature: vec![0; 64].into(),
        });
        assert_eq!(Sealed::parse(&newer), Err(Version(2)));
        assert_eq!(
            Sealed::parse(&vec![0; crate::MAX_SEALED + 1]),
            Err(TooLarge)
        );
        assert_eq!(Sealed::parse(b"hunter2"), Err(Form));
        assert_eq!(Sealed::parse(b""), Err(Form));
    }

    #[test]
    fn sealing_keys_are_never_printed() {
        let key = key();
        let printed = format!("{key:?}");
        let private = key.private.secret_bytes();
        assert!(!printed.contains(&format!("{private:?}")), "{printed}");
        assert!(!printed.contains(&hex::encode(private)), "{printed}");
    }

    proptest! {
        #[test]
        fn sealed_secrets_are_read_as_they_are_written_or_not_at_all(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(sealed) = Sealed::parse(&bytes) {
                prop_assert_eq!(encode(&sealed.envelope), bytes);
            }
        }
    }
}
