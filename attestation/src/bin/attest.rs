//! `attest`: look into an attestation document, verify it, or stand in for the NSM.
//!
//! Exit codes: 0 accepted, 1 rejected, 2 usage or policy error, 3 unreadable input.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output"
)]

use std::fmt::Write as _;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use attestation::software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
use attestation::{
    Document, MAX_DOCUMENT, Outcome, PCR_COUNT, Policy, Report, Roots, Time, verify,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Parser, Subcommand};
use eif::{Measurements, Pcr};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Largest file that is read: a document as hexadecimal digits with line ends.
const MAX_INPUT: u64 = 4 * MAX_DOCUMENT as u64;

/// Look into attestation documents of AWS Nitro Enclaves, and verify them.
///
/// Exit codes: 0 accepted, 1 rejected, 2 usage or policy error, 3 unreadable input.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything in a document. Nothing is verified.
    Inspect {
        /// The document: binary, hex, base64 or PEM; `-` is standard input.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Verify a document against a pinned root and a policy.
    Verify(VerifyArgs),
    /// Serve the software NSM on a Unix socket, for tests.
    Simulate(SimulateArgs),
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The document: binary, hex, base64 or PEM; `-` is standard input.
    file: PathBuf,
    /// The image's measurements as image-builder or nitro-cli wrote them; may be repeated.
    #[arg(long, value_name = "FILE")]
    measurements: Vec<PathBuf>,
    /// A register's value, as in `0=HEX`; may be repeated.
    #[arg(long, value_name = "N=HEX", value_parser = parse_pcr)]
    pcr: Vec<(u8, Pcr)>,
    /// The nonce that the document must carry.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    nonce: Option<Hex>,
    /// Trust the certificates in this PEM file instead of AWS's root.
    #[arg(long, value_name = "PEM")]
    root: Option<PathBuf>,
    /// Check at this time: `now`, `document` or an RFC 3339 instant.
    #[arg(long, default_value = "now", value_parser = parse_time)]
    time: Time,
    /// How old the document may be, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    max_age: u64,
    /// Accept an enclave in debug mode, whose memory its parent can read.
    #[arg(long)]
    allow_debug: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// The socket to create.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Write the root certificate, PEM, to this file.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The image's measurements; without them the enclave is in debug mode.
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
}

/// Bytes given in hex.
#[derive(Debug, Clone)]
struct Hex(Vec<u8>);

/// A failure and the exit code that belongs to it.
struct Failure {
    code: u8,
    error: anyhow::Error,
}

