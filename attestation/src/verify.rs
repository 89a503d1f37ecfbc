//! The way from bytes to an accepted document.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eif::Pcr;

use crate::cache::Cache;
use crate::chain::{self, Roots};
use crate::document::Document;
use crate::policy::Policy;
use crate::report::{Check, Outcome, Report};
use crate::rule::{Rejection, Rule};

/// The time that certificates and freshness are checked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// The system's clock: for documents that claim to be live.
    Now,
    /// An instant, in milliseconds since 1970: for audits.
    At(u64),
    /// The document's own time: for audits that ask only whether it was valid
    /// when it was made. It says nothing about when that was.
    OfDocument,
}

impl Time {
    fn resolve(self, document: &Document<'_>) -> u64 {
        match self {
            Self::Now => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
            Self::At(milliseconds) => milliseconds,
            Self::OfDocument => document.timestamp_ms,
        }
    }
}

/// A document that AWS's hypervisor, or the owner of another pinned root,
/// signed. It may be old, and it may be of any enclave.
#[derive(Debug)]
pub struct Authentic<'a> {
    document: Document<'a>,
    checked_at_ms: u64,
}

/// A document that satisfies a policy.
#[derive(Debug)]
pub struct Accepted<'a> {
    document: Document<'a>,
}

/// A verification's report and its end.
#[derive(Debug)]
pub struct Verification<'a> {
    /// Every check.
    pub report: Report,
    /// The accepted document, or the first rule that it broke.
    pub outcome: Result<Accepted<'a>, Rejection>,
}

/// Verifies a document from its bytes to the policy.
pub fn verify<'a>(bytes: &'a [u8], roots: &Roots, policy: &Policy, time: Time) -> Verification<'a> {
    verify_with(bytes, roots, None, policy, time)
}

/// Verifies many documents under the same roots, and remembers the chains that
/// it has checked: by the hash of every certificate from the root down, and only
/// while each of them is valid.
///
/// AWS's authorities sign many leaves, and an enclave's leaf many documents. Of
/// the five signatures of an unknown document two remain where its instance is
/// known, and one where its leaf is. What is remembered is bounded: the oldest
/// goes first. A verifier is shared between threads by reference.
///
/// ```
/// use attestation::{Policy, Roots, Time, Verifier};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let document = include_bytes!("../tests/vectors/8e5652f3b009e620.cbor");
/// # let policy = Policy::builder().pcr(0, eif::Pcr::new([1; 48])).build()?;
/// let verifier = Verifier::new(Roots::aws());
/// let verification = verifier.verify(document, &policy, Time::Now);
/// assert!(verification.outcome.is_err()); // It has expired.
/// # Ok(())
/// # }
/// ```
pub struct Verifier {
    roots: Roots,
    cache: Cache,
}

impl Verifier {
    /// Authorities that are remembered, and leaves.
    pub const CAPACITY: usize = 1024;

    /// A verifier that trusts these roots.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            cache: Cache::new(Self::CAPACITY),
        }
    }

    /// Verifies a document from its bytes to the policy, as [`verify`] does.
    pub fn verify<'a>(&self, bytes: &'a [u8], policy: &Policy, time: Time) -> Verification<'a> {
        verify_with(bytes, &self.roots, Some(&self.cache), policy, time)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

fn verify_with<'a>(
    bytes: &'a [u8],
    roots: &Roots,
    cache: Option<&Cache>,
    policy: &Policy,
    time: Time,
) -> Verification<'a> {
    let mut report = Report::default();
    let outcome = Document::parse(bytes)
        .and_then(|document| document.authenticate_into(roots, cache, time, &mut report))
        .inspect_err(|rejection| {
            report.checks.push(Check {
                rule: rejection.rule,
                outcome: Outcome::Failed,
                expected: None,
                actual: Some(rejection.reason.clone()),
            });
        })
        .and_then(|authentic| authentic.accept_into(policy, &mut report));
    Verification { report, outcome }
}

impl<'a> Document<'a> {
    /// Checks the certificates, up to a pinned root, and the signature.
    pub fn authenticate(self, roots: &Roots, time: Time) -> Result<Authentic<'a>, Rejection> {
        self.authenticate_into(roots, None, time, &mut Report::default())
    }

    fn authenticate_into(
        self,
        roots: &Roots,
        cache: Option<&Cache>,
        time: Time,
        report: &mut Report,
    ) -> Result<Authentic<'a>, Rejection> {
        let checked_at_ms = time.resolve(&self);
        let leaf = chain::verify(&self, roots, cache, checked_at_ms, &mut |rule| {
            report.passed(rule);
        })?;
        if !leaf.signed(&self) {
            return Err(Rejection::new(
                Rule::DocumentSignature,
                "the leaf certificate's key did not sign this document",
            ));
        }
        report.passed(Rule::DocumentSignature);
        Ok(Authentic {
            document: self,
            checked_at_ms,
        })
    }
}

