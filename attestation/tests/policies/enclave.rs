//! Enclaves in software, whose documents are held against policies.

use attestation::{Nonce, Policy, PolicyBuilder, Roots, Rule, Verifier};
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use software_nsm::{Identity, SoftwareNsm, TestRoot};

pub(crate) const ONE: Measurements = image(1);
pub(crate) const TWO: Measurements = image(2);

pub(crate) const fn image(byte: u8) -> Measurements {
    Measurements {
        pcr0: Pcr::new([byte; 48]),
        pcr1: Pcr::new([byte; 48]),
        pcr2: Pcr::new([byte; 48]),
        pcr8: None,
    }
}

/// An enclave that runs this image.
pub(crate) struct Enclave {
    pub(crate) document: Vec<u8>,
    pub(crate) verifier: Verifier,
}

impl Enclave {
    pub(crate) fn running(measurements: Option<Measurements>) -> Self {
        Self::with_user_data(measurements, b"user data")
    }

    pub(crate) fn with_user_data(measurements: Option<Measurements>, user_data: &[u8]) -> Self {
        Self::asked(measurements, user_data, b"nonce")
    }

    pub(crate) fn with_nonce(nonce: &[u8]) -> Self {
        Self::asked(Some(ONE), b"user data", nonce)
    }

    fn asked(measurements: Option<Measurements>, user_data: &[u8], nonce: &[u8]) -> Self {
        let root = TestRoot::generate().unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".into(),
            enclave_id: "enc0123456789abcdef".into(),
            measurements,
        };
        let answer = SoftwareNsm::new(identity, root)
            .unwrap()
            .answer(Request::Attestation {
                user_data: Some(user_data.to_vec().into()),
                nonce: Some(nonce.to_vec().into()),
                public_key: Some(b"public key".to_vec().into()),
            });
        let Response::Attestation { document } = answer else {
            panic!("{answer:?}");
        };
        Self {
            document,
            verifier: Verifier::new(roots),
        }
    }

    pub(crate) fn refused_by(&self, policy: PolicyBuilder) -> Option<Rule> {
        self.refused(&policy.build().unwrap())
    }

    pub(crate) fn refused(&self, policy: &Policy) -> Option<Rule> {
        self.refused_with(policy, Nonce::Unchallenged)
    }

    pub(crate) fn refused_with(&self, policy: &Policy, nonce: Nonce<'_>) -> Option<Rule> {
        let verification = self.verifier.verify(&self.document, policy, nonce);
        let rejection = verification.outcome.err();
        rejection.map(|rejection| rejection.rule)
    }
}
