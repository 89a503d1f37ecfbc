//! `attest inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use attestation::{Document, PCR_COUNT, Profile, Purpose};
use aws_lc_rs::digest::{SHA256, digest};
use clap::Args;
use command_output::outln;
use measurements::Pcr;
use serde::Serialize;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::failure::{Failure, unreadable, usage};
use crate::input::read_document;
use crate::text::{distance_from_now, instant, is_past, length};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The document: binary, hex, base64, PEM or JSON; `-` is standard input.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Everything in a document. Nobody has verified it.
#[derive(Serialize)]
struct Contents {
    schema: u32,
    bytes: usize,
    sha256: String,
    profile: Profile,
    purpose: Option<Purpose>,
    module_id: String,
    timestamp_ms: u64,
    time: String,
    pcrs: BTreeMap<usize, String>,
    nonce: Option<String>,
    user_data: Option<String>,
    public_key: Option<String>,
    /// Keys whose meaning is not known.
    unknown_keys: Vec<String>,
    /// Root first, leaf last.
    certificates: Vec<Certificate>,
}

#[derive(Serialize)]
struct Certificate {
    bytes: usize,
    sha256: String,
    /// None where it cannot be read.
    fields: Option<Fields>,
}

#[derive(Serialize)]
struct Fields {
    subject: String,
    issuer: String,
    serial: String,
    not_before_ms: u64,
    not_before: String,
    not_after_ms: u64,
    not_after: String,
    authority: bool,
    path_length: Option<u32>,
    key_usage: Option<String>,
    signature_algorithm: String,
    key_algorithm: String,
    key_bits: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let file = &arguments.file;
    let bytes = read_document(file).map_err(unreadable)?;
    let document = Document::parse(&bytes).map_err(|rejection| {
        unreadable(anyhow!("{} is not a document: {rejection}", file.display()))
    })?;
    let contents = contents(&bytes, &document);
    if arguments.json {
        let json = serde_json::to_string_pretty(&contents)
            .context("cannot write the contents")
            .map_err(usage)?;
        outln!("{json}");
    } else {
        print(&contents, &document);
    }
    Ok(ExitCode::SUCCESS)
}

fn contents(bytes: &[u8], document: &Document<'_>) -> Contents {
    let timestamp_ms = document.unverified_timestamp_ms();
    Contents {
        schema: 1,
        bytes: bytes.len(),
        sha256: sha256(bytes),
        profile: document.unverified_profile(),
        purpose: document.unverified_purpose(),
        module_id: document.unverified_module_id().to_owned(),
        timestamp_ms,
        time: instant(timestamp_ms),
        pcrs: (0..PCR_COUNT)
            .filter_map(|index| {
                let value = document.unverified_pcr(index)?;
                Some((index, hex::encode(value)))
            })
            .collect(),
        nonce: document.unverified_nonce().map(hex::encode),
        user_data: document.unverified_user_data().map(hex::encode),
        public_key: document.unverified_public_key().map(hex::encode),
        unknown_keys: document.unverified_unknown_keys().collect(),
        certificates: document
            .unverified_certificates()
            .map(|der| Certificate {
                bytes: der.len(),
                sha256: sha256(der),
                fields: X509Certificate::from_der(der)
                    .ok()
                    .map(|(_, certificate)| fields(&certificate)),
            })
            .collect(),
    }
}

/// Names are whatever a stranger wrote, so they are escaped.
fn fields(certificate: &X509Certificate<'_>) -> Fields {
    let milliseconds = |time: ASN1Time| {
        u64::try_from(time.timestamp())
            .unwrap_or(0)
            .saturating_mul(1000)
    };
    let validity = certificate.validity();
    let (not_before_ms, not_after_ms) = (
        milliseconds(validity.not_before),
        milliseconds(validity.not_after),
    );
    let constraints = certificate.basic_constraints().ok().flatten();
    let key = certificate.public_key();
    let signature = &certificate.signature_algorithm.algorithm;
    Fields {
        subject: plain_text::plain(&certificate.subject().to_string()),
        issuer: plain_text::plain(&certificate.issuer().to_string()),
        serial: certificate.raw_serial_as_string(),
        not_before_ms,
        not_before: instant(not_before_ms),
        not_after_ms,
        not_after: instant(not_after_ms),
        authority: constraints
            .as_ref()
            .is_some_and(|constraints| constraints.value.ca),
        path_length: constraints.and_then(|constraints| constraints.value.path_len_constraint),
        key_usage: certificate
            .key_usage()
            .ok()
            .flatten()
            .map(|usage| usage.value.to_string()),
        signature_algorithm: algorithm(signature.to_id_string()),
        key_algorithm: algorithm(key.algorithm.algorithm.to_id_string()),
        key_bits: key.parsed().ok().map(|key| key.key_size()),
    }
}

