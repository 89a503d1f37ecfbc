//! An authentic document against a policy.

use std::fmt::Write;

use measurements::Pcr;

use crate::clock::{Clock, seconds};
use crate::crypto::Crypto;
use crate::document::{Document, Profile};
use crate::image::{Image, ImageMeasurements};
use crate::nonce::Nonce;
use crate::policy::{self, Binding, Policy};
use crate::report::{Check, Outcome, Report};
use crate::rule::{Rejection, Rule};
use crate::shown::{or_absent, or_empty, shown};

/// A document whose signature and certificates hold, and what it is held against.
pub(crate) struct Appraisal<'a, 'p> {
    pub(crate) document: &'p Document<'a>,
    pub(crate) policy: &'p Policy,
    pub(crate) nonce: Nonce<'p>,
    pub(crate) clock: Clock,
    pub(crate) crypto: &'static dyn Crypto,
}

impl Appraisal<'_, '_> {
    /// Checks freshness, nonce, mode, registers and bindings: all of them, and fails with
    /// the first that does not hold.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Rejection> {
        let first = report.checks.len();
        self.check_freshness(report);
        self.nonce
            .check(&self.policy.nonce, self.document.nonce, report);
        report.compare(
            Rule::PolicyProfile,
            self.document.profile == self.policy.profile,
            self.policy.profile.to_string(),
            self.document.profile.to_string(),
        );
        self.check_keys(report);
        let id = self.document.module_id.to_owned();
        match &self.policy.module_id {
            Some(pattern) => {
                let held = policy::matches(pattern, &id);
                report.compare(Rule::PolicyModuleId, held, pattern.clone(), id);
            }
            None => report.not_checked(Rule::PolicyModuleId, id),
        }
        self.check_debug(report);
        self.check_image(report);
        for (&index, allowed) in &self.policy.pcrs {
            let actual = self.pcr(index);
            let expected: Vec<_> = allowed.iter().map(Pcr::to_string).collect();
            report.compare(
                Rule::PolicyPcr(index),
                actual.is_some_and(|actual| allowed.contains(&actual)),
                expected.join(" or "),
                self.found(index, allowed),
            );
        }
        self.check_purpose(report);
        let (user_data, public_key) = (self.document.user_data, self.document.public_key);
        check_binding(
            report,
            Rule::PolicyUserData,
            self.policy.user_data.as_ref(),
            user_data,
            self.crypto,
        );
        check_binding(
            report,
            Rule::PolicyPublicKey,
            self.policy.public_key.as_ref(),
            public_key,
            self.crypto,
        );
        let failed = report
            .checks
            .iter()
            .skip(first)
            .find(|check| check.outcome == Outcome::Failed);
        match failed {
            None => Ok(()),
            Some(check) => Err(Rejection::new(check.rule, reason(check))),
        }
    }

    fn check_freshness(&self, report: &mut Report) {
        let made = i128::from(self.document.timestamp_ms);
        report.compare(
            Rule::FreshnessFuture,
            self.clock.behind(made).is_none(),
            format!("at most {} behind", seconds(self.clock.skew())),
            format!("the clock is {} behind", seconds(self.clock.until(made))),
        );
        let age = self.clock.since(made);
        report.compare(
            Rule::FreshnessAge,
            age <= self.policy.max_age,
            format!("at most {} old", seconds(self.policy.max_age)),
            format!("{} old", seconds(age)),
        );
    }

    fn check_keys(&self, report: &mut Report) {
        let unknown: Vec<_> = self.document.unverified_unknown_keys().collect();
        let actual = match unknown.as_slice() {
            [] => "none".to_owned(),
            unknown => unknown.join(", "),
        };
        if self.policy.strict_keys {
            let held = unknown.is_empty();
            report.compare(Rule::PolicyStrictKeys, held, "none".to_owned(), actual);
        } else {
            report.not_checked(Rule::PolicyStrictKeys, actual);
        }
    }

    /// An enclave in debug mode reports zeros for what was measured at its start.
    fn check_debug(&self, report: &mut Report) {
        if self.document.profile == Profile::NitroTpm {
            return;
        }
        let debug = self.pcr(0).is_none_or(|pcr0| pcr0 == Pcr::ZERO);
        let expected = if self.policy.debug_allowed {
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
            !debug || self.policy.debug_allowed,
            expected.to_owned(),
            actual.to_owned(),
        );
    }

    /// A NitroTPM's documents say nothing of a purpose.
    fn check_purpose(&self, report: &mut Report) {
        let Some(purpose) = self.document.unverified_purpose() else {
            return;
        };
        let actual = purpose.to_string();
        match self.policy.purpose {
            Some(demanded) => report.compare(
                Rule::PolicyPurpose,
                demanded == purpose,
                demanded.to_string(),
                actual,
            ),
            None => report.not_checked(Rule::PolicyPurpose, actual),
        }
    }

    fn check_image(&self, report: &mut Report) {
        if self.policy.images.is_empty() {
            let actual = match self.document.profile {
                Profile::Enclave => format!("PCR0 is {}", or_absent(self.pcr(0))),
                Profile::NitroTpm => return,
            };
            report.not_checked(Rule::PolicyImage, actual);
            return;
        }
        let names: Vec<_> = self
            .policy
            .images
            .iter()
            .map(|image| &*image.name)
            .collect();
        let closest = self
            .policy
            .images
            .iter()
            .map(|image| (image, self.differences(image)))
            .min_by_key(|(_, differences)| differences.len());
        let (held, actual) = match closest {
            Some((image, differences)) if differences.is_empty() => (true, image.name.clone()),
            Some((image, differences)) => {
                let mut actual = common_ground(image, &differences).to_owned();
                if names.len() > 1 {
                    let _ = write!(actual, ", closest to {}", image.name);
                }
                let registers = differences.iter().map(|&(index, expected)| {
                    let found = self.found(index, &[expected]);
                    format!("PCR{index} is {found}, not {expected}")
                });
                let registers: Vec<_> = registers.collect();
                (false, format!("{actual}: {}", registers.join(", ")))
            }
            None => (false, String::new()),
        };
        report.compare(Rule::PolicyImage, held, names.join(" or "), actual);
    }

    /// The image's registers, and their values, that the document does not have.
    fn differences(&self, image: &Image) -> Vec<(u8, Pcr)> {
        image
            .pcrs()
            .filter(|&(index, expected)| self.pcr(index) != Some(expected))
            .collect()
    }

    /// What a register holds, and a hint where what was measured into it was demanded
    /// instead: a certificate's fingerprint, or the digest of a configuration.
    fn found(&self, index: u8, demanded: &[Pcr]) -> String {
        let Some(actual) = self.pcr(index) else {
            return or_absent(None::<&str>);
        };
        let measured = |value: &Pcr| {
            let extended = [Pcr::ZERO.as_bytes().as_slice(), value.as_bytes()].concat();
            self.crypto.sha384(&extended) == *actual.as_bytes()
        };
        if demanded.contains(&actual) || !demanded.iter().any(measured) {
            return actual.to_string();
        }
        let advice = match index {
            8 => ", the certificate's fingerprint: `attest pcr --certificate FILE` computes PCR8",
            _ => ": it holds SHA-384 of 48 zero bytes and that value",
        };
        format!("{actual} (what was demanded is what was measured into the register{advice})")
    }

    fn pcr(&self, index: u8) -> Option<Pcr> {
        self.document
            .unverified_pcr(index.into())
            .copied()
            .map(Pcr::new)
    }
}

