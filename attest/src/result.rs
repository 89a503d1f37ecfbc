//! `attest result`: signed results as a relying party reads them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use attestation::{Mode, Profile, parse_duration, read_measurements};
use attestation_client::fetch_key_set;
use attestation_results::{
    Expectations, Freshness, Jwks, MAX_JWKS, MAX_TOKEN, ResultError, VerifiedResult, verify,
    verify_at,
};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use command_output::outln;
use measurements::Pcr;
use serde::Serialize;

use crate::demands::{good, parse_pcr};
use crate::failure::{Failure, REJECTED, unreadable, usage};
use crate::input::{Hex, parse_hex, parse_instant, tls_authorities};
use crate::runtime::runtime;
use crate::text::instant;

/// How long a key set may take, from the look-up of the name to the last byte.
const KEY_SET_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify a signed result (EAR) of `attest serve` or the control plane.
    Verify(Box<Verify>),
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
#[command(group(ArgGroup::new("nonces").args(["nonce", "no_nonce"]).required(true)))]
struct Verify {
    /// The signed result: a file, `-` for standard input, or the JWT itself, which
    /// begins with `eyJ`.
    #[arg(value_name = "TOKEN")]
    token: String,
    /// The issuer's key set: a file, or the https URL where it is published.
    #[arg(long, value_name = "FILE-or-URL")]
    jwks: String,
    /// Believe a TLS server for which these certificate authorities vouch, instead of
    /// the system's.
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// The nonce that the result must be for.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    nonce: Option<Hex>,
    /// Accept a result for any nonce, or for none: whoever has it can show it again
    /// until it expires.
    #[arg(long)]
    no_nonce: bool,
    /// What must show that the document is new, at least; with --nonce `caller`.
    #[arg(long, value_name = "LEAST")]
    freshness: Option<LeastFreshness>,
    /// Who must have issued it: the claim `iss`.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The policy's digest, `sha256:…`, or its name; may be repeated, and it must be
    /// one of them.
    #[arg(long, value_name = "ID")]
    policy: Vec<String>,
    /// Accept any policy of the issuer.
    #[arg(long)]
    allow_any_policy: bool,
    /// The image's name in the policy, which --policy has to demand as well; may be
    /// repeated, and it must be one of them.
    #[arg(long, value_name = "NAME")]
    image: Vec<String>,
    /// An image's measurements as image-builder or nitro-cli wrote them; may be
    /// repeated, and one of the images must match.
    #[arg(long, value_name = "FILE")]
    measurements: Vec<PathBuf>,
    /// A register's value, as in `16=HEX`; may be repeated, for one register as one of
    /// its values.
    #[arg(long, value_name = "N=HEX", value_parser = parse_pcr)]
    pcr: Vec<(u8, Pcr)>,
    /// The enclave's or the instance's module id.
    #[arg(long, value_name = "ID")]
    module_id: Option<String>,
    /// What the document must be of.
    #[arg(long, default_value = "enclave")]
    profile: Kind,
    /// Accept a warning: a policy that names no code, or debug mode.
    #[arg(long)]
    allow_warning: bool,
    /// Accept an issuer that trusts other roots than AWS's, as in tests.
    #[arg(long)]
    allow_other_roots: bool,
    /// How long ago it may have been issued; until it expires unless said.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// By how much the issuer's clock and this one may differ.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    clock_skew: Duration,
    /// Check, as an audit, at this time, an RFC 3339 instant, instead of now.
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    time: Option<u64>,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LeastFreshness {
    Caller,
    Challenge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Enclave,
    NitroTpm,
}

/// What `--json` prints; `docs/attest.md` describes it.
#[derive(Serialize)]
struct Outcome<'a> {
    schema: u32,
    mode: Mode,
    accepted: bool,
    rejection: Option<&'a ResultError>,
    result: Option<&'a VerifiedResult>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Command::Verify(arguments) = &arguments.command;
    let expectations = expectations(arguments).map_err(usage)?;
    let keys = key_set(arguments)?;
    let token = token(&arguments.token).map_err(unreadable)?;
    let verified = match arguments.time {
        None => verify(&token, &keys, &expectations),
        Some(milliseconds) => verify_at(&token, &keys, &expectations, milliseconds / 1000),
    };
    let mode = match arguments.time {
        None => Mode::Live,
        Some(_) => Mode::Audit,
    };
    print(&verified, mode, arguments.json).map_err(usage)?;
    Ok(match verified {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(REJECTED),
    })
}

