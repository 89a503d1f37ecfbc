//! A document's bytes as types: strict, without copies.

use std::fmt;

use measurements::PCR_COUNT;
use serde::{Deserialize, Serialize};

use crate::cbor::Cursor;
use crate::purpose::Purpose;
use crate::rule::{Rejection, Rule};

/// Largest document: the NSM's response buffer has 12 KiB, and documents of
/// other tools up to a payload of 16 KiB; the rest is header and signature.
pub const MAX_DOCUMENT: usize = MAX_PAYLOAD + 256;
/// Largest payload (AWS, "Verifying the root of trust").
const MAX_PAYLOAD: usize = 16 * 1024;

/// Size of a SHA-384 register.
pub(crate) const PCR_BYTES: usize = 48;
/// Size of an ES384 signature: two numbers of 48 bytes.
const SIGNATURE_BYTES: usize = 96;
const COSE_SIGN1_TAG: u64 = 18;
/// `{1: -35}` in CBOR: the algorithm is ES384 (RFC 9053, section 2.1).
pub(crate) const PROTECTED_HEADER: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
pub(crate) const MAX_MODULE_ID: usize = 255;
const MAX_CERTIFICATE: usize = 1024;
/// Most certificates in a document's `cabundle`; AWS's have four.
const MAX_CABUNDLE: usize = 8;
/// Largest public key, user data and nonce in a document, in bytes: what AWS's CDDL has the
/// hypervisor sign ("Verifying the root of trust"). The module of an enclave takes user
/// data and nonces of 512 bytes at most.
pub const MAX_PUBLIC_KEY: usize = 1024;
/// As [`MAX_PUBLIC_KEY`].
pub const MAX_USER_DATA: usize = 1024;
/// As [`MAX_PUBLIC_KEY`].
pub const MAX_NONCE: usize = 1024;
/// Most keys in a document that are not known; AWS's have none.
const MAX_UNKNOWN_KEYS: usize = 16;

/// What made a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The Nitro security module of an enclave: registers in `pcrs`.
    Enclave,
    /// The NitroTPM of an EC2 instance: registers in `nitrotpm_pcrs`. They mean
    /// what a TPM's registers mean, which is not what an enclave's do.
    NitroTpm,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Enclave => "enclave",
            Self::NitroTpm => "nitro-tpm",
        })
    }
}

/// A document that keeps AWS's rules of form. Nothing in it is to be believed
/// before it is [`Accepted`](crate::Accepted).
#[derive(Debug, Clone)]
pub struct Document<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) profile: Profile,
    pub(crate) module_id: &'a str,
    pub(crate) timestamp_ms: u64,
    pub(crate) pcrs: [Option<&'a [u8; PCR_BYTES]>; PCR_COUNT],
    pub(crate) certificate: &'a [u8],
    /// Root first.
    pub(crate) cabundle: Cabundle<'a>,
    pub(crate) public_key: Option<&'a [u8]>,
    pub(crate) user_data: Option<&'a [u8]>,
    pub(crate) nonce: Option<&'a [u8]>,
    /// Keys whose meaning this verifier does not know, in order.
    unknown_keys: Vec<&'a str>,
}

/// The certificates between leaf and root, root first, without an allocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cabundle<'a> {
    certificates: [&'a [u8]; MAX_CABUNDLE],
    count: usize,
}

impl<'a> Cabundle<'a> {
    pub(crate) fn as_slice(&self) -> &[&'a [u8]] {
        self.certificates.get(..self.count).unwrap_or_default()
    }
}

