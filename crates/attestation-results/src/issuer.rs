//! What a result says, and who issues it.

use std::collections::BTreeMap;
use std::time::Duration;

use attestation::{
    Document, Mode, Outcome, PCR_COUNT, PinnedRoot, Profile, Purpose, Rejection, Report, Rule,
};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use thiserror::Error;

use crate::freshness::{Freshness, NONCE_BYTES, NonceSource};
use crate::signing_key::SigningKey;
use crate::trust::{Status, TrustVector};

/// The profile of draft 04, which fixes the claims' names.
pub(crate) const PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";

/// Larger than the usual result, in bytes of JSON.
const USUAL_CLAIMS: usize = 4096;

/// Why a result cannot be issued.
#[derive(Debug, Error)]
pub enum EarError {
    /// The claims are no JSON.
    #[error("the attestation result cannot be written: {0}")]
    Claims(#[from] serde_json::Error),
    /// The key failed.
    #[error("the attestation result cannot be signed")]
    Signature(#[from] Unspecified),
    /// The nonce cannot be repeated in the result.
    #[error(
        "a result repeats its nonce, which has {0} bytes: EAT allows {start} to {end} (RFC 9711, section 4.1)",
        start = NONCE_BYTES.start(),
        end = NONCE_BYTES.end()
    )]
    Nonce(usize),
    /// A signature that was made elsewhere is not the key's.
    #[error("the attestation result was signed by another key than the one it names")]
    ForeignSignature,
    /// What was found in an audit.
    #[error(
        "an audit looks at another time than now, and an attestation result speaks of now: verify a live document"
    )]
    Audit,
}

/// What every result says of who issued it.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The organisation that answers for the verifier: `developer` of
    /// `ear_verifier_id`.
    pub developer: String,
    /// The claim `iss`, if relying parties shall check one.
    pub url: Option<String>,
    /// From `iat` to `exp`, in whole seconds.
    pub lifetime: Duration,
}

/// What a result is about.
#[derive(Debug, Clone, Copy)]
pub struct Appraisal<'a> {
    /// The verification.
    pub report: &'a Report,
    /// The bytes that were verified.
    pub document: &'a [u8],
    /// The kind of document that the policy is for; it names the `submods` entry.
    pub profile: Profile,
    /// What the policy is known by, the most telling name first.
    pub policy_ids: &'a [&'a str],
    /// The nonce that the document had to carry.
    pub nonce: NonceSource<'a>,
}

#[derive(Serialize)]
struct Claims<'a> {
    eat_profile: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    iat: u64,
    exp: u64,
    ear_verifier_id: VerifierId<'a>,
    ear_status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    eat_nonce: Option<String>,
    submods: BTreeMap<&'static str, Submod<'a>>,
}

#[derive(Serialize)]
struct VerifierId<'a> {
    developer: &'a str,
    build: &'static str,
}

#[derive(Serialize)]
struct Submod<'a> {
    #[serde(rename = "ear_status")]
    status: Status,
    #[serde(rename = "ear_trustworthiness_vector")]
    vector: TrustVector,
    #[serde(rename = "ear_appraisal_policy_ids")]
    policy_ids: &'a [&'a str],
    #[serde(
        rename = "ear_attester_claims",
        skip_serializing_if = "Option::is_none"
    )]
    attester_claims: Option<AttesterClaims<'a>>,
    #[serde(rename = "ear_verifier_claims")]
    verifier_claims: VerifierClaims<'a>,
}

/// What the document holds, in the words of the report.
#[derive(Serialize)]
struct AttesterClaims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    module_id: &'a str,
    timestamp_ms: u64,
    /// Registers that are not zero, by number.
    pcrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

#[derive(Serialize)]
struct VerifierClaims<'a> {
    accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_at_ms: Option<u64>,
    /// The pinned root, where the document's certificates begin with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<&'a PinnedRoot>,
    /// What shows that the document is new; nothing of one that was rejected.
    freshness: Freshness,
    /// The image of the policy that the document is of, by its name there.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<&'a Rejection>,
}