/// An algorithm's name, if it is one that certificates are expected to have.
fn algorithm(identifier: String) -> String {
    match identifier.as_str() {
        "1.2.840.10045.4.3.3" => "ECDSA with SHA-384".to_owned(),
        "1.2.840.10045.4.3.2" => "ECDSA with SHA-256".to_owned(),
        "1.2.840.10045.2.1" => "elliptic curve".to_owned(),
        "1.2.840.113549.1.1.1" => "RSA".to_owned(),
        _ => identifier,
    }
}

fn print(contents: &Contents, document: &Document<'_>) {
    outln!("Not verified: anybody can make these claims.\n");
    outln!(
        "document     {} bytes, SHA-256 {}",
        contents.bytes,
        contents.sha256
    );
    outln!("profile      {}", contents.profile);
    if let Some(purpose) = contents.purpose {
        outln!("purpose      {purpose}");
    }
    outln!("module id    {}", contents.module_id);
    outln!(
        "time         {} ({})",
        contents.time,
        distance_from_now(contents.timestamp_ms)
    );
    outln!();
    let zero = Pcr::ZERO.to_string();
    let mut zeros = Vec::new();
    for (index, value) in &contents.pcrs {
        if *value == zero {
            zeros.push(index.to_string());
        } else {
            outln!("{:<12} {value}", format!("PCR{index}"));
        }
    }
    if !zeros.is_empty() {
        outln!("{:<12} PCR {}", "zero", zeros.join(" "));
    }
    outln!();
    for (name, value) in [
        ("nonce", document.unverified_nonce()),
        ("user data", document.unverified_user_data()),
        ("public key", document.unverified_public_key()),
    ] {
        match value {
            None => outln!("{name:<12} none"),
            Some([]) => outln!("{name:<12} empty"),
            Some(bytes) => outln!("{name:<12} {} ({} bytes)", hex::encode(bytes), bytes.len()),
        }
        if let Some(text) = value.and_then(readable) {
            outln!("{:<12} \"{text}\"", "");
        }
    }
    if !contents.unknown_keys.is_empty() {
        outln!("unknown keys {}", contents.unknown_keys.join(", "));
    }
    for (index, certificate) in contents.certificates.iter().enumerate() {
        let role = match index {
            0 => "root",
            _ if index + 1 == contents.certificates.len() => "leaf",
            _ => "issuer",
        };
        outln!("\ncertificate {index}, {role}: {} bytes", certificate.bytes);
        match &certificate.fields {
            Some(fields) => print_fields(fields),
            None => outln!("  it cannot be read as X.509"),
        }
        outln!("  SHA-256    {}", certificate.sha256);
    }
}

fn print_fields(fields: &Fields) {
    outln!("  subject    {}", fields.subject);
    outln!("  issuer     {}", fields.issuer);
    outln!("  serial     {}", fields.serial);
    outln!(
        "  valid      {} to {} ({}, {} {})",
        fields.not_before,
        fields.not_after,
        length(fields.not_after_ms.saturating_sub(fields.not_before_ms)),
        if is_past(fields.not_after_ms) {
            "ended"
        } else {
            "ends"
        },
        distance_from_now(fields.not_after_ms)
    );
    let authority = match (fields.authority, fields.path_length) {
        (false, _) => "no".to_owned(),
        (true, None) => "yes, without a limit below it".to_owned(),
        (true, Some(limit)) => format!("yes, {limit} below it at most"),
    };
    outln!("  authority  {authority}");
    outln!(
        "  key        {}{}; for {}",
        fields.key_algorithm,
        fields
            .key_bits
            .map(|bits| format!(", {bits} bits"))
            .unwrap_or_default(),
        fields
            .key_usage
            .as_deref()
            .unwrap_or("nothing in particular")
    );
    outln!("  signature  {}", fields.signature_algorithm);
}

/// Bytes that are a text of printable ASCII.
fn readable(bytes: &[u8]) -> Option<&str> {
    let printable = |byte: &u8| *byte == b' ' || byte.is_ascii_graphic();
    (!bytes.is_empty() && bytes.iter().all(printable))
        .then(|| std::str::from_utf8(bytes).ok())
        .flatten()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}