impl<'a> Document<'a> {
    /// Reads a document: a COSE_Sign1, tagged or not, and nothing behind it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejection> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(Rejection::new(
                Rule::DocumentSize,
                format!("{} bytes, at most {MAX_DOCUMENT} are allowed", bytes.len()),
            ));
        }
        let mut cursor = Cursor::new(bytes);
        cursor.skip_tag(COSE_SIGN1_TAG)?;
        let parts = cursor.array()?;
        if parts != 4 {
            return Err(Rejection::new(
                Rule::CoseStructure,
                format!("an array of {parts} instead of 4"),
            ));
        }
        let protected = cursor.bytes()?;
        if protected != PROTECTED_HEADER {
            return Err(Rejection::new(
                Rule::CoseProtectedHeader,
                format!(
                    "{} instead of {}",
                    short(&hex::encode(protected)),
                    hex::encode(PROTECTED_HEADER)
                ),
            ));
        }
        // The signature does not cover it: only one form may pass.
        if cursor.definite_map()? != 0 {
            return Err(Rejection::new(
                Rule::CoseUnprotectedHeader,
                "it is not empty",
            ));
        }
        if cursor.skip_null() {
            return Err(Rejection::new(Rule::CosePayload, "the payload is detached"));
        }
        let payload = bounded(cursor.bytes()?, 1..=MAX_PAYLOAD, Rule::CosePayload)?;
        let signature = bounded(
            cursor.bytes()?,
            SIGNATURE_BYTES..=SIGNATURE_BYTES,
            Rule::CoseSignatureSize,
        )?;
        if cursor.left() != 0 {
            return Err(Rejection::new(
                Rule::CborTrailing,
                format!("{} bytes follow the document", cursor.left()),
            ));
        }
        parse_payload(payload, signature)
    }

    /// What the document claims to be of.
    pub const fn unverified_profile(&self) -> Profile {
        self.profile
    }

    /// The enclave's identity as the document claims it: printable ASCII.
    pub fn unverified_module_id(&self) -> &'a str {
        self.module_id
    }

    /// The document's time as it claims it, in milliseconds since 1970.
    pub fn unverified_timestamp_ms(&self) -> u64 {
        self.timestamp_ms
    }

    /// A register as the document claims it.
    pub fn unverified_pcr(&self, index: usize) -> Option<&'a [u8; PCR_BYTES]> {
        self.pcrs.get(index).copied().flatten()
    }

    /// The nonce as the document claims it.
    pub fn unverified_nonce(&self) -> Option<&'a [u8]> {
        self.nonce
    }

    /// What an enclave's document claims to have been made for.
    pub fn unverified_purpose(&self) -> Option<Purpose> {
        (self.profile == Profile::Enclave).then(|| Purpose::of(self.user_data))
    }

    /// The user data as the document claims it.
    pub fn unverified_user_data(&self) -> Option<&'a [u8]> {
        self.user_data
    }

    /// The public key as the document claims it.
    pub fn unverified_public_key(&self) -> Option<&'a [u8]> {
        self.public_key
    }

    /// Keys of the document whose meaning is not known here, printable and at most 64
    /// characters of each.
    pub fn unverified_unknown_keys(&self) -> impl Iterator<Item = String> {
        self.unknown_keys
            .iter()
            .map(|key| plain_text::plain(short(key)))
    }

    /// The certificates as the document claims them, DER, root first, leaf last.
    pub fn unverified_certificates(&self) -> impl Iterator<Item = &'a [u8]> {
        let cabundle = self.cabundle.clone();
        let leaf = self.certificate;
        (0..cabundle.count)
            .filter_map(move |index| cabundle.as_slice().get(index).copied())
            .chain(std::iter::once(leaf))
    }
}

/// The payload's keys; the order is that of [`KEYS`].
const KEYS: [&str; 10] = [
    "module_id",
    "digest",
    "timestamp",
    "certificate",
    "cabundle",
    "pcrs",
    "nitrotpm_pcrs",
    "public_key",
    "user_data",
    "nonce",
];

/// How many of [`KEYS`], from the first, every document has.
const REQUIRED_KEYS: usize = 5;

