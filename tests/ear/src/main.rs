//! Verifies an attestation result with the crate `ear` of the Veraison project.
//!
//! usage: verify-ear JWKS TOKEN
//!
//! Prints the overall status, and a line for each appraisal.

use std::error::Error;

use ear::{Algorithm, EAR_PROFILE, Ear};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(jwks), Some(token), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: verify-ear JWKS TOKEN".into());
    };
    let jwks: Value = serde_json::from_str(&std::fs::read_to_string(jwks)?)?;
    let keys = jwks["keys"].as_array().ok_or("no keys")?;
    let ear = keys
        .iter()
        .map(|key| Ear::from_jwt_jwk(&token, Algorithm::ES384, key.to_string().as_bytes()))
        .find_map(Result::ok)
        .ok_or("no key of the set verifies the result")?;
    ear.validate()?;
    if ear.profile != EAR_PROFILE {
        return Err(format!("the profile is {}", ear.profile).into());
    }
    let status = ear.status.ok_or("there is no overall status")?;
    println!("{}", status.as_str());
    for (name, appraisal) in &ear.submods {
        if appraisal.policy_ids.is_empty() || appraisal.verifier_claims.is_empty() {
            return Err(format!("{name} says nothing of its policy or of the verifier").into());
        }
        // Claims of the vector that are set must have values that AR4SI defines.
        for claim in appraisal.trust_vector {
            if claim.is_set() {
                let meaning = claim.value_short_desc();
                if meaning.is_empty() {
                    return Err(format!("{name}: {claim:?} has no meaning").into());
                }
                println!("{name}: {} = {meaning}", claim.tag());
            }
        }
    }
    Ok(())
}
