//! What `verify`, `fetch` and `seal` demand of a document, and how they say what came
//! of it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use attestation::{
    Addition, Mode, Policy, PolicyError, Purpose, Report, Roots, parse_duration, read_measurements,
};
use clap::Args;
use command_input::Trust;
use command_output::{out, outln};
use measurements::Pcr;

use crate::failure::{Failure, REJECTED, rejected, usage};
use crate::table::table;
use crate::text::{distance_from_now, instant};

/// The policy, and the form of the report.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command"
)]
pub(crate) struct Demands {
    /// The policy, TOML or JSON; further options add to its demands and replace none.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// An image's measurements as image-builder, nitro-cli or nitro-tpm-pcr-compute wrote
    /// them; may be repeated, and one of the images must match.
    #[arg(long, value_name = "FILE")]
    measurements: Vec<PathBuf>,
    /// A register's value, as in `16=HEX` and as `attest pcr` prints; may be repeated.
    #[arg(long, value_name = "N=HEX", value_parser = parse_pcr)]
    pcr: Vec<(u8, Pcr)>,
    /// Demand a document that was made for this: relayed-challenge, self-check, clock,
    /// key-release, sealing, key-request, key-gift or workload.
    #[arg(long)]
    purpose: Option<Purpose>,
    /// Accept any image: to know only that AWS signed the document.
    #[arg(long)]
    allow_any_image: bool,
    #[command(flatten)]
    trust: Trust,
    /// How old the document may be, such as 90s, 5m or 1h; 5m unless said.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// Accept an enclave in debug mode, whose memory its parent can read.
    #[arg(long)]
    allow_debug: bool,
    /// Refuse a document with keys whose meaning is not known.
    #[arg(long)]
    strict_keys: bool,
    /// Write the `public_key` of the document to this file, if the document is accepted.
    #[arg(long, value_name = "FILE")]
    public_key_out: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Demands {
    /// The policy's demands and the options', and this nonce.
    pub(crate) fn policy(&self, nonce: Option<Vec<u8>>) -> anyhow::Result<Policy> {
        let image = |file: &PathBuf| {
            let measurements = read_measurements(file)?;
            Ok::<_, PolicyError>((file.display().to_string(), measurements))
        };
        let addition = Addition {
            images: self
                .measurements
                .iter()
                .map(image)
                .collect::<Result<_, _>>()?,
            pcrs: self.pcr.clone(),
            nonce,
            purpose: self.purpose,
            max_age: self.max_age,
            strict_keys: self.strict_keys,
            allow_any_image: self.allow_any_image,
            allow_debug: self.allow_debug,
        };
        match &self.policy {
            Some(file) => Policy::read(file)?
                .with(&addition)
                .with_context(|| format!("{} and the options", file.display())),
            None => Ok(addition.policy()?),
        }
    }

    pub(crate) fn roots(&self) -> anyhow::Result<Roots> {
        Ok(self.trust.roots()?)
    }

    /// Prints the report, keeps the public key of an accepted document, and gives the
    /// exit code that belongs to the report.
    pub(crate) fn conclude(
        &self,
        report: &Report,
        public_key: Option<&[u8]>,
    ) -> Result<ExitCode, Failure> {
        self.print(report)?;
        if !report.accepted {
            return Ok(ExitCode::from(REJECTED));
        }
        if let Some(file) = &self.public_key_out {
            keep_key(file, public_key)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(report)
                .context("cannot write the report")
                .map_err(usage)?;
            outln!("{json}");
        } else {
            out!("{}", table(report, colour()));
            outln!();
            if let Some(checked_at_ms) = report.checked_at_ms {
                outln!("checked at  {}", instant(checked_at_ms));
            }
            if let Some(root) = &report.root {
                outln!("root        {root}");
            }
            print_end(report);
        }
        Ok(())
    }
}

/// Who asks for the key counts on it: a document without one is not good enough.
fn keep_key(file: &Path, public_key: Option<&[u8]>) -> Result<(), Failure> {
    let key = public_key.ok_or_else(|| {
        rejected(anyhow!(
            "the document has no public_key that could be written to {}: the workload has registered none",
            file.display()
        ))
    })?;
    std::fs::write(file, key)
        .with_context(|| format!("cannot write {}", file.display()))
        .map_err(usage)
}

fn print_end(report: &Report) {
    if let Some(rejection) = &report.rejection {
        outln!("rejected    {rejection}");
    } else if let Some(claims) = &report.document {
        outln!("made at     {}", made_at(claims.timestamp_ms));
        if let Some(purpose) = claims.purpose {
            outln!("purpose     {purpose}");
        }
        outln!("{}    {}", good(report.mode), claims.module_id);
        if !report.names_code {
            outln!("code        any: the policy names none");
        }
    }
}

/// What is said of what is good: now, or at another time, which says nothing about now.
pub(crate) const fn good(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => "accepted",
        Mode::Audit => "was good",
    }
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

pub(crate) fn parse_pcr(text: &str) -> Result<(u8, Pcr), String> {
    let (index, value) = text.split_once('=').ok_or("write N=HEX, as in 0=1a2b…")?;
    let index = index
        .parse()
        .ok()
        .filter(|number: &u8| number.to_string() == index)
        .ok_or_else(|| format!("`{index}` is not a register's number: write 0 to 31"))?;
    let value = value
        .parse()
        .map_err(|error: measurements::PcrError| error.to_string())?;
    Ok((index, value))
}
