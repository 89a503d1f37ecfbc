//! The way from bytes to an accepted document.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use measurements::Pcr;

#[cfg(feature = "aws-lc-rs")]
use crate::aws_lc::AwsLcRs;
use crate::cache::Cache;
use crate::chain;
use crate::crypto::Crypto;
use crate::document::{Document, Profile};
use crate::policy::{self, Binding, Image, Nonce, Policy};
use crate::purpose::Purpose;
use crate::report::{Outcome, Report};
use crate::roots::Roots;
use crate::rule::{Rejection, Rule};
use crate::signature;

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
    crypto: &'static dyn Crypto,
    checked_at_ms: u64,
}

/// A document that satisfies a policy.
#[derive(Debug)]
pub struct Accepted<'a> {
    document: Document<'a>,
}

/// A verification's report and its end.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verification<'a> {
    /// Every check.
    pub report: Report,
    /// The accepted document, or the first rule that it broke.
    pub outcome: Result<Accepted<'a>, Rejection>,
}

/// Verifies a document from its bytes to the policy.
#[cfg(feature = "aws-lc-rs")]
pub fn verify<'a>(bytes: &'a [u8], roots: &Roots, policy: &Policy, time: Time) -> Verification<'a> {
    verify_with(bytes, roots, None, &AwsLcRs, policy, time)
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
/// # let policy = Policy::builder().pcr(0, measurements::Pcr::new([1; 48])).build()?;
/// let verifier = Verifier::new(Roots::aws());
/// let verification = verifier.verify(document, &policy, Time::Now);
/// assert!(verification.outcome.is_err()); // It has expired.
/// # Ok(())
/// # }
/// ```
pub struct Verifier {
    roots: Roots,
    cache: Cache,
    crypto: &'static dyn Crypto,
}

impl Verifier {
    /// Authorities that are remembered, and leaves.
    pub const CAPACITY: usize = 1024;

    /// A verifier that trusts these roots.
    #[cfg(feature = "aws-lc-rs")]
    pub fn new(roots: Roots) -> Self {
        Self::with_crypto(roots, &AwsLcRs)
    }

    /// A verifier that trusts these roots, and this cryptography.
    pub fn with_crypto(roots: Roots, crypto: &'static dyn Crypto) -> Self {
        Self {
            roots,
            cache: Cache::new(Self::CAPACITY),
            crypto,
        }
    }

    /// Verifies a document from its bytes to the policy, as [`verify`] does.
    pub fn verify<'a>(&self, bytes: &'a [u8], policy: &Policy, time: Time) -> Verification<'a> {
        verify_with(
            bytes,
            &self.roots,
            Some(&self.cache),
            self.crypto,
            policy,
            time,
        )
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
    crypto: &'static dyn Crypto,
    policy: &Policy,
    time: Time,
) -> Verification<'a> {
    let mut report = Report::new();
    let outcome = Document::parse(bytes)
        .and_then(|document| {
            let checked_at_ms = time.resolve(&document);
            report.parsed(&document, checked_at_ms);
            document.authenticate_into(roots, cache, crypto, checked_at_ms, &mut report)
        })
        .inspect_err(|rejection| report.refused(rejection))
        .and_then(|authentic| authentic.accept_into(policy, &mut report));
    report.accepted = outcome.is_ok();
    report.rejection = outcome.as_ref().err().cloned();
    Verification { report, outcome }
}