fn expectations(arguments: &Verify) -> anyhow::Result<Expectations> {
    let mut expected = match &arguments.nonce {
        Some(Hex(nonce)) => Expectations::with_nonce(nonce.clone()),
        None => Expectations::without_nonce(),
    }
    .clock_skew(arguments.clock_skew)
    .profile(match arguments.profile {
        Kind::Enclave => Profile::Enclave,
        Kind::NitroTpm => Profile::NitroTpm,
    });
    if let Some(issuer) = &arguments.issuer {
        expected = expected.issuer(issuer);
    }
    for policy in &arguments.policy {
        expected = expected.policy(policy);
    }
    for image in &arguments.image {
        expected = expected.image(image);
    }
    for file in &arguments.measurements {
        expected = expected.measurements(read_measurements(file)?);
    }
    for (index, value) in &arguments.pcr {
        expected = expected.pcr(*index, *value);
    }
    if let Some(module_id) = &arguments.module_id {
        expected = expected.module_id(module_id);
    }
    if let Some(age) = arguments.max_age {
        expected = expected.max_age(age);
    }
    if let Some(least) = arguments.freshness {
        expected = expected.freshness(match least {
            LeastFreshness::Caller => Freshness::Caller,
            LeastFreshness::Challenge => Freshness::Challenge,
        });
    }
    if arguments.allow_any_policy {
        expected = expected.allow_any_policy();
    }
    if arguments.allow_warning {
        expected = expected.allow_warning();
    }
    if arguments.allow_other_roots {
        expected = expected.allow_other_roots();
    }
    Ok(expected.build()?)
}

fn key_set(arguments: &Verify) -> Result<Jwks, Failure> {
    let place = &arguments.jwks;
    let is_url = ["https:", "http:"]
        .iter()
        .any(|scheme| place.starts_with(scheme));
    let json = if is_url {
        fetched_key_set(arguments)?
    } else {
        command_input::read(Path::new(place), MAX_JWKS)
            .map_err(|error| unreadable(error.into()))?
            .to_vec()
    };
    Jwks::from_json(&json)
        .with_context(|| place.clone())
        .map_err(unreadable)
}

fn fetched_key_set(arguments: &Verify) -> Result<Vec<u8>, Failure> {
    use attestation_client::FetchError::{Endpoint, NotAuthentic};
    let trust = tls_authorities(arguments.ca.as_deref()).map_err(usage)?;
    let runtime = runtime()?;
    let fetched = fetch_key_set(&arguments.jwks, trust, MAX_JWKS, KEY_SET_TIMEOUT);
    runtime.block_on(fetched).map_err(|error| match error {
        Endpoint(_) | NotAuthentic(_) => usage(error.into()),
        _ => unreadable(error.into()),
    })
}

/// What was given, or what a file holds, without white space around it.
fn token(text: &str) -> anyhow::Result<String> {
    // Every header of a JWT begins so: it is `{"` in base64.
    if text.starts_with("eyJ") {
        return Ok(text.to_owned());
    }
    let bytes = command_input::read(Path::new(text), MAX_TOKEN + 2)?;
    let token = std::str::from_utf8(&bytes)
        .map_err(|_| anyhow!("{text}: it is not text: is this a signed result?"))?;
    Ok(token.trim().to_owned())
}

fn print(
    verified: &Result<VerifiedResult, ResultError>,
    mode: Mode,
    json: bool,
) -> anyhow::Result<()> {
    if json {
        let outcome = Outcome {
            schema: 1,
            mode,
            accepted: verified.is_ok(),
            rejection: verified.as_ref().err(),
            result: verified.as_ref().ok(),
        };
        let text = serde_json::to_string_pretty(&outcome).context("cannot write the result")?;
        outln!("{text}");
        return Ok(());
    }
    let result = match verified {
        Ok(result) => result,
        Err(error) => {
            outln!("rejected    {error}");
            return Ok(());
        }
    };
    let shown = plain_text::plain;
    if let Some(issuer) = &result.issuer {
        outln!("issuer      {}", shown(issuer));
    }
    outln!(
        "verifier    {}, {}",
        shown(&result.developer),
        shown(&result.build)
    );
    outln!("policy      {}", shown(&result.policy_ids.join(", ")));
    if let Some(image) = &result.image {
        outln!("image       {}", shown(image));
    }
    outln!("freshness   {}", result.freshness.as_str());
    outln!(
        "issued at   {}",
        instant(result.issued_at.saturating_mul(1000))
    );
    outln!(
        "expires at  {}",
        instant(result.expires_at.saturating_mul(1000))
    );
    outln!("status      {}", result.status.as_str());
    outln!("{}    {}", good(mode), shown(&result.document.module_id));
    Ok(())
}
