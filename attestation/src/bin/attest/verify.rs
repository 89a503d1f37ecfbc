//! `attest verify`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use attestation::{Policy, PolicyBuilder, Roots, Time, parse_duration, read_measurements, verify};
use clap::Args;
use eif::Pcr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::input::read_document;
use crate::table::table;
use crate::text::{distance_from_now, instant};
use crate::{Failure, REJECTED, unreadable, usage};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The document: binary, hex, base64 or PEM; `-` is standard input.
    file: PathBuf,
    /// The policy, TOML or JSON; further options add to it.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// An image's measurements as image-builder or nitro-cli wrote them; may be
    /// repeated, and one of the images must match.
    #[arg(long, value_name = "FILE")]
    measurements: Vec<PathBuf>,
    /// A register's value, as in `16=HEX`; may be repeated.
    #[arg(long, value_name = "N=HEX", value_parser = parse_pcr)]
    pcr: Vec<(u8, Pcr)>,
    /// Accept any image: to know only that AWS signed the document.
    #[arg(long)]
    allow_any_image: bool,
    /// The nonce that the document must carry.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    nonce: Option<Hex>,
    /// Trust the certificates in this PEM file instead of AWS's root.
    #[arg(long, value_name = "PEM")]
    root: Option<PathBuf>,
    /// Check at this time: `now`, `document` or an RFC 3339 instant.
    #[arg(long, default_value = "now", value_parser = parse_time)]
    time: Time,
    /// How old the document may be, such as 90s, 5m or 1h; 5m unless said.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// Accept an enclave in debug mode, whose memory its parent can read.
    #[arg(long)]
    allow_debug: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Bytes given in hex.
#[derive(Debug, Clone)]
struct Hex(Vec<u8>);

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let policy = policy(arguments).map_err(usage)?;
    let roots = match &arguments.root {
        None => Roots::aws(),
        Some(file) => read_roots(file).map_err(usage)?,
    };
    let bytes = read_document(&arguments.file).map_err(unreadable)?;
    let verification = verify(&bytes, &roots, &policy, arguments.time);
    let report = &verification.report;
    if arguments.json {
        let json = serde_json::to_string_pretty(report)
            .context("cannot write the report")
            .map_err(usage)?;
        println!("{json}");
    } else {
        print!("{}", table(report, colour()));
        println!();
        if let Some(checked_at_ms) = report.checked_at_ms {
            println!("checked at  {}", instant(checked_at_ms));
        }
        match &verification.outcome {
            Ok(accepted) => {
                println!("made at     {}", made_at(accepted.timestamp_ms()));
                println!("accepted    {}", accepted.module_id());
            }
            Err(rejection) => println!("rejected    {rejection}"),
        }
    }
    Ok(match verification.outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(REJECTED),
    })
}

fn policy(arguments: &Arguments) -> anyhow::Result<Policy> {
    let mut builder: PolicyBuilder = match &arguments.policy {
        Some(file) => Policy::read(file)?.to_builder(),
        None => Policy::builder(),
    };
    for file in &arguments.measurements {
        builder = builder.image(file.display().to_string(), read_measurements(file)?);
    }
    for (index, value) in &arguments.pcr {
        builder = builder.pcr(*index, *value);
    }
    if arguments.allow_any_image {
        builder = builder.allow_any_image();
    }
    if let Some(Hex(nonce)) = &arguments.nonce {
        builder = builder.nonce(nonce.clone());
    }
    if let Some(max_age) = arguments.max_age {
        builder = builder.max_age(max_age);
    }
    if arguments.allow_debug {
        builder = builder.allow_debug();
    }
    let policy = builder.build()?;
    if policy.needs_nonce() {
        return Err(anyhow!(
            "the policy requires a nonce: give the one of this challenge with --nonce"
        ));
    }
    Ok(policy)
}

pub(crate) fn read_roots(file: &Path) -> anyhow::Result<Roots> {
    std::fs::read(file)
        .map_err(anyhow::Error::from)
        .and_then(|pem| Ok(Roots::from_pem(&pem)?))
        .with_context(|| file.display().to_string())
}

/// Colour is for terminals, and for people who have not said otherwise
/// (<https://no-color.org>).
fn colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !unwanted
}

fn made_at(milliseconds: u64) -> String {
    format!(
        "{} ({})",
        instant(milliseconds),
        distance_from_now(milliseconds)
    )
}

fn parse_pcr(text: &str) -> Result<(u8, Pcr), String> {
    let (index, value) = text.split_once('=').ok_or("write N=HEX, as in 0=1a2b…")?;
    let index = index
        .parse()
        .map_err(|_| format!("`{index}` is not a register's number"))?;
    let value = value
        .parse()
        .map_err(|error: eif::PcrError| error.to_string())?;
    Ok((index, value))
}

fn parse_hex(text: &str) -> Result<Hex, String> {
    hex::decode(text)
        .map(Hex)
        .map_err(|error| error.to_string())
}

fn parse_time(text: &str) -> Result<Time, String> {
    match text {
        "now" => Ok(Time::Now),
        "document" => Ok(Time::OfDocument),
        instant => OffsetDateTime::parse(instant, &Rfc3339)
            .ok()
            .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok())
            .map(Time::At)
            .ok_or_else(|| format!("`{instant}` is not `now`, `document` or an instant such as 2026-01-31T12:00:00Z")),
    }
}
