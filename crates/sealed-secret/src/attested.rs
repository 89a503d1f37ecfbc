//! Sealing to an enclave whose document was accepted, and to nothing else.

use attestation::{Purpose, VerifiedClaims};
use thiserror::Error;

use crate::binding::Binding;
use crate::key::{SealError, seal};
use crate::sender::SenderKey;
use crate::suite::{PublicKey, PublicKeyError};

/// Why a secret cannot be sealed to an enclave.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealToError {
    /// A document in which somebody else may have chosen the key.
    #[error(
        "the document was not made for sealing, so its public_key is not one that secrets are sealed to: ask for one with the purpose `sealing`"
    )]
    Purpose,
    /// A key of another kind.
    #[error("the document's public_key cannot be sealed to: {0}")]
    Key(#[from] PublicKeyError),
    /// The secret or its name.
    #[error(transparent)]
    Secret(#[from] SealError),
}

/// Seals a secret to the enclave that these claims are of: to the key in its document,
/// bound to the module and to every register that the document holds. The caller's policy
/// has decided which enclave that may be.
pub fn seal_to(
    claims: &VerifiedClaims,
    secret: &[u8],
    name: &str,
    sender: &SenderKey,
) -> Result<Vec<u8>, SealToError> {
    if claims.purpose() != Some(Purpose::Sealing) {
        return Err(SealToError::Purpose);
    }
    let key = PublicKey::from_spki(claims.public_key().unwrap_or_default())?;
    let registers = claims
        .pcrs()
        .filter_map(|(index, value)| Some((u8::try_from(index).ok()?, value)));
    let binding = Binding::new(claims.module_id(), registers);
    Ok(seal(secret, name, &key, &binding, sender)?)
}

#[cfg(test)]
mod tests {
    use attestation::{Nonce, Policy, Roots, Verifier};
    use measurements::{Measurements, Pcr};
    use nsm::{Request, Response};
    use software_nsm::{Identity, SoftwareNsm, TestRoot};

    use super::*;
    use crate::{Sealed, SealingKey};

    const SENDER: &[u8] = include_bytes!("../tests/vectors/sender.key");

    /// The claims of an accepted document with this purpose and key, and its registers.
    fn claims(user_data: &[u8], key: Option<Vec<u8>>) -> (VerifiedClaims, Binding) {
        let root = TestRoot::generate().unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: Some(Measurements {
                pcr0: Pcr::new([1; 48]),
                pcr1: Pcr::new([2; 48]),
                pcr2: Pcr::new([3; 48]),
                pcr8: None,
            }),
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        let request = Request::Attestation {
            user_data: Some(user_data.to_vec().into()),
            nonce: Some(b"nonce".to_vec().into()),
            public_key: key.map(Into::into),
        };
        let Response::Attestation { document } = module.answer(request) else {
            panic!("no document");
        };
        let policy = Policy::builder().allow_any_image().build().unwrap();
        let verification = Verifier::new(roots).verify(&document, &policy, Nonce::Fresh(b"nonce"));
        let claims = VerifiedClaims::from(verification.outcome.unwrap());
        // As the init reads them: from the module.
        let registers: Vec<_> = claims.pcrs().map(|(index, _)| index).collect();
        let registers = registers.into_iter().map(|index| {
            let index = u16::try_from(index).unwrap();
            let Response::DescribePCR { data, .. } = module.answer(Request::DescribePCR { index })
            else {
                panic!("no register {index}");
            };
            let value = Pcr::new(data.try_into().unwrap());
            (u8::try_from(index).unwrap(), value)
        });
        let binding = Binding::new("i-0123456789abcdef0-enc0123456789abcdef", registers);
        (claims, binding)
    }

    #[test]
    fn seal_to_an_accepted_document_opens_in_its_enclave() {
        let key = SealingKey::generate().unwrap();
        let spki = key.public_key().to_spki();
        let (claims, binding) = claims(b"enclave-purpose:sealing", Some(spki));
        let sender = SenderKey::from_pem(SENDER).unwrap();
        let sealed = seal_to(&claims, b"hunter2", "password", &sender).unwrap();
        let sealed = Sealed::parse(&sealed).unwrap();
        let opened = key.open(&sealed, &sender.sender(), &binding).unwrap();
        assert_eq!(*opened, b"hunter2");
    }

    #[test]
    fn seal_to_no_key_that_the_init_has_not_made_for_it() {
        let sender = SenderKey::from_pem(SENDER).unwrap();
        let spki = || Some(SealingKey::generate().unwrap().public_key().to_spki());
        for purpose in [&b"the workload's"[..], b"enclave-purpose:relayed-challenge"] {
            let (claims, _) = claims(purpose, spki());
            let sealed = seal_to(&claims, b"x", "a", &sender);
            assert_eq!(sealed, Err(SealToError::Purpose));
        }
        let (claims, _) = claims(b"enclave-purpose:sealing", spki());
        assert_eq!(
            seal_to(&claims, b"", "a", &sender),
            Err(SealError::Size(0).into())
        );
    }
}
