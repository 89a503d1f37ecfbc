//! Issues a signed result of a verification, and the key set that it is verified with.
//!
//! `cargo run -p attestation-results --example issue`

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{Nonce, Policy, Profile, Roots, Verifier};
use attestation_results::{Appraisal, Issuer, NonceSource, SigningKey};

/// Signed by AWS.
const DOCUMENT: &[u8] = include_bytes!("../../../attestation/corpus/aws/3a4a0301e6aa2839.cbor");
/// When, in milliseconds since 1970.
const MADE_MS: u64 = 1_708_930_921_439;

fn main() -> Result<(), Box<dyn Error>> {
    let policy = Policy::builder().allow_any_image().build()?;
    let verifier = Verifier::new(Roots::aws());
    // A clock that stands where it stood when the document was made.
    let verification = verifier.verify_at(DOCUMENT, &policy, Nonce::Unchallenged, MADE_MS);

    let (key, _pem) = SigningKey::generate()?;
    let issuer = Issuer {
        developer: "Example Ltd".to_owned(),
        url: Some("https://verifier.example".to_owned()),
        lifetime: Duration::from_secs(300),
    };
    let appraisal = Appraisal {
        report: &verification.report,
        document: DOCUMENT,
        profile: Profile::Enclave,
        policy_ids: &["any image"],
        nonce: NonceSource::None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    println!("{}", issuer.token(&key, &appraisal, now)?);
    println!("{}", serde_json::json!({ "keys": [key.jwk()] }));
    Ok(())
}