fn parse_payload<'a>(payload: &'a [u8], signature: &'a [u8]) -> Result<Document<'a>, Rejection> {
    let mut document = Document {
        payload,
        signature,
        profile: Profile::Enclave,
        module_id: "",
        timestamp_ms: 0,
        pcrs: [None; PCR_COUNT],
        certificate: &[],
        cabundle: Cabundle::default(),
        public_key: None,
        user_data: None,
        nonce: None,
        unknown_keys: Vec::new(),
    };
    let mut seen = [false; KEYS.len()];
    let mut cursor = Cursor::new(payload);
    let mut entries = cursor.map()?;
    while cursor.next_entry(&mut entries) {
        let key = cursor.text()?;
        let Some(index) = KEYS.iter().position(|known| *known == key) else {
            keep_unknown(&mut document.unknown_keys, key)?;
            cursor.skip_item()?;
            continue;
        };
        if let Some(seen) = seen.get_mut(index)
            && std::mem::replace(seen, true)
        {
            return Err(Rejection::new(
                Rule::PayloadKeys,
                format!("key {key:?} is there twice"),
            ));
        }
        match key {
            "module_id" => document.module_id = cursor.text()?,
            "digest" => parse_digest(&mut cursor)?,
            "timestamp" => document.timestamp_ms = parse_timestamp(&mut cursor)?,
            "pcrs" | "nitrotpm_pcrs" => document.pcrs = parse_pcrs(&mut cursor)?,
            "certificate" => {
                document.certificate = bounded(
                    cursor.bytes()?,
                    1..=MAX_CERTIFICATE,
                    Rule::PayloadCertificate,
                )?;
            }
            "cabundle" => document.cabundle = parse_cabundle(&mut cursor)?,
            "public_key" => {
                document.public_key =
                    optional(&mut cursor, MAX_PUBLIC_KEY, Rule::PayloadPublicKey)?;
            }
            "user_data" => {
                document.user_data = optional(&mut cursor, MAX_USER_DATA, Rule::PayloadUserData)?;
            }
            _ => document.nonce = optional(&mut cursor, MAX_NONCE, Rule::PayloadNonce)?,
        }
    }
    if cursor.left() != 0 {
        return Err(Rejection::new(
            Rule::CborTrailing,
            format!("{} bytes follow the payload's map", cursor.left()),
        ));
    }
    for (key, seen) in KEYS.iter().zip(seen).take(REQUIRED_KEYS) {
        if !seen {
            return Err(Rejection::new(
                Rule::PayloadKeys,
                format!("key {key:?} is missing"),
            ));
        }
    }
    let [.., pcrs, nitrotpm_pcrs, _, _, _] = seen;
    document.profile = match (pcrs, nitrotpm_pcrs) {
        (true, false) => Profile::Enclave,
        (false, true) => Profile::NitroTpm,
        _ => {
            return Err(Rejection::new(
                Rule::PayloadKeys,
                "not exactly one of \"pcrs\" and \"nitrotpm_pcrs\" is there",
            ));
        }
    };
    check_module_id(document.module_id, document.profile)?;
    Ok(document)
}

/// AWS adds keys to documents: one that is not known makes none a worse document.
fn keep_unknown<'a>(unknown: &mut Vec<&'a str>, key: &'a str) -> Result<(), Rejection> {
    if unknown.contains(&key) {
        return Err(Rejection::new(
            Rule::PayloadKeys,
            format!("key {:?} is there twice", short(key)),
        ));
    }
    if unknown.len() == MAX_UNKNOWN_KEYS {
        return Err(Rejection::new(
            Rule::PayloadKeys,
            format!("more than {MAX_UNKNOWN_KEYS} keys are not known"),
        ));
    }
    unknown.push(key);
    Ok(())
}

/// Whether an id, or the pattern of one, is that of an instance with a NitroTPM.
pub(crate) fn is_tpm_id(id: &str) -> bool {
    id.starts_with("i-") && id.contains("-tpm")
}

/// An id is shown to people, so it holds nothing that a terminal obeys.
fn check_module_id(id: &str, profile: Profile) -> Result<(), Rejection> {
    bounded(id.as_bytes(), 1..=MAX_MODULE_ID, Rule::PayloadModuleId)?;
    if !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Rejection::new(
            Rule::PayloadModuleId,
            "it holds what is not printable ASCII",
        ));
    }
    if is_tpm_id(id) != (profile == Profile::NitroTpm) {
        return Err(Rejection::new(
            Rule::PayloadModuleId,
            format!("{:?} is not an id of the profile {profile}", short(id)),
        ));
    }
    Ok(())
}

