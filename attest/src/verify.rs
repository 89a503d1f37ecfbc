//! `attest verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use attestation::{AuditTime, Nonce, Policy, Rule, Verifier};
use clap::Args;
use command_output::errln;

use crate::demands::Demands;
use crate::failure::{Failure, unreadable, usage};
use crate::input::{Hex, parse_hex, parse_instant, read_document};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The document: binary, hex, base64, PEM or JSON; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    demands: Demands,
    /// The nonce that the document must carry.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    nonce: Option<Hex>,
    /// Check at this time: `now`, or, as an audit, `document` or an RFC 3339 instant.
    #[arg(long, default_value = "now", value_parser = parse_time)]
    time: Time,
}

/// When the document is to be good.
#[derive(Debug, Clone, Copy)]
enum Time {
    Now,
    Past(AuditTime),
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let policy = policy(arguments).map_err(usage)?;
    let roots = arguments.demands.roots().map_err(usage)?;
    let bytes = read_document(&arguments.file).map_err(unreadable)?;
    let verifier = Verifier::new(roots);
    let nonce = arguments
        .nonce
        .as_ref()
        .map_or(Nonce::Unchallenged, |Hex(nonce)| Nonce::Fresh(nonce));
    let (report, public_key) = match arguments.time {
        Time::Now => {
            let verification = verifier.verify(&bytes, &policy, nonce);
            let accepted = verification.outcome.ok();
            let key = accepted.and_then(|accepted| accepted.public_key().map(<[u8]>::to_vec));
            (verification.report, key)
        }
        Time::Past(time) => {
            let audit = verifier.audit(&bytes, &policy, time);
            let audited = audit.outcome.ok();
            let key = audited.and_then(|audited| audited.public_key().map(<[u8]>::to_vec));
            (audit.report, key)
        }
    };
    let concluded = arguments.demands.conclude(&report, public_key.as_deref())?;
    if let (Time::Now, Some(rejection)) = (arguments.time, &report.rejection)
        && is_age(rejection.rule)
    {
        // Standard output may be a report in JSON.
        errln!("an archived document is checked at the time when it was made with --time document");
    }
    Ok(concluded)
}

/// Whether a document that was good breaks this rule one day.
fn is_age(rule: Rule) -> bool {
    matches!(rule, Rule::CertificateValidity | Rule::FreshnessAge)
}

fn policy(arguments: &Arguments) -> anyhow::Result<Policy> {
    let nonce = arguments.nonce.as_ref().map(|Hex(nonce)| nonce.clone());
    let policy = arguments.demands.policy(nonce)?;
    if policy.needs_nonce() {
        return Err(anyhow!(
            "the policy requires a nonce: give the one of this challenge with --nonce"
        ));
    }
    Ok(policy)
}

fn parse_time(text: &str) -> Result<Time, String> {
    match text {
        "now" => Ok(Time::Now),
        "document" => Ok(Time::Past(AuditTime::OfDocument)),
        instant => parse_instant(instant)
            .map(|milliseconds| Time::Past(AuditTime::At(milliseconds)))
            .map_err(|error| format!("{error}; or write `now` or `document`")),
    }
}