impl<'a> Authentic<'a> {
    /// The document, whose claims are signed but not yet judged.
    pub fn document(&self) -> &Document<'a> {
        &self.document
    }

    /// Checks freshness, nonce, mode, registers and bindings.
    pub fn accept(self, policy: &Policy) -> Result<Accepted<'a>, Rejection> {
        self.accept_into(policy, &mut Report::default())
    }

    fn accept_into(self, policy: &Policy, report: &mut Report) -> Result<Accepted<'a>, Rejection> {
        let first = report.checks.len();
        self.check_freshness(policy, report);
        if let Some(nonce) = &policy.nonce {
            compare_bytes(report, Rule::PolicyNonce, nonce, self.document.nonce);
        }
        let debug = self.is_debug();
        report.compare(
            Rule::PolicyDebug,
            !debug || policy.debug_allowed,
            if policy.debug_allowed {
                "any mode"
            } else {
                "not in debug mode"
            }
            .to_owned(),
            if debug {
                "in debug mode: PCR0 is zero"
            } else {
                "not in debug mode"
            }
            .to_owned(),
        );
        for (&index, allowed) in &policy.pcrs {
            let actual = self
                .document
                .unverified_pcr(index.into())
                .copied()
                .map(Pcr::new);
            let expected: Vec<_> = allowed.iter().map(Pcr::to_string).collect();
            report.compare(
                Rule::PolicyPcr(index),
                actual.is_some_and(|actual| allowed.contains(&actual)),
                expected.join(" or "),
                actual.map_or_else(|| "absent".to_owned(), |actual| actual.to_string()),
            );
        }
        if let Some(user_data) = &policy.user_data {
            compare_bytes(
                report,
                Rule::PolicyUserData,
                user_data,
                self.document.user_data,
            );
        }
        if let Some(public_key) = &policy.public_key {
            compare_bytes(
                report,
                Rule::PolicyPublicKey,
                public_key,
                self.document.public_key,
            );
        }
        let failed = report
            .checks
            .iter()
            .skip(first)
            .find(|check| check.outcome == Outcome::Failed);
        match failed {
            None => Ok(Accepted {
                document: self.document,
            }),
            Some(check) => Err(Rejection::new(
                check.rule,
                format!(
                    "expected {}, found {}",
                    check.expected.as_deref().unwrap_or_default(),
                    check.actual.as_deref().unwrap_or_default()
                ),
            )),
        }
    }

    fn check_freshness(&self, policy: &Policy, report: &mut Report) {
        let made = self.document.timestamp_ms;
        let ahead = Duration::from_millis(made.saturating_sub(self.checked_at_ms));
        report.compare(
            Rule::FreshnessFuture,
            ahead <= policy.clock_skew,
            format!("at most {:?} ahead", policy.clock_skew),
            format!("{ahead:?} ahead"),
        );
        let age = Duration::from_millis(self.checked_at_ms.saturating_sub(made));
        report.compare(
            Rule::FreshnessAge,
            age <= policy.max_age,
            format!("at most {:?} old", policy.max_age),
            format!("{age:?} old"),
        );
    }

    /// An enclave in debug mode reports zeros for what was measured at its start.
    fn is_debug(&self) -> bool {
        self.document
            .unverified_pcr(0)
            .is_none_or(|pcr0| *pcr0 == *Pcr::ZERO.as_bytes())
    }
}

impl<'a> Accepted<'a> {
    /// The enclave's identity.
    pub fn module_id(&self) -> &'a str {
        self.document.module_id
    }

    /// When the document was made, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> u64 {
        self.document.timestamp_ms
    }

    /// A register's value, if the document holds it.
    pub fn pcr(&self, index: usize) -> Option<Pcr> {
        self.document.unverified_pcr(index).copied().map(Pcr::new)
    }

    /// The nonce.
    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.document.nonce
    }

    /// What the enclave's software put into the document.
    pub fn user_data(&self) -> Option<&'a [u8]> {
        self.document.user_data
    }

    /// The key that the enclave's software bound to the document.
    pub fn public_key(&self) -> Option<&'a [u8]> {
        self.document.public_key
    }
}

fn compare_bytes(report: &mut Report, rule: Rule, expected: &[u8], actual: Option<&[u8]>) {
    report.compare(
        rule,
        actual == Some(expected),
        hex::encode(expected),
        actual.map_or_else(|| "absent".to_owned(), hex::encode),
    );
}
