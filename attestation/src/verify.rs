//! The way from bytes to an accepted document.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::appraisal::Appraisal;
#[cfg(feature = "aws-lc-rs")]
use crate::aws_lc::AwsLcRs;
use crate::cache::Cache;
use crate::chain;
use crate::clock::Clock;
use crate::crypto::Crypto;
use crate::document::Document;
use crate::evidence::{Accepted, Audited, Evidence};
use crate::nonce::Nonce;
use crate::policy::Policy;
use crate::report::{Mode, Report};
use crate::roots::{PinnedRoot, Roots};
use crate::rule::{Rejection, Rule};
use crate::signature;

/// The time that an audit looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditTime {
    /// An instant, in milliseconds since 1970.
    At(u64),
    /// The document's own time: whether it was valid when it was made. It says nothing
    /// about when that was.
    OfDocument,
}

/// A live verification's report and its end.
#[derive(Debug)]
#[must_use = "only `outcome` says whether the document was accepted"]
#[non_exhaustive]
pub struct Verification<'a> {
    /// Every check.
    pub report: Report,
    /// The accepted document, or the first rule that it broke.
    pub outcome: Result<Accepted<'a>, Rejection>,
}

/// An audit's report and its end.
#[derive(Debug)]
#[must_use = "only `outcome` says whether the document was good at that time"]
#[non_exhaustive]
pub struct Audit<'a> {
    /// Every check.
    pub report: Report,
    /// The document that was good at that time, or the first rule that it broke.
    pub outcome: Result<Audited<'a>, Rejection>,
}

/// Verifies documents under the same roots, and remembers the chains that it has
/// checked: by the hash of every certificate from the root down, and only while each of
/// them is valid.
///
/// AWS's authorities sign many leaves, and an enclave's leaf many documents. Of
/// the five signatures of an unknown document two remain where its instance is
/// known, and one where its leaf is. What is remembered is bounded: the oldest
/// goes first. A verifier is shared between threads by reference.
///
/// ```
/// use attestation::{Nonce, Pcr, Policy, Roots, Verifier};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let document = include_bytes!("../corpus/aws/8e5652f3b009e620.cbor");
/// # let policy = Policy::builder().pcr(0, Pcr::new([1; 48])).build()?;
/// let verifier = Verifier::new(Roots::aws());
/// let verification = verifier.verify(document, &policy, Nonce::Unchallenged);
/// assert!(verification.outcome.is_err()); // It has expired.
/// # Ok(())
/// # }
/// ```
///
/// What came of a verification cannot be overlooked, an audit is no verification, and
/// that no nonce was given has to be said:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # let document = include_bytes!("../corpus/aws/8e5652f3b009e620.cbor");
/// # let policy = attestation::Policy::builder().allow_any_image().build().unwrap();
/// # use attestation::{Nonce, Roots, Verifier};
/// Verifier::new(Roots::aws()).verify(document, &policy, Nonce::Unchallenged);
/// ```
///
/// ```compile_fail,E0308
/// # let document = include_bytes!("../corpus/aws/8e5652f3b009e620.cbor");
/// # let policy = attestation::Policy::builder().allow_any_image().build().unwrap();
/// # use attestation::{Accepted, AuditTime, Roots, Verifier};
/// fn serve(enclave: Accepted<'_>) {}
/// let verifier = Verifier::new(Roots::aws());
/// serve(verifier.audit(document, &policy, AuditTime::OfDocument).outcome.unwrap());
/// ```
///
/// ```compile_fail,E0061
/// # let document = include_bytes!("../corpus/aws/8e5652f3b009e620.cbor");
/// # let policy = attestation::Policy::builder().allow_any_image().build().unwrap();
/// # use attestation::{Roots, Verifier};
/// let _ = Verifier::new(Roots::aws()).verify(document, &policy);
/// ```
pub struct Verifier {
    roots: Roots,
    cache: Cache,
    crypto: &'static dyn Crypto,
}

/// The time of checking.
#[derive(Clone, Copy)]
enum Time {
    /// In milliseconds since 1970; a clock may be set to an earlier year.
    At(i128),
    OfDocument,
}

impl Time {
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn now() -> Self {
        let milliseconds = |time: Duration| i128::try_from(time.as_millis()).unwrap_or(i128::MAX);
        Self::At(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => milliseconds(since),
            Err(before) => -milliseconds(before.duration()),
        })
    }
}