/// What an enclave is that differs from an image in these registers. PCR0 is of the whole
/// image, and so says nothing of its parts.
fn common_ground(image: &Image, differences: &[(u8, Pcr)]) -> &'static str {
    let differs = |register| differences.iter().any(|(index, _)| *index == register);
    match image.measurements {
        ImageMeasurements::NitroTpm(_) => "another image",
        ImageMeasurements::Enclave(_) => match (differs(1), differs(2)) {
            (false, true) => "the same kernel and init (PCR1) with another application (PCR2)",
            (true, false) => "the same application (PCR2) with another kernel or init (PCR1)",
            (false, false) if !differs(0) => "the same image with another signer, or none (PCR8)",
            _ => "another image",
        },
    }
}

fn check_binding(
    report: &mut Report,
    rule: Rule,
    binding: Option<&Binding>,
    actual: Option<&[u8]>,
    crypto: &dyn Crypto,
) {
    let shown = shown(actual);
    let Some(binding) = binding else {
        report.not_checked(rule, shown);
        return;
    };
    let held = actual.is_some_and(|actual| binding.is_met_by(actual, crypto));
    let (expected, more) = binding.resolve(crypto);
    let expected = if more {
        format!("{}*", hex::encode(expected))
    } else {
        or_empty(&expected)
    };
    report.compare(rule, held, expected, shown);
}

/// Why a check failed.
fn reason(check: &Check) -> String {
    let expected = check.expected.as_deref().unwrap_or_default();
    let actual = check.actual.as_deref().unwrap_or_default();
    match check.rule {
        Rule::FreshnessFuture => format!("{actual}, and may be {expected}: set the clock"),
        _ => format!("expected {expected}, found {actual}"),
    }
}
