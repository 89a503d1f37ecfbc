//! What the enclave's documents prove, and what they must not pass for.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};
use attestation::{Nonce, Outcome, Policy, Purpose, Roots, Verifier};
use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::rand::fill;
use aws_nitro_enclaves_cose::CoseSign1;
use aws_nitro_enclaves_cose::crypto::{Hash, MessageDigest};
use aws_nitro_enclaves_cose::error::CoseError;
use aws_nitro_enclaves_nsm_api::api::AttestationDoc;
use measurements::{Measurements, Pcr};
use price_oracle::SignedQuote;

use demo::authority::Authority;

use crate::prices::{self, runtime_config};
use crate::screen::{Screen, seconds};

/// The register that the runtime configuration is measured into.
const RUNTIME_CONFIG_PCR: u8 = 16;
const NONCE_BYTES: usize = 32;

type NonceBytes = [u8; NONCE_BYTES];

/// What a verifier knows of the enclave before it has spoken.
pub(crate) struct Expected {
    measurements: Measurements,
    runtime_config: Pcr,
}

/// Two documents of the enclave, each with the nonce that was asked for.
pub(crate) struct Documents {
    /// Relayed by the agent, which chose the nonce and nothing else.
    pub(crate) of_agent: (Vec<u8>, NonceBytes),
    /// From the service itself.
    pub(crate) of_service: (Vec<u8>, NonceBytes),
}

impl Expected {
    pub(crate) fn new(measurements: Measurements, runtime_config: &[u8]) -> Self {
        Self {
            measurements,
            runtime_config: measure(runtime_config),
        }
    }

    fn policy(&self, purpose: Purpose) -> anyhow::Result<Policy> {
        Ok(Policy::builder()
            .measurements(self.measurements)
            .pcr(RUNTIME_CONFIG_PCR, self.runtime_config)
            .purpose(purpose)
            .build()?)
    }
}

pub(crate) fn fresh_nonce() -> anyhow::Result<NonceBytes> {
    let mut nonce = [0; NONCE_BYTES];
    fill(&mut nonce).ok().context("no random bytes")?;
    Ok(nonce)
}

/// The beginning of a register: enough to recognise it by.
pub(crate) fn short(pcr: &Pcr) -> String {
    let text = pcr.to_string();
    format!("{}…", text.get(..32).unwrap_or(&text))
}

/// Verifies documents under the root of the software NSM that signed them.
pub(crate) fn signed(
    root: &Path,
    documents: &Documents,
    expected: &Expected,
    quote: &SignedQuote,
    screen: &Screen,
) -> anyhow::Result<()> {
    let root = fs::read(root).with_context(|| format!("cannot read {}", root.display()))?;
    let roots = Roots::from_pem(&root)?;
    let (document, nonce) = &documents.of_agent;
    let policy = expected.policy(Purpose::RelayedChallenge)?;
    let verifier = Verifier::new(roots);
    let start = Instant::now();
    let verification = verifier.verify(document, &policy, Nonce::Fresh(nonce));
    let took = seconds(start.elapsed());
    let checks = verification.report.checks.iter();
    let passed = checks
        .filter(|check| check.outcome == Outcome::Passed)
        .count();
    let accepted = verification
        .outcome
        .context("the document that parent-agent relayed")?;
    screen.fact(
        "from parent-agent",
        &format!("{} bytes, {passed} checks passed in {took}", document.len()),
    );
    let key = accepted
        .public_key()
        .context("the document names no identity key")?;
    quote.verify(key)?;
    screen.fact("the quote's signature", "made by the attested key");

    let (own, own_nonce) = &documents.of_service;
    let policy = expected.policy(Purpose::Workload)?;
    let accepted = verifier
        .verify(own, &policy, Nonce::Fresh(own_nonce))
        .outcome
        .context("the service's document")?;
    ensure!(
        accepted.public_key() == Some(key),
        "the service's own document carries another key"
    );
    screen.fact(
        "from the service",
        &format!("{} bytes, accepted, with the same key", own.len()),
    );

    screen.proven(
        "it runs the image that was built: PCR0, PCR1 and PCR2 are those that image-builder wrote",
    );
    screen.proven(
        "it was given this runtime configuration, and with it this price source: PCR16 matches",
    );
    screen.proven("the documents are fresh: each carries the nonce of its challenge");
    screen.proven("the quote was signed in it: the document names the key as its identity");
    refusals(document, nonce, &verifier, expected, screen)
}