const REJECTED: u8 = 1;
const USAGE: u8 = 2;
const UNREADABLE: u8 = 3;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Inspect { file, json } => inspect(&file, json),
        Command::Verify(args) => verify_file(&args),
        Command::Simulate(args) => simulate(&args),
    };
    match result {
        Ok(code) => code,
        Err(Failure { code, error }) => {
            eprintln!("attest: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn usage(error: anyhow::Error) -> Failure {
    Failure { code: USAGE, error }
}

fn unreadable(error: anyhow::Error) -> Failure {
    Failure {
        code: UNREADABLE,
        error,
    }
}

fn inspect(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let bytes = read_document(file).map_err(unreadable)?;
    let document = Document::parse(&bytes).map_err(|rejection| {
        unreadable(anyhow!("{} is not a document: {rejection}", file.display()))
    })?;
    let optional = |bytes: Option<&[u8]>| bytes.map(hex::encode);
    let pcrs = (0..PCR_COUNT)
        .filter_map(|index| {
            document
                .unverified_pcr(index)
                .map(|pcr| (index, hex::encode(pcr)))
        })
        .collect::<Vec<_>>();
    let certificates = document
        .unverified_certificates()
        .map(|der| {
            let (_, certificate) =
                X509Certificate::from_der(der).context("a certificate in the document")?;
            let validity = certificate.validity();
            Ok(json!({
                "subject": certificate.subject().to_string(),
                "not_before": rfc3339(validity.not_before.to_datetime()),
                "not_after": rfc3339(validity.not_after.to_datetime()),
                "sha256": hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der)),
            }))
        })
        .collect::<anyhow::Result<Vec<_>>>()
        .map_err(unreadable)?;
    let time = from_milliseconds(document.unverified_timestamp_ms());
    let description = json!({
        "module_id": document.unverified_module_id(),
        "timestamp_ms": document.unverified_timestamp_ms(),
        "time": time,
        "pcrs": pcrs.iter().map(|(index, pcr)| (index.to_string(), pcr.clone().into())).collect::<serde_json::Map<_, _>>(),
        "nonce": optional(document.unverified_nonce()),
        "user_data": optional(document.unverified_user_data()),
        "public_key": optional(document.unverified_public_key()),
        "certificates": certificates,
    });
    if json {
        println!("{description:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("Not verified: anybody can make these claims.\n");
    println!("module id    {}", document.unverified_module_id());
    println!("time         {time}");
    let zero = hex::encode(Pcr::ZERO.as_bytes());
    for (index, pcr) in pcrs.iter().filter(|(_, pcr)| *pcr != zero) {
        println!("{:<12} {pcr}", format!("PCR{index}"));
    }
    for (name, value) in [
        ("nonce", document.unverified_nonce()),
        ("user data", document.unverified_user_data()),
        ("public key", document.unverified_public_key()),
    ] {
        println!(
            "{name:<12} {}",
            value.map_or_else(|| "none".to_owned(), hex::encode)
        );
    }
    println!("certificates, root first");
    for certificate in &certificates {
        let text = |key: &str| {
            certificate
                .get(key)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
        };
        println!(
            "  {} to {}  {}",
            text("not_before"),
            text("not_after"),
            text("subject")
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn verify_file(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let mut policy = Policy::builder().max_age(Duration::from_secs(args.max_age));
    for file in &args.measurements {
        policy = policy.measurements(read_measurements(file).map_err(usage)?);
    }
    for (index, value) in &args.pcr {
        policy = policy.pcr(*index, *value);
    }
    if let Some(Hex(nonce)) = &args.nonce {
        policy = policy.nonce(nonce.clone());
    }
    if args.allow_debug {
        policy = policy.allow_debug();
    }
    let policy = policy.build().map_err(|error| usage(error.into()))?;
    let roots = match &args.root {
        None => Roots::aws(),
        Some(file) => std::fs::read(file)
            .map_err(anyhow::Error::from)
            .and_then(|pem| Ok(Roots::from_pem(&pem)?))
            .with_context(|| file.display().to_string())
            .map_err(usage)?,
    };
    let bytes = read_document(&args.file).map_err(unreadable)?;
    let verification = verify(&bytes, &roots, &policy, args.time);
    let verdict = match &verification.outcome {
        Ok(_) => json!({ "accepted": true }),
        Err(rejection) => json!({
            "accepted": false,
            "rule": rejection.rule.to_string(),
            "reason": rejection.reason,
        }),
    };
    if args.json {
        println!(
            "{:#}",
            json!({ "verdict": verdict, "report": verification.report })
        );
    } else {
        print!(
            "{}",
            table(&verification.report, std::io::stdout().is_terminal())
        );
        match &verification.outcome {
            Ok(accepted) => println!("accepted: {}", accepted.module_id()),
            Err(rejection) => println!("rejected: {rejection}"),
        }
    }
    Ok(match verification.outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(REJECTED),
    })
}

fn simulate(args: &SimulateArgs) -> Result<ExitCode, Failure> {
    let measurements = args
        .measurements
        .as_deref()
        .map(read_measurements)
        .transpose()
        .map_err(usage)?;
    let run = || -> anyhow::Result<()> {
        let root = TestRoot::generate()?;
        std::fs::write(&args.root, root.certificate_pem())
            .with_context(|| format!("cannot write {}", args.root.display()))?;
        let identity = Identity {
            instance_id: "i-00000000000000000".to_owned(),
            enclave_id: "enc0000000000000000".to_owned(),
            measurements,
        };
        let module = SoftwareNsm::new(identity, root)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(&args.socket)
                .with_context(|| format!("cannot listen on {}", args.socket.display()))?;
            eprintln!(
                "attest: software NSM on {}; Ctrl-C ends it",
                args.socket.display()
            );
            let result = tokio::select! {
                result = serve(listener, module) => result,
                result = tokio::signal::ctrl_c() => result,
            };
            std::fs::remove_file(&args.socket)?;
            Ok(result?)
        })
    };
    run().map(|()| ExitCode::SUCCESS).map_err(usage)
}

fn read_document(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read =
        |reader: &mut dyn Read, bytes: &mut Vec<u8>| reader.take(MAX_INPUT + 1).read_to_end(bytes);
    if file == Path::new("-") {
        read(&mut std::io::stdin(), &mut bytes).context("cannot read standard input")?;
    } else {
        std::fs::File::open(file)
            .and_then(|mut file| read(&mut file, &mut bytes))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    if bytes.len() as u64 > MAX_INPUT {
        return Err(anyhow!(
            "{} has more than {MAX_INPUT} bytes: is this a document?",
            file.display()
        ));
    }
    Ok(decode_text(&bytes).unwrap_or(bytes))
}

/// The bytes of a document written as hex, base64 or PEM. A binary document is
/// never text: its first byte is not ASCII.
fn decode_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(|line| line.chars().filter(|character| !character.is_whitespace()))
        .collect();
    hex::decode(&body)
        .ok()
        .or_else(|| STANDARD.decode(&body).ok())
}

fn read_measurements(file: &Path) -> anyhow::Result<Measurements> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not a measurements file of image-builder or nitro-cli",
            file.display()
        )
    })
}

fn table(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = match (check.outcome, colour) {
            (Outcome::Passed, true) => "\x1b[32m✓\x1b[0m",
            (Outcome::Failed, true) => "\x1b[31m✗\x1b[0m",
            (Outcome::Passed, false) => "ok  ",
            (Outcome::Failed, false) => "FAIL",
        };
        let value = match (&check.expected, &check.actual) {
            (Some(expected), Some(actual)) if check.outcome == Outcome::Failed => {
                format!("expected {expected}, found {actual}")
            }
            (_, Some(actual)) => actual.clone(),
            _ => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{mark} {:<26} {value}", check.rule.to_string());
    }
    text
}

fn parse_pcr(text: &str) -> Result<(u8, Pcr), String> {
    let (index, value) = text.split_once('=').ok_or("write N=HEX, as in 0=1a2b…")?;
    let index = index
        .parse()
        .map_err(|_| format!("`{index}` is not a register's number"))?;
    Ok((
        index,
        value
            .parse()
            .map_err(|error: eif::PcrError| error.to_string())?,
    ))
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

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

fn from_milliseconds(milliseconds: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .map_or_else(|_| format!("{milliseconds} ms"), rfc3339)
}