impl Issuer {
    /// The result of a verification as a signed JWT; `now` is in seconds since 1970.
    pub fn token(
        &self,
        key: &SigningKey,
        appraisal: &Appraisal<'_>,
        now: u64,
    ) -> Result<String, EarError> {
        let mut token = self.signing_input(key.jwt_header(), appraisal, now)?;
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Header and claims: what is signed.
    pub(crate) fn signing_input(
        &self,
        header: &str,
        appraisal: &Appraisal<'_>,
        now: u64,
    ) -> Result<String, EarError> {
        let nonce = appraisal.nonce.bytes();
        if let Some(nonce) = nonce
            && !NONCE_BYTES.contains(&nonce.len())
        {
            return Err(EarError::Nonce(nonce.len()));
        }
        let report = appraisal.report;
        if report.mode == Mode::Audit {
            return Err(EarError::Audit);
        }
        let document = authentic(report, appraisal.document);
        let vector = TrustVector::of(report, document.as_ref(), appraisal.profile);
        let status = vector.status(report);
        let submod = Submod {
            status,
            vector,
            policy_ids: appraisal.policy_ids,
            attester_claims: document.as_ref().map(attester_claims),
            verifier_claims: VerifierClaims {
                accepted: report.accepted,
                checked_at_ms: report.checked_at_ms,
                root: report.root.as_ref(),
                freshness: if report.accepted {
                    appraisal.nonce.freshness()
                } else {
                    Freshness::None
                },
                image: image(report),
                rejection: report.rejection.as_ref(),
            },
        };
        let name = submod_name(appraisal.profile);
        let claims = Claims {
            eat_profile: PROFILE,
            iss: self.url.as_deref(),
            iat: now,
            exp: now.saturating_add(self.lifetime.as_secs()),
            ear_verifier_id: VerifierId {
                developer: &self.developer,
                build: concat!("attest ", env!("CARGO_PKG_VERSION")),
            },
            ear_status: status,
            eat_nonce: nonce.map(|nonce| URL_SAFE_NO_PAD.encode(nonce)),
            submods: BTreeMap::from([(name, submod)]),
        };
        let mut json = Vec::with_capacity(USUAL_CLAIMS);
        serde_json::to_writer(&mut json, &claims)?;
        let mut token = String::with_capacity(header.len() + json.len() * 4 / 3 + 140);
        token.push_str(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&json, &mut token);
        Ok(token)
    }
}

/// The name of the appraisal of such documents.
pub(crate) const fn submod_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Enclave => "nitro-enclave",
        Profile::NitroTpm => "nitro-tpm",
    }
}

/// The image that an accepted document is of, if the policy lists images.
fn image(report: &Report) -> Option<&str> {
    let check = report
        .checks
        .iter()
        .find(|check| check.rule == Rule::PolicyImage)?;
    let matches = report.accepted && check.outcome == Outcome::Passed;
    check.actual.as_deref().filter(|_| matches)
}

/// The document, if its signature was found good: a signed result must not lend
/// its weight to what anybody may have written.
fn authentic<'a>(report: &Report, bytes: &'a [u8]) -> Option<Document<'a>> {
    let good = report
        .checks
        .iter()
        .any(|check| check.rule == Rule::DocumentSignature && check.outcome == Outcome::Passed);
    if good {
        Document::parse(bytes).ok()
    } else {
        None
    }
}

fn attester_claims<'a>(document: &Document<'a>) -> AttesterClaims<'a> {
    let hex = |value: Option<&[u8]>| value.map(hex::encode);
    let pcrs = (0..PCR_COUNT).filter_map(|index| {
        let value = document.unverified_pcr(index)?;
        let zero = value.iter().all(|byte| *byte == 0);
        (!zero).then(|| (index.to_string(), hex::encode(value)))
    });
    AttesterClaims {
        purpose: document.unverified_purpose(),
        module_id: document.unverified_module_id(),
        timestamp_ms: document.unverified_timestamp_ms(),
        pcrs: pcrs.collect(),
        nonce: hex(document.unverified_nonce()),
        user_data: hex(document.unverified_user_data()),
        public_key: hex(document.unverified_public_key()),
    }
}