impl Verifier {
    /// Authorities that are remembered, and leaves.
    pub const CAPACITY: usize = 1024;

    /// A verifier that trusts these roots.
    #[cfg(feature = "aws-lc-rs")]
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self::with_crypto(roots, &AwsLcRs)
    }

    /// A verifier that trusts these roots, and this cryptography.
    #[must_use]
    pub fn with_crypto(roots: Roots, crypto: &'static dyn Crypto) -> Self {
        Self {
            roots,
            cache: Cache::new(Self::CAPACITY),
            crypto,
        }
    }

    /// Verifies a live document by the system's clock, from its bytes to the policy.
    ///
    /// A clock that is wrong by more than the policy's `clock_skew` refuses good
    /// documents; the reason says by how much it is behind.
    ///
    /// `wasm32-unknown-unknown` has no clock, and so not this function.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn verify<'a>(
        &self,
        document: &'a [u8],
        policy: &Policy,
        nonce: Nonce<'_>,
    ) -> Verification<'a> {
        self.verify_live(document, policy, nonce, Time::now())
    }

    /// As [`verify`](Self::verify), by the caller's clock, in milliseconds since 1970. A
    /// time that is not now is for [`audit`](Self::audit).
    pub fn verify_at<'a>(
        &self,
        document: &'a [u8],
        policy: &Policy,
        nonce: Nonce<'_>,
        now_ms: u64,
    ) -> Verification<'a> {
        self.verify_live(document, policy, nonce, Time::At(now_ms.into()))
    }

    /// Verifies a document that was kept, at another time than now. There is no
    /// challenge: a nonce that the document must carry is one that the policy demands.
    pub fn audit<'a>(&self, document: &'a [u8], policy: &Policy, time: AuditTime) -> Audit<'a> {
        let time = match time {
            AuditTime::At(milliseconds) => Time::At(milliseconds.into()),
            AuditTime::OfDocument => Time::OfDocument,
        };
        let (report, outcome) =
            self.judge(document, policy, Nonce::Unchallenged, time, Mode::Audit);
        Audit {
            report,
            outcome: outcome.map(Audited::new),
        }
    }

    fn verify_live<'a>(
        &self,
        document: &'a [u8],
        policy: &Policy,
        nonce: Nonce<'_>,
        time: Time,
    ) -> Verification<'a> {
        let (report, outcome) = self.judge(document, policy, nonce, time, Mode::Live);
        Verification {
            report,
            outcome: outcome.map(Accepted::new),
        }
    }

    fn judge<'a>(
        &self,
        bytes: &'a [u8],
        policy: &Policy,
        nonce: Nonce<'_>,
        time: Time,
        mode: Mode,
    ) -> (Report, Result<Evidence<'a>, Rejection>) {
        let mut report = Report::new(mode);
        report.names_code = policy.names_code();
        let authentic = Document::parse(bytes).and_then(|document| {
            let now_ms = match time {
                Time::At(milliseconds) => milliseconds,
                Time::OfDocument => document.timestamp_ms.into(),
            };
            let clock = Clock::new(now_ms, policy.clock_skew);
            report.parsed(&document, clock);
            let root = self.authenticate(&document, clock, &mut report)?;
            Ok((document, root, clock))
        });
        let outcome = authentic
            .inspect_err(|rejection| report.refused(rejection))
            .and_then(|(document, root, clock)| {
                let appraisal = Appraisal {
                    document: &document,
                    policy,
                    nonce,
                    clock,
                    crypto: self.crypto,
                };
                appraisal.run(&mut report)?;
                Ok(Evidence::new(document, root))
            });
        report.accepted = outcome.is_ok();
        report.rejection = outcome.as_ref().err().cloned();
        (report, outcome)
    }

    /// Checks the certificates, up to a pinned root, and the signature.
    fn authenticate(
        &self,
        document: &Document<'_>,
        clock: Clock,
        report: &mut Report,
    ) -> Result<PinnedRoot, Rejection> {
        let (roots, cache) = (&self.roots, &self.cache);
        let (root, leaf) = chain::verify(document, roots, cache, self.crypto, clock, report)?;
        signature::check(document, &leaf)?;
        report.passed(Rule::DocumentSignature);
        Ok(root)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}
