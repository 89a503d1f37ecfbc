//! An issuer, and the results that it could sign.

use std::time::Duration;

use attestation::{Document, Measurements, Nonce, Pcr, Policy, Profile, Roots, Verifier};
use attestation_results::{
    Appraisal, Expectations, ExpectationsBuilder, Issuer, Jwks, NonceSource, ResultRule,
    SigningKey, VerifiedResult, verify_at,
};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Signed by AWS.
pub(crate) const DOCUMENT: &[u8] =
    include_bytes!("../../../../attestation/corpus/aws/3a4a0301e6aa2839.cbor");
pub(crate) const NOW: u64 = 1_700_000_000;
pub(crate) const NONCE: [u8; 32] = [7; 32];
pub(crate) const URL: &str = "https://verifier.example";

pub(crate) struct World {
    pub(crate) key: SigningKey,
    pub(crate) pair: EcdsaKeyPair,
    pub(crate) keys: Jwks,
}

pub(crate) fn pcr(index: usize) -> Pcr {
    let document = Document::parse(DOCUMENT).unwrap();
    Pcr::new(*document.unverified_pcr(index).unwrap())
}

pub(crate) fn image() -> Measurements {
    Measurements {
        pcr0: pcr(0),
        pcr1: pcr(1),
        pcr2: pcr(2),
        pcr8: None,
    }
}

pub(crate) fn policy() -> Policy {
    Policy::builder()
        .image("payments 1.4", image())
        .build()
        .unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let (key, pem) = SigningKey::generate().unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(der).unwrap();
        Self {
            pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der).unwrap(),
            keys: Jwks::from_json(json!({ "keys": [key.jwk()] }).to_string().as_bytes()).unwrap(),
            key,
        }
    }

    pub(crate) fn issue(
        &self,
        policy: &Policy,
        nonce: NonceSource<'_>,
        root_of_aws: bool,
    ) -> String {
        let verifier = Verifier::new(Roots::aws());
        let made_ms = Document::parse(DOCUMENT).unwrap().unverified_timestamp_ms();
        let mut verification = verifier.verify_at(DOCUMENT, policy, Nonce::Unchallenged, made_ms);
        if !root_of_aws {
            verification.report.root.as_mut().unwrap().partition = None;
        }
        let issuer = Issuer {
            developer: "Example Ltd".to_owned(),
            url: Some(URL.to_owned()),
            lifetime: Duration::from_secs(300),
        };
        let appraisal = Appraisal {
            report: &verification.report,
            document: DOCUMENT,
            profile: Profile::Enclave,
            policy_ids: &["payments", "sha256:00"],
            nonce,
        };
        issuer.token(&self.key, &appraisal, NOW).unwrap()
    }

    pub(crate) fn good(&self) -> String {
        self.issue(&policy(), NonceSource::Caller(&NONCE), true)
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": "ES384", "kid": self.key.id(), "typ": "eat+jwt" })
    }

    /// These bytes under this header, signed by the key.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.unwrap()))
    }

    /// The good result with another header, signed by the key.
    pub(crate) fn with_header(&self, header: &str) -> String {
        self.sign(header, &claims(&self.good()).to_string())
    }

    /// The good result with other claims, signed by the key.
    pub(crate) fn with_claims(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims(&self.good());
        change(&mut claims);
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    pub(crate) fn verify(
        &self,
        token: &str,
        expectations: ExpectationsBuilder,
    ) -> Result<VerifiedResult, ResultRule> {
        let expectations = expectations.build().unwrap();
        verify_at(token, &self.keys, &expectations, NOW).map_err(|error| {
            assert!(!error.to_string().contains(char::is_control), "{error}");
            error.rule
        })
    }

    pub(crate) fn refused(&self, token: &str) -> ResultRule {
        self.verify(token, usual()).unwrap_err()
    }
}

pub(crate) fn message(header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{claims}")
}

pub(crate) fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

pub(crate) fn usual() -> ExpectationsBuilder {
    Expectations::with_nonce(NONCE)
        .issuer(URL)
        .policy("payments")
}
