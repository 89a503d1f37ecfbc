//! Whether a signed result is what a relying party expects.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::{ImageMeasurements, Pcr, Profile};
use serde::Serialize;

use crate::claims::{AttesterClaims, Claims, Submod};
use crate::expectations::Expectations;
use crate::freshness::Freshness;
use crate::issuer::PROFILE;
use crate::jwks::Jwks;
use crate::rule::{ResultError, ResultRule, shown};
use crate::token;
use crate::trust::Status;

/// A result that a key of the issuer's has signed, and that is what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedResult {
    /// Its status: affirming, or warning where that was allowed.
    pub status: Status,
    /// The claim `iss`.
    pub issuer: Option<String>,
    /// Who answers for the verifier.
    pub developer: String,
    /// The verifier's program and version.
    pub build: String,
    /// When it was issued, in seconds since 1970.
    pub issued_at: u64,
    /// When it expires, in seconds since 1970.
    pub expires_at: u64,
    /// What the document is of.
    pub profile: Profile,
    /// What shows that the document is new.
    pub freshness: Freshness,
    /// What the policy is known by: its name, if it has one, and its digest.
    pub policy_ids: Vec<String>,
    /// The image of the policy that the document is of, by its name there.
    pub image: Option<String>,
    /// The trustworthiness vector: AR4SI's claims and their values.
    pub trust_vector: BTreeMap<String, i8>,
    /// When the document was verified, in milliseconds since 1970.
    pub checked_at_ms: Option<u64>,
    /// What the document holds.
    pub document: AttesterClaims,
}

/// Verifies a signed result now, by the system's clock.
///
/// # Errors
///
/// The first rule that the result breaks, in the order of [`ResultRule::ALL`].
pub fn verify(
    token: &str,
    keys: &Jwks,
    expectations: &Expectations,
) -> Result<VerifiedResult, ResultError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| {
        ResultError::new(
            ResultRule::IssuedAt,
            "the system's clock is before 1970: set it",
        )
    })?;
    verify_at(token, keys, expectations, now.as_secs())
}

/// Verifies a signed result as [`verify`] does, at a time in seconds since 1970: of an
/// archived one, whether it was good then.
///
/// # Errors
///
/// The first rule that the result breaks, in the order of [`ResultRule::ALL`].
pub fn verify_at(
    token: &str,
    keys: &Jwks,
    expectations: &Expectations,
    now: u64,
) -> Result<VerifiedResult, ResultError> {
    let mut claims = Claims::parse(&token::open(token, keys)?)?;
    let check = Check(expectations);
    check.source(&claims)?;
    check.time(&claims, now)?;
    check.nonce(&claims)?;
    let submod = claims.only_submod(expectations.profile)?;
    check.status(&claims, &submod)?;
    check.freshness(submod.verifier_claims.freshness)?;
    check.code(&submod)?;
    let Some(document) = submod.attester_claims else {
        return Err(refused(
            ResultRule::ClaimsForm,
            "an accepted document's contents are missing",
        ));
    };
    check.document(&document)?;
    Ok(VerifiedResult {
        status: claims.ear_status,
        issuer: claims.iss,
        developer: claims.ear_verifier_id.developer,
        build: claims.ear_verifier_id.build,
        issued_at: claims.iat,
        expires_at: claims.exp,
        profile: expectations.profile,
        freshness: submod.verifier_claims.freshness,
        policy_ids: submod.policy_ids,
        image: submod.verifier_claims.image,
        trust_vector: submod.vector,
        checked_at_ms: submod.verifier_claims.checked_at_ms,
        document,
    })
}

struct Check<'a>(&'a Expectations);