impl<'a> Document<'a> {
    /// Checks the certificates, up to a pinned root, and the signature.
    #[cfg(feature = "aws-lc-rs")]
    pub fn authenticate(self, roots: &Roots, time: Time) -> Result<Authentic<'a>, Rejection> {
        self.authenticate_with(roots, time, &AwsLcRs)
    }

    /// As `authenticate`, with this cryptography.
    pub fn authenticate_with(
        self,
        roots: &Roots,
        time: Time,
        crypto: &'static dyn Crypto,
    ) -> Result<Authentic<'a>, Rejection> {
        let checked_at_ms = time.resolve(&self);
        self.authenticate_into(roots, None, crypto, checked_at_ms, &mut Report::new())
    }

    fn authenticate_into(
        self,
        roots: &Roots,
        cache: Option<&Cache>,
        crypto: &'static dyn Crypto,
        checked_at_ms: u64,
        report: &mut Report,
    ) -> Result<Authentic<'a>, Rejection> {
        let leaf = chain::verify(&self, roots, cache, crypto, checked_at_ms, &mut |rule| {
            report.passed(rule);
        })?;
        signature::check(&self, &leaf)?;
        report.passed(Rule::DocumentSignature);
        Ok(Authentic {
            document: self,
            crypto,
            checked_at_ms,
        })
    }
}

