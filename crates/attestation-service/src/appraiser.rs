//! The work of `POST /v1/verify`.

use std::time::Instant;

use attestation::{Nonce, Policy, PolicyError, Report, Verifier};
use attestation_results::{Appraisal, Issuer, KeySet, NonceSource};
use serde::Serialize;
use tracing::error;

use crate::challenges::{ChallengeError, ChallengeId, Challenges};
use crate::clock;
use crate::metrics::Metrics;
use crate::policies::{NamedPolicy, PolicySet};
use crate::problem::Problem;
use crate::request::{NonceChoice, PolicyChoice, VerifyRequest};
use crate::swap::Swap;

/// Larger than the usual answer, in bytes.
const USUAL_ANSWER: usize = 12 * 1024;

/// What verifications need.
pub(crate) struct Appraiser {
    pub(crate) verifier: Verifier,
    pub(crate) policies: Swap<PolicySet>,
    pub(crate) inline_policies: bool,
    pub(crate) challenges: Challenges,
    pub(crate) keys: Swap<KeySet>,
    pub(crate) issuer: Issuer,
    pub(crate) metrics: Metrics,
}

/// An answer that may be given, once its challenge has been used.
#[derive(Debug)]
pub(crate) struct Answer {
    /// JSON.
    pub(crate) body: Vec<u8>,
    /// Whether it holds a signed result.
    pub(crate) signed: bool,
    /// The challenge that the document was accepted for.
    pub(crate) challenge: Option<ChallengeId>,
    /// The first rule that was broken.
    pub(crate) rejected_by: Option<String>,
    /// The policy's name, if it has one.
    pub(crate) policy: Option<String>,
}

#[derive(Serialize)]
struct AnswerBody<'a> {
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    ear: Option<&'a str>,
}

impl Appraiser {
    /// Verifies what a body asks for. It takes less than a millisecond, unless the
    /// body brings a policy of its own.
    pub(crate) fn appraise(&self, body: &[u8]) -> Result<Answer, Problem> {
        let start = Instant::now();
        let request = VerifyRequest::parse(body)?;
        match &request.policy {
            PolicyChoice::Named(name) => {
                let policies = self.policies.get();
                let policy = policies.get(name).ok_or(Problem::UnknownPolicy)?;
                self.verify(&request, Some(name), policy, start)
            }
            PolicyChoice::Inline(_) if !self.inline_policies => Err(Problem::InlinePoliciesOff),
            PolicyChoice::Inline(policy) => {
                let policy = NamedPolicy::new(Policy::clone(policy));
                self.verify(&request, None, &policy, start)
            }
        }
    }

    fn verify(
        &self,
        request: &VerifyRequest,
        name: Option<&str>,
        named: &NamedPolicy,
        start: Instant,
    ) -> Result<Answer, Problem> {
        let (nonce, challenge) = match &request.nonce {
            NonceChoice::NotGiven => (None, None),
            // It would be good for one accepted document after the other.
            NonceChoice::Own(nonce) if self.challenges.issued_this(nonce) => {
                return Err(Problem::ChallengeAsNonce);
            }
            NonceChoice::Own(nonce) => (Some(nonce), None),
            NonceChoice::Challenge(nonce) => {
                let id = self
                    .challenges
                    .check(nonce, name, clock::now_ms())
                    .map_err(|error| match error {
                        ChallengeError::Unknown => Problem::UnknownChallenge,
                        ChallengeError::Expired => Problem::ChallengeExpired,
                    })?;
                (Some(nonce), Some(id))
            }
        };
        let policy = &named.policy;
        let demanded = match nonce {
            None if policy.needs_nonce() => return Err(Problem::NonceRequired),
            None => Nonce::Unchallenged,
            Some(_) if policy.fixes_nonce() => {
                return Err(Problem::InvalidPolicy(PolicyError::FixedNonce.to_string()));
            }
            Some(nonce) => Nonce::Fresh(nonce),
        };
        let verification = self.verifier.verify(&request.document, policy, demanded);
        let report = &verification.report;
        let ear = if request.ear {
            Some(self.sign(request, report, name, named)?)
        } else {
            None
        };
        let mut body = Vec::with_capacity(USUAL_ANSWER);
        let ear = ear.as_deref();
        serde_json::to_writer(&mut body, &AnswerBody { report, ear }).map_err(internal)?;
        let rejected_by = report
            .rejection
            .as_ref()
            .map(|rejection| rejection.rule.to_string());
        self.metrics.verification(start.elapsed());
        Ok(Answer {
            signed: ear.is_some(),
            body,
            challenge: challenge.filter(|_| report.accepted),
            rejected_by,
            policy: name.map(str::to_owned),
        })
    }

    fn sign(
        &self,
        request: &VerifyRequest,
        report: &Report,
        name: Option<&str>,
        named: &NamedPolicy,
    ) -> Result<String, Problem> {
        let policy_ids: &[&str] = match name {
            Some(name) => &[name, &named.digest],
            None => &[&named.digest],
        };
        let appraisal = Appraisal {
            report,
            document: &request.document,
            profile: named.policy.profile(),
            policy_ids,
            nonce: match &request.nonce {
                NonceChoice::NotGiven => NonceSource::None,
                NonceChoice::Own(nonce) => NonceSource::Caller(nonce),
                NonceChoice::Challenge(nonce) => NonceSource::Challenge(nonce),
            },
        };
        let now = clock::now_s();
        let keys = self.keys.get();
        let key = keys
            .signing(now)
            .ok_or_else(|| internal("no signing key"))?;
        self.issuer.token(key, &appraisal, now).map_err(internal)
    }
}

fn internal(error: impl std::fmt::Display) -> Problem {
    error!(%error, "a verification failed of itself");
    Problem::Internal
}