#[cfg(test)]
mod tests {
    use attestation::{AuditTime, Nonce, Partition, Policy, Roots, Verifier};
    use serde_json::{Value, json};

    use super::*;

    /// Signed by AWS.
    const DOCUMENT: &[u8] = include_bytes!("../../../attestation/corpus/aws/3a4a0301e6aa2839.cbor");
    /// When, in milliseconds since 1970.
    const MADE_MS: u64 = 1_708_930_921_439;

    fn issuer() -> Issuer {
        Issuer {
            developer: "tests".to_owned(),
            url: None,
            lifetime: Duration::from_secs(60),
        }
    }

    fn claims(policy: &Policy, now_ms: u64) -> Value {
        issue(policy, now_ms, NonceSource::None).unwrap()
    }

    fn issue(policy: &Policy, now_ms: u64, nonce: NonceSource<'_>) -> Result<Value, EarError> {
        issue_under(Roots::aws(), policy, now_ms, nonce)
    }

    fn issue_under(
        roots: Roots,
        policy: &Policy,
        now_ms: u64,
        nonce: NonceSource<'_>,
    ) -> Result<Value, EarError> {
        let (key, _) = SigningKey::generate().unwrap();
        let issuer = issuer();
        let verifier = Verifier::new(roots);
        let verification = verifier.verify_at(DOCUMENT, policy, Nonce::Unchallenged, now_ms);
        let appraisal = Appraisal {
            report: &verification.report,
            document: DOCUMENT,
            profile: Profile::Enclave,
            policy_ids: &["tests"],
            nonce,
        };
        let token = issuer.token(&key, &appraisal, 1000)?;
        let claims = token.split('.').nth(1).unwrap();
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap())
    }

    fn pcr(index: usize) -> measurements::Pcr {
        let document = Document::parse(DOCUMENT).unwrap();
        measurements::Pcr::new(*document.unverified_pcr(index).unwrap())
    }

    #[test]
    fn awss_root_speaks_for_hardware_and_a_register_for_code() {
        let policy = Policy::builder().pcr(0, pcr(0)).build().unwrap();
        let vector = |roots: Roots| {
            let claims = issue_under(roots, &policy, MADE_MS, NonceSource::None).unwrap();
            assert_eq!(claims["ear_status"], "affirming");
            claims["submods"]["nitro-enclave"]["ear_trustworthiness_vector"].clone()
        };
        let expected = json!({
            "instance-identity": 2,
            "configuration": 2,
            "executables": 3,
            "hardware": 2,
        });
        // It speaks for hardware as what it is, however it came to be trusted.
        let pem = include_bytes!("../../../attestation/src/aws-nitro-root.pem");
        let from_a_file = Roots::from_pem(pem).unwrap();
        for roots in [
            Roots::aws(),
            from_a_file,
            Roots::partition(Partition::AwsUsGov).and(Roots::aws()),
        ] {
            assert_eq!(vector(roots), expected);
        }
    }

    #[test]
    fn the_root_that_matched_is_in_the_result() {
        let policy = Policy::builder().pcr(0, pcr(0)).build().unwrap();
        let claims = |roots| {
            let claims = issue_under(roots, &policy, MADE_MS, NonceSource::None).unwrap();
            claims["submods"]["nitro-enclave"].clone()
        };
        let accepted = claims(Roots::aws());
        assert_eq!(
            accepted["ear_verifier_claims"]["root"],
            json!({ "partition": "aws", "sha256": Partition::Aws.fingerprint() })
        );
        let refused = claims(Roots::partition(Partition::AwsUsGov));
        assert_eq!(refused["ear_status"], "contraindicated");
        assert!(refused["ear_verifier_claims"].get("root").is_none());
        assert_eq!(
            refused["ear_trustworthiness_vector"],
            json!({ "instance-identity": 97 })
        );
    }

    #[test]
    fn one_part_of_an_image_is_not_the_image() {
        let policy = Policy::builder().pcr(2, pcr(2)).allow_any_image();
        let policy = policy.build().unwrap();
        let claims = claims(&policy, MADE_MS);
        assert_eq!(claims["ear_status"], "warning");
        assert_eq!(
            claims["submods"]["nitro-enclave"]["ear_trustworthiness_vector"],
            json!({ "instance-identity": 2, "hardware": 2 })
        );
    }

    #[test]
    fn an_expired_document_says_nothing_and_is_not_repeated() {
        let policy = Policy::builder().pcr(0, pcr(0)).build().unwrap();
        let claims = claims(&policy, MADE_MS + 86_400_000);
        let appraisal = &claims["submods"]["nitro-enclave"];
        assert_eq!(claims["ear_status"], "contraindicated");
        assert_eq!(
            appraisal["ear_trustworthiness_vector"],
            json!({ "instance-identity": 99 })
        );
        assert!(appraisal.get("ear_attester_claims").is_none());
        assert_eq!(
            appraisal["ear_verifier_claims"]["rejection"]["rule"],
            "certificate.validity"
        );
    }

    #[test]
    fn an_audit_makes_no_result() {
        let policy = Policy::builder().allow_any_image().build().unwrap();
        let verifier = Verifier::new(Roots::aws());
        let audit = verifier.audit(DOCUMENT, &policy, AuditTime::OfDocument);
        assert!(audit.report.accepted);
        let appraisal = Appraisal {
            report: &audit.report,
            document: DOCUMENT,
            profile: Profile::Enclave,
            policy_ids: &["tests"],
            nonce: NonceSource::None,
        };
        let (key, _) = SigningKey::generate().unwrap();
        let result = issuer().token(&key, &appraisal, 1000);
        assert!(matches!(result, Err(EarError::Audit)), "{result:?}");
    }

    #[test]
    fn freshness_is_who_chose_the_nonce_of_an_accepted_document() {
        let freshness = |policy: &Policy, nonce| {
            let claims = issue(policy, MADE_MS, nonce).unwrap();
            claims["submods"]["nitro-enclave"]["ear_verifier_claims"]["freshness"].clone()
        };
        let policy = Policy::builder().pcr(0, pcr(0)).build().unwrap();
        for (nonce, expected) in [
            (NonceSource::None, "none"),
            (NonceSource::Caller(&[7; 8]), "caller"),
            (NonceSource::Challenge(&[7; 8]), "challenge"),
        ] {
            assert_eq!(freshness(&policy, nonce), expected);
        }
        // Nothing was used up, and nothing shown, where the document was rejected.
        let another = Policy::builder().pcr(0, pcr(1)).build().unwrap();
        assert_eq!(freshness(&another, NonceSource::Challenge(&[7; 8])), "none");
    }

    #[test]
    fn a_nonce_is_repeated_or_refused_as_eat_allows_its_size() {
        let policy = Policy::builder().allow_any_image().build().unwrap();
        for (size, allowed) in [(0, false), (7, false), (8, true), (64, true), (65, false)] {
            let nonce = vec![7; size];
            let claims = issue(&policy, MADE_MS, NonceSource::Caller(&nonce));
            match claims {
                Ok(claims) => {
                    assert!(allowed, "{size}");
                    assert_eq!(claims["eat_nonce"], URL_SAFE_NO_PAD.encode(&nonce));
                    assert_eq!(claims["exp"], 1060);
                }
                Err(error) => assert!(!allowed && matches!(error, EarError::Nonce(_)), "{error}"),
            }
        }
    }
}