fn parse_digest(cursor: &mut Cursor<'_>) -> Result<(), Rejection> {
    match cursor.text()? {
        "SHA384" => Ok(()),
        other => Err(Rejection::new(
            Rule::PayloadDigest,
            format!("{:?} instead of SHA384", short(other)),
        )),
    }
}

fn parse_timestamp(cursor: &mut Cursor<'_>) -> Result<u64, Rejection> {
    let timestamp = cursor.unsigned()?;
    // Signed arithmetic on seconds follows; no clock will get near this.
    if timestamp == 0 || i64::try_from(timestamp).is_err() {
        return Err(Rejection::new(
            Rule::PayloadTimestamp,
            format!("{timestamp} ms"),
        ));
    }
    Ok(timestamp)
}

fn parse_pcrs<'a>(
    cursor: &mut Cursor<'a>,
) -> Result<[Option<&'a [u8; PCR_BYTES]>; PCR_COUNT], Rejection> {
    let mut pcrs = [None; PCR_COUNT];
    let mut entries = cursor.map()?;
    let mut last = None;
    while cursor.next_entry(&mut entries) {
        let index = cursor.unsigned()?;
        if last.is_some_and(|last| index <= last) {
            return Err(Rejection::new(
                Rule::PayloadPcrs,
                format!("index {index} is there twice or out of order"),
            ));
        }
        last = Some(index);
        let value = cursor.bytes()?;
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| pcrs.get_mut(index));
        let slot = slot.ok_or_else(|| {
            Rejection::new(
                Rule::PayloadPcrs,
                format!("index {index} is not below {PCR_COUNT}"),
            )
        })?;
        *slot = Some(value.try_into().map_err(|_| {
            Rejection::new(
                Rule::PayloadPcrs,
                format!(
                    "PCR{index} has {} bytes instead of {PCR_BYTES}",
                    value.len()
                ),
            )
        })?);
    }
    if last.is_none() {
        return Err(Rejection::new(Rule::PayloadPcrs, "there is none"));
    }
    Ok(pcrs)
}

fn parse_cabundle<'a>(cursor: &mut Cursor<'a>) -> Result<Cabundle<'a>, Rejection> {
    let count = cursor.array()?;
    let count = usize::try_from(count)
        .ok()
        .filter(|count| (1..=MAX_CABUNDLE).contains(count))
        .ok_or_else(|| {
            Rejection::new(
                Rule::PayloadCabundle,
                format!("{count} certificates; 1 to {MAX_CABUNDLE} are allowed"),
            )
        })?;
    let mut cabundle = Cabundle {
        count,
        ..Cabundle::default()
    };
    for slot in cabundle.certificates.iter_mut().take(count) {
        *slot = bounded(cursor.bytes()?, 1..=MAX_CERTIFICATE, Rule::PayloadCabundle)?;
    }
    Ok(cabundle)
}

/// A byte string that may be `null`, as real documents write an absent one.
fn optional<'a>(
    cursor: &mut Cursor<'a>,
    limit: usize,
    rule: Rule,
) -> Result<Option<&'a [u8]>, Rejection> {
    if cursor.skip_null() {
        return Ok(None);
    }
    bounded(cursor.bytes()?, 0..=limit, rule).map(Some)
}

fn bounded(
    bytes: &[u8],
    range: std::ops::RangeInclusive<usize>,
    rule: Rule,
) -> Result<&[u8], Rejection> {
    if range.contains(&bytes.len()) {
        return Ok(bytes);
    }
    Err(Rejection::new(
        rule,
        format!(
            "{} bytes; {} to {} are allowed",
            bytes.len(),
            range.start(),
            range.end()
        ),
    ))
}

/// The beginning of a stranger's text, for a message of one line.
fn short(text: &str) -> &str {
    const MAX_SHOWN: usize = 64;
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}
