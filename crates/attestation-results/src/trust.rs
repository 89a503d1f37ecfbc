//! What a verification shows, in AR4SI's terms
//! ([draft-ietf-rats-ar4si](https://datatracker.ietf.org/doc/draft-ietf-rats-ar4si/)).

use attestation::{Document, Outcome, Profile, Report, Rule};
use serde::{Deserialize, Serialize};

/// Values of AR4SI's claims, as its section 2.3 defines them.
mod value {
    pub(super) const UNEXPECTED_EVIDENCE: i8 = 1;
    pub(super) const RECOGNIZED_INSTANCE: i8 = 2;
    pub(super) const UNRECOGNIZED_INSTANCE: i8 = 97;
    pub(super) const CRYPTO_VALIDATION_FAILED: i8 = 99;
    pub(super) const APPROVED_CONFIGURATION: i8 = 2;
    pub(super) const UNSAFE_CONFIGURATION: i8 = 32;
    pub(super) const UNSUPPORTABLE_CONFIGURATION: i8 = 96;
    pub(super) const APPROVED_BOOT: i8 = 3;
    pub(super) const UNRECOGNIZED_EXECUTABLES: i8 = 33;
    pub(super) const GENUINE_HARDWARE: i8 = 2;
    /// The least value of the warning tier.
    pub(super) const WARNING: i8 = 32;
}

/// The trustworthiness tier of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Accepted: the code is known, and nothing weakens it.
    Affirming,
    /// Accepted by a policy that names no code, or that allows debug mode.
    Warning,
    /// Rejected.
    Contraindicated,
}

impl Status {
    /// Its name in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }

    /// The tier that a claim's value is of, if it says anything (AR4SI, section
    /// 2.3.1: from 2, 32 and 96 on, and below the same numbers negated).
    pub(crate) const fn of_claim(value: i8) -> Option<Self> {
        match value {
            -1..=1 => None,
            2..=31 | -32..=-2 => Some(Self::Affirming),
            32..=95 | -96..=-33 => Some(Self::Warning),
            _ => Some(Self::Contraindicated),
        }
    }
}

/// The claims that a document of AWS's can speak for; `None` is no claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TrustVector {
    /// That the hypervisor is a known one, and speaks now.
    pub(crate) instance_identity: i8,
    /// That the enclave's configuration is approved, and not in debug mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configuration: Option<i8>,
    /// That the image that was started is approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) executables: Option<i8>,
    /// That AWS's hardware and firmware are genuine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hardware: Option<i8>,
}

impl TrustVector {
    /// What a report shows under a policy for documents of this kind; the
    /// document is given where its signature was found good.
    pub(crate) fn of(report: &Report, document: Option<&Document<'_>>, profile: Profile) -> Self {
        let Some(document) = document else {
            return Self {
                instance_identity: unauthentic(report),
                ..Self::default()
            };
        };
        let another = [
            Rule::FreshnessFuture,
            Rule::FreshnessAge,
            Rule::PolicyNonce,
            Rule::PolicyProfile,
            Rule::PolicyModuleId,
        ];
        if another.iter().any(|rule| failed(report, *rule)) {
            // An authentic document that is not the one that was asked for says
            // nothing about now.
            return Self {
                instance_identity: value::CRYPTO_VALIDATION_FAILED,
                ..Self::default()
            };
        }
        let debug = profile == Profile::Enclave && !holds(document, 0);
        let executables = executables(report, profile, debug);
        Self {
            instance_identity: value::RECOGNIZED_INSTANCE,
            configuration: configuration(report, profile, debug, executables),
            executables,
            hardware: of_aws(report).then_some(value::GENUINE_HARDWARE),
        }
    }

    /// The tier of the whole. A rejection is contraindicated whatever the claims:
    /// some rules have none.
    pub(crate) fn status(self, report: &Report) -> Status {
        let claims = [self.configuration, self.executables, self.hardware];
        let warned = claims
            .iter()
            .flatten()
            .any(|claim| *claim >= value::WARNING);
        if !report.accepted {
            Status::Contraindicated
        } else if warned || self.executables.is_none() {
            Status::Warning
        } else {
            Status::Affirming
        }
    }
}

/// Whether the root that the document's certificates lead to is AWS's: only then AWS's
/// hardware made it, whatever else the verifier trusts.
fn of_aws(report: &Report) -> bool {
    let root = report.root.as_ref();
    root.is_some_and(|root| root.partition.is_some())
}

/// Why a document is not authentic.
fn unauthentic(report: &Report) -> i8 {
    match &report.rejection {
        Some(rejection) if rejection.rule.is_of_form() => value::UNEXPECTED_EVIDENCE,
        Some(rejection) if rejection.rule == Rule::ChainRoot => value::UNRECOGNIZED_INSTANCE,
        _ => value::CRYPTO_VALIDATION_FAILED,
    }
}

/// Registers are measured when an enclave starts: they speak for what was booted,
/// and not for what it has loaded since. In debug mode they speak for nothing.
fn executables(report: &Report, profile: Profile, debug: bool) -> Option<i8> {
    let refused = report
        .checks
        .iter()
        .any(|check| check.rule.is_of_code(profile) && check.outcome == Outcome::Failed);
    if refused {
        return Some(value::UNRECOGNIZED_EXECUTABLES);
    }
    (report.names_code && !debug).then_some(value::APPROVED_BOOT)
}

/// An image's configuration is measured with it; what is left is debug mode, and
/// registers that were extended since.
fn configuration(
    report: &Report,
    profile: Profile,
    debug: bool,
    executables: Option<i8>,
) -> Option<i8> {
    if profile == Profile::NitroTpm {
        return None;
    }
    if debug {
        return Some(if failed(report, Rule::PolicyDebug) {
            value::UNSUPPORTABLE_CONFIGURATION
        } else {
            value::UNSAFE_CONFIGURATION
        });
    }
    let other = report
        .checks
        .iter()
        .any(|check| matches!(check.rule, Rule::PolicyPcr(_)) && check.outcome == Outcome::Failed);
    (executables == Some(value::APPROVED_BOOT) && !other).then_some(value::APPROVED_CONFIGURATION)
}

/// Whether a register is there and not zero.
fn holds(document: &Document<'_>, index: u8) -> bool {
    document
        .unverified_pcr(index.into())
        .is_some_and(|value| value.iter().any(|byte| *byte != 0))
}

fn failed(report: &Report, rule: Rule) -> bool {
    let mut checks = report.checks.iter();
    checks.any(|check| check.rule == rule && check.outcome == Outcome::Failed)
}