impl<'a> Authentic<'a> {
    /// The document, whose claims are signed but not yet judged.
    pub fn document(&self) -> &Document<'a> {
        &self.document
    }

    /// Checks freshness, nonce, mode, registers and bindings, all at the time
    /// that the document was authenticated at: a caller does not keep it.
    pub fn accept(self, policy: &Policy) -> Result<Accepted<'a>, Rejection> {
        self.accept_into(policy, &mut Report::new())
    }

    fn accept_into(self, policy: &Policy, report: &mut Report) -> Result<Accepted<'a>, Rejection> {
        let first = report.checks.len();
        self.check_freshness(policy, report);
        self.check_nonce(policy, report);
        report.compare(
            Rule::PolicyProfile,
            self.document.profile == policy.profile,
            policy.profile.to_string(),
            self.document.profile.to_string(),
        );
        let id = self.document.module_id.to_owned();
        match &policy.module_id {
            Some(pattern) => {
                let held = policy::matches(pattern, &id);
                report.compare(Rule::PolicyModuleId, held, pattern.clone(), id);
            }
            None => report.not_checked(Rule::PolicyModuleId, id),
        }
        self.check_debug(policy, report);
        self.check_image(policy, report);
        for (&index, allowed) in &policy.pcrs {
            let actual = self.pcr(index);
            let expected: Vec<_> = allowed.iter().map(Pcr::to_string).collect();
            report.compare(
                Rule::PolicyPcr(index),
                actual.is_some_and(|actual| allowed.contains(&actual)),
                expected.join(" or "),
                or_absent(actual),
            );
        }
        self.check_purpose(policy, report);
        let (user_data, public_key) = (self.document.user_data, self.document.public_key);
        check_binding(
            report,
            Rule::PolicyUserData,
            policy.user_data.as_ref(),
            user_data,
            self.crypto,
        );
        check_binding(
            report,
            Rule::PolicyPublicKey,
            policy.public_key.as_ref(),
            public_key,
            self.crypto,
        );
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
            format!("at most {} ahead", seconds(policy.clock_skew)),
            format!("{} ahead", seconds(ahead)),
        );
        let age = Duration::from_millis(self.checked_at_ms.saturating_sub(made));
        report.compare(
            Rule::FreshnessAge,
            age <= policy.max_age,
            format!("at most {} old", seconds(policy.max_age)),
            format!("{} old", seconds(age)),
        );
    }

    fn check_nonce(&self, policy: &Policy, report: &mut Report) {
        let actual = self.document.nonce;
        let expected = match &policy.nonce {
            Nonce::NotChecked => {
                report.not_checked(Rule::PolicyNonce, or_absent(actual.map(hex::encode)));
                return;
            }
            Nonce::Required => None,
            Nonce::Equal(nonce) => Some(nonce.as_slice()),
        };
        report.compare(
            Rule::PolicyNonce,
            expected.is_some() && actual == expected,
            expected.map_or_else(
                || "a nonce, which the verifier was not given".to_owned(),
                hex::encode,
            ),
            or_absent(actual.map(hex::encode)),
        );
    }

    /// An enclave in debug mode reports zeros for what was measured at its start.
    fn check_debug(&self, policy: &Policy, report: &mut Report) {
        if self.document.profile == Profile::NitroTpm {
            return;
        }
        let debug = self.pcr(0).is_none_or(|pcr0| pcr0 == Pcr::ZERO);
        let expected = if policy.debug_allowed {
            "any mode"
        } else {
            "not in debug mode"
        };
        let actual = if debug {
            "in debug mode: PCR0 is zero"
        } else {
            "not in debug mode"
        };
        report.compare(
            Rule::PolicyDebug,
            !debug || policy.debug_allowed,
            expected.to_owned(),
            actual.to_owned(),
        );
    }

    /// A NitroTPM's documents say nothing of a purpose.
    fn check_purpose(&self, policy: &Policy, report: &mut Report) {
        let Some(purpose) = self.document.unverified_purpose() else {
            return;
        };
        let actual = purpose.to_string();
        match policy.purpose {
            Some(demanded) => report.compare(
                Rule::PolicyPurpose,
                demanded == purpose,
                demanded.to_string(),
                actual,
            ),
            None => report.not_checked(Rule::PolicyPurpose, actual),
        }
    }

    fn check_image(&self, policy: &Policy, report: &mut Report) {
        if policy.images.is_empty() {
            let actual = match self.document.profile {
                Profile::Enclave => format!("PCR0 is {}", or_absent(self.pcr(0))),
                Profile::NitroTpm => return,
            };
            report.not_checked(Rule::PolicyImage, actual);
            return;
        }
        let names: Vec<_> = policy.images.iter().map(|image| &*image.name).collect();
        let closest = policy
            .images
            .iter()
            .map(|image| (image, self.differences(image)))
            .min_by_key(|(_, differences)| differences.len());
        let (held, actual) = match closest {
            Some((image, differences)) if differences.is_empty() => (true, image.name.clone()),
            Some((image, differences)) => (
                false,
                format!("closest is {}: {}", image.name, differences.join(", ")),
            ),
            None => (false, String::new()),
        };
        report.compare(Rule::PolicyImage, held, names.join(" or "), actual);
    }

    /// The registers that are not the image's.
    fn differences(&self, image: &Image) -> Vec<String> {
        image
            .pcrs()
            .into_iter()
            .filter(|&(index, expected)| self.pcr(index) != Some(expected))
            .map(|(index, expected)| {
                format!(
                    "PCR{index} is {}, not {expected}",
                    or_absent(self.pcr(index))
                )
            })
            .collect()
    }

    fn pcr(&self, index: u8) -> Option<Pcr> {
        self.document
            .unverified_pcr(index.into())
            .copied()
            .map(Pcr::new)
    }
}

impl<'a> Accepted<'a> {
    /// What made the document.
    pub fn profile(&self) -> Profile {
        self.document.profile
    }

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

    /// What the document was made for, if an enclave made it. It holds as far as the
    /// enclave's image is one with `enclave-init`.
    pub fn purpose(&self) -> Option<Purpose> {
        self.document.unverified_purpose()
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

fn check_binding(
    report: &mut Report,
    rule: Rule,
    binding: Option<&Binding>,
    actual: Option<&[u8]>,
    crypto: &dyn Crypto,
) {
    let shown = or_absent(actual.map(hex::encode));
    let Some(binding) = binding else {
        report.not_checked(rule, shown);
        return;
    };
    let held = actual.is_some_and(|actual| binding.is_met_by(actual, crypto));
    let (expected, more) = binding.resolve(crypto);
    let mut expected = hex::encode(expected);
    if more {
        expected.push('*');
    }
    report.compare(rule, held, expected, shown);
}

fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        milliseconds => format!("{}.{milliseconds:03} s", duration.as_secs()),
    }
}

fn or_absent(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| value.to_string())
}