impl Check<'_> {
    fn source(&self, claims: &Claims) -> Result<(), ResultError> {
        if claims.eat_profile != PROFILE {
            return Err(refused(
                ResultRule::ClaimsProfile,
                format!(
                    "its profile is {}, not {PROFILE}",
                    shown(&claims.eat_profile)
                ),
            ));
        }
        if let Some(expected) = &self.0.issuer
            && claims.iss.as_ref() != Some(expected)
        {
            let issuer = claims.iss.as_deref().map_or("nobody".to_owned(), shown);
            return Err(refused(
                ResultRule::Issuer,
                format!("it is issued by {issuer}, not by {}", shown(expected)),
            ));
        }
        if !claims.aud.is_null() {
            return Err(refused(
                ResultRule::Audience,
                format!("it is for {} only", shown(&claims.aud.to_string())),
            ));
        }
        Ok(())
    }

    /// The only place that compares times: each with the skew.
    fn time(&self, claims: &Claims, now: u64) -> Result<(), ResultError> {
        let skew = self.0.clock_skew.as_secs();
        let latest = now.saturating_add(skew);
        if claims.iat > latest {
            return Err(refused(
                ResultRule::IssuedAt,
                format!(
                    "it was issued {} s from now, and clocks may differ by {skew} s: this clock is behind, or the issuer's ahead",
                    claims.iat.saturating_sub(now)
                ),
            ));
        }
        if let Some(start) = claims.nbf
            && start > latest
        {
            return Err(refused(
                ResultRule::NotBefore,
                format!("it may be used in {} s only", start.saturating_sub(now)),
            ));
        }
        if claims.exp.saturating_add(skew) <= now {
            return Err(refused(
                ResultRule::Expires,
                format!(
                    "it expired {} s ago: ask for a new one",
                    now.saturating_sub(claims.exp)
                ),
            ));
        }
        let age = now.saturating_sub(claims.iat);
        match self.0.max_age {
            Some(limit) if age > limit.as_secs().saturating_add(skew) => Err(refused(
                ResultRule::Age,
                format!(
                    "it was issued {age} s ago, and may be {} s old",
                    limit.as_secs()
                ),
            )),
            _ => Ok(()),
        }
    }

    fn nonce(&self, claims: &Claims) -> Result<(), ResultError> {
        let Some(expected) = &self.0.nonce else {
            return Ok(());
        };
        let nonce = claims.nonce();
        if nonce == Some(expected) {
            return Ok(());
        }
        let nonce = nonce.map_or("no nonce".to_owned(), |nonce| shown(&hex::encode(nonce)));
        Err(refused(
            ResultRule::Nonce,
            format!("it is for {nonce}, not for {}", hex::encode(expected)),
        ))
    }

    /// The status is what the issuer concludes, and the claims are what from: a
    /// result whose parts contradict each other is believed in none.
    fn status(&self, claims: &Claims, submod: &Submod) -> Result<(), ResultError> {
        let verdict = &submod.verifier_claims;
        let status = submod.status;
        if !verdict.accepted || status == Status::Contraindicated {
            let reason = match &verdict.rejection {
                Some(rejection) => shown(&format!("{}: {}", rejection.rule, rejection.reason)),
                None => "it does not say why".to_owned(),
            };
            return Err(refused(
                ResultRule::Status,
                format!("the document was rejected: {reason}"),
            ));
        }
        if claims.ear_status != status {
            return Err(refused(
                ResultRule::Status,
                format!(
                    "the result is {}, and its only appraisal {}",
                    claims.ear_status.as_str(),
                    status.as_str()
                ),
            ));
        }
        if status == Status::Warning && !self.0.warning {
            return Err(refused(
                ResultRule::Status,
                "it is a warning: the policy names no code, or the enclave is in debug mode",
            ));
        }
        self.vector(submod)
    }

    fn vector(&self, submod: &Submod) -> Result<(), ResultError> {
        let tier = |name: &str| submod.vector.get(name).copied().and_then(Status::of_claim);
        for (name, value) in &submod.vector {
            let allowed = match Status::of_claim(*value) {
                None | Some(Status::Affirming) => true,
                Some(Status::Warning) => submod.status == Status::Warning,
                Some(Status::Contraindicated) => false,
            };
            if !allowed {
                return Err(refused(
                    ResultRule::TrustVector,
                    format!(
                        "{name} is {value}, and the status {}",
                        submod.status.as_str()
                    ),
                ));
            }
        }
        let mut needed = vec!["instance-identity"];
        if submod.status == Status::Affirming {
            needed.push("executables");
        }
        for name in needed {
            if tier(name) != Some(Status::Affirming) {
                return Err(refused(
                    ResultRule::TrustVector,
                    format!(
                        "nothing affirms {name}, and the status is {}",
                        submod.status.as_str()
                    ),
                ));
            }
        }
        if !self.0.other_roots && tier("hardware") != Some(Status::Affirming) {
            return Err(refused(
                ResultRule::Hardware,
                "nothing affirms that the hardware is AWS's: the issuer trusts other roots, as in tests",
            ));
        }
        Ok(())
    }

    fn freshness(&self, freshness: Freshness) -> Result<(), ResultError> {
        let least = self.0.freshness;
        if freshness >= least {
            return Ok(());
        }
        Err(refused(
            ResultRule::Freshness,
            format!(
                "what shows that the document is new is {:?}, and {:?} is expected",
                freshness.as_str(),
                least.as_str()
            ),
        ))
    }

    fn code(&self, submod: &Submod) -> Result<(), ResultError> {
        let expected = &self.0.policies;
        if !expected.is_empty() && !submod.policy_ids.iter().any(|id| expected.contains(id)) {
            return Err(refused(
                ResultRule::Policy,
                format!(
                    "the policy is {}, not {}",
                    shown(&submod.policy_ids.join(", ")),
                    shown(&expected.join(" or "))
                ),
            ));
        }
        let expected = &self.0.images;
        let image = submod.verifier_claims.image.as_ref();
        if !expected.is_empty() && !image.is_some_and(|image| expected.contains(image)) {
            let image = image.map_or("none that the policy names".to_owned(), |name| shown(name));
            return Err(refused(
                ResultRule::Image,
                format!(
                    "the image is {image}, not {}",
                    shown(&expected.join(" or "))
                ),
            ));
        }
        Ok(())
    }

    fn document(&self, document: &AttesterClaims) -> Result<(), ResultError> {
        let register = |index: u8| document.pcrs.get(&index).copied().unwrap_or(Pcr::ZERO);
        let is_of = |image: &ImageMeasurements| {
            let mut registers = image.pcrs();
            registers.all(|(index, value)| register(index) == value)
        };
        let images = &self.0.measurements;
        if !images.is_empty() && !images.iter().any(is_of) {
            return Err(refused(
                ResultRule::Image,
                format!(
                    "PCR0 is {}, and the registers are of no expected image",
                    register(0)
                ),
            ));
        }
        for (index, _) in &self.0.pcrs {
            let value = register(*index);
            if !self.0.pcrs.contains(&(*index, value)) {
                return Err(refused(
                    ResultRule::Pcr,
                    format!("PCR{index} is {value}, which is not expected"),
                ));
            }
        }
        match &self.0.module_id {
            Some(expected) if *expected != document.module_id => Err(refused(
                ResultRule::ModuleId,
                format!(
                    "the document is of {}, not of {}",
                    shown(&document.module_id),
                    shown(expected)
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn refused(rule: ResultRule, reason: impl Into<String>) -> ResultError {
    ResultError::new(rule, reason)
}