/// Compares documents that nobody has signed: QEMU's NSM measures, but leaves
/// signature and certificates empty. They are read with AWS's own crates, since
/// ours reads nothing that could not be verified.
pub(crate) fn unsigned(
    documents: &Documents,
    expected: &Expected,
    quote: &SignedQuote,
    screen: &Screen,
) -> anyhow::Result<()> {
    let (of_agent, nonce) = &documents.of_agent;
    let document = compare("from parent-agent", of_agent, nonce, expected, screen)?;
    let user_data = document.user_data.as_ref().map(|data| data.as_slice());
    ensure!(
        Purpose::of(user_data) == Purpose::RelayedChallenge,
        "the document that parent-agent relayed was made for something else"
    );
    let key = document
        .public_key
        .context("the document names no identity key")?;
    quote.verify(&key)?;
    screen.fact("the quote's signature", "made by the key in the document");
    let (of_service, nonce) = &documents.of_service;
    compare("from the service", of_service, nonce, expected, screen)?;
    screen.proven(
        "QEMU, whose code is not ours, measures what image-builder wrote: PCR0, PCR1 and PCR2",
    );
    screen.proven("the runtime configuration is in PCR16, and each nonce in its document");
    screen.proven("a document without a signature is refused");
    Ok(())
}

fn compare(
    label: &str,
    bytes: &[u8],
    nonce: &NonceBytes,
    expected: &Expected,
    screen: &Screen,
) -> anyhow::Result<AttestationDoc> {
    let policy = expected.policy(Purpose::RelayedChallenge)?;
    let verifier = Verifier::new(Roots::aws());
    let refused = verifier.verify(bytes, &policy, Nonce::Fresh(nonce));
    let Err(rejection) = refused.outcome else {
        bail!("a document without a signature was accepted {label}");
    };
    let document = payload(bytes).with_context(|| format!("the document {label}"))?;
    ensure!(
        document.nonce.as_deref().map(Vec::as_slice) == Some(nonce),
        "the document {label} carries another nonce"
    );
    for (index, value) in [
        (0, expected.measurements.pcr0),
        (1, expected.measurements.pcr1),
        (2, expected.measurements.pcr2),
        (RUNTIME_CONFIG_PCR.into(), expected.runtime_config),
    ] {
        let actual = document.pcrs.get(&index).map(hex::encode);
        ensure!(
            actual.as_deref() == Some(value.to_string().as_str()),
            "PCR{index} {label} is {}, not {value}",
            actual.as_deref().unwrap_or("absent")
        );
    }
    screen.fact(
        label,
        &format!("{} bytes: registers and nonce are as expected", bytes.len()),
    );
    screen.fact("as a proof", &format!("refused: {}", rejection.rule));
    Ok(document)
}

/// What a document says, whether or not it is true.
pub(crate) fn payload(document: &[u8]) -> anyhow::Result<AttestationDoc> {
    let message = CoseSign1::from_bytes(document).map_err(|error| anyhow!("{error:?}"))?;
    let payload = message
        .get_payload::<NoHash>(None)
        .map_err(|error| anyhow!("{error:?}"))?;
    AttestationDoc::from_binary(&payload).map_err(|error| anyhow!("{error:?}"))
}

/// For reading a payload without checking a signature, which hashes nothing.
struct NoHash;

impl Hash for NoHash {
    fn hash(_: MessageDigest, _: &[u8]) -> Result<Vec<u8>, CoseError> {
        Err(CoseError::UnsupportedError("no hash is needed".to_owned()))
    }
}

/// The same document, held against what it must not pass for.
fn refusals(
    document: &[u8],
    nonce: &NonceBytes,
    verifier: &Verifier,
    expected: &Expected,
    screen: &Screen,
) -> anyhow::Result<()> {
    let other_image = Expected {
        measurements: Measurements {
            pcr0: expected.measurements.pcr0.extend(b"one byte more"),
            ..expected.measurements
        },
        ..*expected
    };
    let other_config = Expected {
        runtime_config: measure(&runtime_config(Authority::new(prices::AUTHORITY)?.pem())),
        ..*expected
    };
    let relayed = Purpose::RelayedChallenge;
    let of_aws = Verifier::new(Roots::aws());
    for (label, verifier, policy, nonce, rule) in [
        (
            "as another image",
            verifier,
            other_image.policy(relayed)?,
            nonce,
            "policy.image",
        ),
        (
            "with another source",
            verifier,
            other_config.policy(relayed)?,
            nonce,
            "policy.pcr.16",
        ),
        (
            "replayed",
            verifier,
            expected.policy(relayed)?,
            &fresh_nonce()?,
            "policy.nonce",
        ),
        (
            "as the service's own",
            verifier,
            expected.policy(Purpose::Workload)?,
            nonce,
            "policy.purpose",
        ),
        (
            "as AWS's",
            &of_aws,
            expected.policy(relayed)?,
            nonce,
            "chain.root",
        ),
    ] {
        let verification = verifier.verify(document, &policy, Nonce::Fresh(nonce));
        match verification.outcome {
            Ok(_) => bail!("the document was accepted {label}"),
            Err(rejection) if rejection.rule.to_string() == rule => {
                screen.fact(label, &format!("refused: {rule}"));
            }
            Err(rejection) => bail!("{label}: {rejection}, where {rule} should have refused"),
        }
    }
    screen.proven("a document of another image, with another source, replayed, for another purpose, or under AWS's root is refused");
    Ok(())
}

/// What PCR16 holds once `enclave-init` has measured this configuration.
fn measure(runtime_config: &[u8]) -> Pcr {
    Pcr::ZERO.extend(digest(&SHA384, runtime_config).as_ref())
}
