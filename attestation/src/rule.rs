//! The rules that a document must keep, each with a stable identifier.

use std::fmt;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// At most [`MAX_DOCUMENT`](crate::MAX_DOCUMENT) bytes.
    DocumentSize,
    /// Strict CBOR: shortest forms, known types, nothing missing.
    Cbor,
    /// Nothing follows the COSE_Sign1.
    CborTrailing,
    /// A COSE_Sign1: tag 18 or none, an array of four.
    CoseStructure,
    /// The protected header is exactly `{1: -35}`: ES384.
    CoseProtectedHeader,
    /// The unprotected header is an empty map.
    CoseUnprotectedHeader,
    /// The payload is attached and has 1 to 16384 bytes.
    CosePayload,
    /// The signature has 96 bytes.
    CoseSignatureSize,
    /// The payload is a map of texts, with every key that all documents have, none of them
    /// twice, and at most 16 that are not known.
    PayloadKeys,
    /// `module_id` is 1 to 255 printable ASCII characters, and of a NitroTPM if
    /// and only if the registers are.
    PayloadModuleId,
    /// `digest` is `SHA384`.
    PayloadDigest,
    /// `timestamp` is a positive number of milliseconds.
    PayloadTimestamp,
    /// `pcrs`, or `nitrotpm_pcrs`, maps 1 to 32 ascending indices below 32 to 48 bytes each.
    PayloadPcrs,
    /// `certificate` has 1 to 1024 bytes.
    PayloadCertificate,
    /// `cabundle` has 1 to 8 certificates of 1 to 1024 bytes.
    PayloadCabundle,
    /// `public_key` is null or has at most 1024 bytes.
    PayloadPublicKey,
    /// `user_data` is null or has at most 1024 bytes.
    PayloadUserData,
    /// `nonce` is null or has at most 1024 bytes.
    PayloadNonce,
    /// Each certificate is an X.509 v3 certificate in strict DER, with the
    /// fields that AWS's have.
    CertificateEncoding,
    /// Each key is on P-384, and each signature is ECDSA with SHA-384.
    CertificateAlgorithm,
    /// Each key is a point on the curve, written in full.
    CertificatePublicKey,
    /// No critical extension is unknown, and none is there twice.
    CertificateExtensions,
    /// Each certificate is valid at the time of checking, as far as the clock may be wrong.
    CertificateValidity,
    /// Issuers are certificate authorities, the leaf is not.
    CertificateAuthority,
    /// Path length limits are kept, and only authorities set them.
    CertificatePathLength,
    /// Issuers may sign certificates, the leaf may sign data.
    CertificateKeyUsage,
    /// `cabundle[0]` is a pinned root.
    ChainRoot,
    /// Each certificate names the one above it as its issuer, and none but the
    /// root names itself.
    ChainNames,
    /// Each certificate is signed by the one above it.
    ChainSignature,
    /// The document is signed by the leaf's key.
    DocumentSignature,
    /// The clock is not behind the document's time by more than it may be wrong.
    FreshnessFuture,
    /// The document is not older than the policy allows.
    FreshnessAge,
    /// The document carries the nonce that was asked for.
    PolicyNonce,
    /// The enclave does not run in debug mode.
    PolicyDebug,
    /// The document is of the kind that the policy is for.
    PolicyProfile,
    /// The document has no key whose meaning is not known, if the policy is strict.
    PolicyStrictKeys,
    /// `module_id` has the policy's form.
    PolicyModuleId,
    /// PCR0, PCR1, PCR2 and PCR8 (of a NitroTPM, PCR4, PCR7 and PCR12) are those of one of the
    /// allowed images.
    PolicyImage,
    /// A register has one of the allowed values.
    PolicyPcr(u8),
    /// The document was made for what the policy wants.
    PolicyPurpose,
    /// `user_data` is what the policy wants.
    PolicyUserData,
    /// `public_key` is what the policy wants.
    PolicyPublicKey,
}

impl Rule {
    /// The rules of form, which [`Document::parse`](crate::Document::parse) checks.
    pub(crate) const FORM: [Self; 18] = [
        Self::DocumentSize,
        Self::Cbor,
        Self::CborTrailing,
        Self::CoseStructure,
        Self::CoseProtectedHeader,
        Self::CoseUnprotectedHeader,
        Self::CosePayload,
        Self::CoseSignatureSize,
        Self::PayloadKeys,
        Self::PayloadModuleId,
        Self::PayloadDigest,
        Self::PayloadTimestamp,
        Self::PayloadPcrs,
        Self::PayloadCertificate,
        Self::PayloadCabundle,
        Self::PayloadPublicKey,
        Self::PayloadUserData,
        Self::PayloadNonce,
    ];

    /// Whether it is a rule of form, which [`Document::parse`](crate::Document::parse)
    /// checks before anything is verified.
    pub fn is_of_form(self) -> bool {
        Self::FORM.contains(&self)
    }

    /// The rule's name before its index, if it has one.
    const fn name(self) -> &'static str {
        match self {
            Self::DocumentSize => "document.size",
            Self::Cbor => "cbor.encoding",
            Self::CborTrailing => "cbor.trailing",
            Self::CoseStructure => "cose.structure",
            Self::CoseProtectedHeader => "cose.protected-header",
            Self::CoseUnprotectedHeader => "cose.unprotected-header",
            Self::CosePayload => "cose.payload",
            Self::CoseSignatureSize => "cose.signature-size",
            Self::PayloadKeys => "payload.keys",
            Self::PayloadModuleId => "payload.module-id",
            Self::PayloadDigest => "payload.digest",
            Self::PayloadTimestamp => "payload.timestamp",
            Self::PayloadPcrs => "payload.pcrs",
            Self::PayloadCertificate => "payload.certificate",
            Self::PayloadCabundle => "payload.cabundle",
            Self::PayloadPublicKey => "payload.public-key",
            Self::PayloadUserData => "payload.user-data",
            Self::PayloadNonce => "payload.nonce",
            Self::CertificateEncoding => "certificate.encoding",
            Self::CertificateAlgorithm => "certificate.algorithm",
            Self::CertificatePublicKey => "certificate.public-key",
            Self::CertificateExtensions => "certificate.extensions",
            Self::CertificateValidity => "certificate.validity",
            Self::CertificateAuthority => "certificate.authority",
            Self::CertificatePathLength => "certificate.path-length",
            Self::CertificateKeyUsage => "certificate.key-usage",
            Self::ChainRoot => "chain.root",
            Self::ChainNames => "chain.names",
            Self::ChainSignature => "chain.signature",
            Self::DocumentSignature => "document.signature",
            Self::FreshnessFuture => "freshness.future",
            Self::FreshnessAge => "freshness.age",
            Self::PolicyNonce => "policy.nonce",
            Self::PolicyDebug => "policy.debug",
            Self::PolicyProfile => "policy.profile",
            Self::PolicyStrictKeys => "policy.strict-keys",
            Self::PolicyModuleId => "policy.module-id",
            Self::PolicyImage => "policy.image",
            Self::PolicyPcr(_) => "policy.pcr",
            Self::PolicyPurpose => "policy.purpose",
            Self::PolicyUserData => "policy.user-data",
            Self::PolicyPublicKey => "policy.public-key",
        }
    }

    /// What the rule demands, in a few words.
    pub const fn demand(self) -> &'static str {
        match self {
            Self::DocumentSize => "at most 16640 bytes",
            Self::Cbor => "strict CBOR",
            Self::CborTrailing => "nothing behind the document",
            Self::CoseStructure => "a COSE_Sign1",
            Self::CoseProtectedHeader => "the algorithm ES384 and nothing else",
            Self::CoseUnprotectedHeader => "empty",
            Self::CosePayload => "1 to 16384 bytes, attached",
            Self::CoseSignatureSize => "96 bytes",
            Self::PayloadKeys => "every key once",
            Self::PayloadModuleId => "1 to 255 printable ASCII characters",
            Self::PayloadDigest => "SHA384",
            Self::PayloadTimestamp => "a positive number of milliseconds",
            Self::PayloadPcrs => "1 to 32 registers of 48 bytes",
            Self::PayloadCertificate => "1 to 1024 bytes",
            Self::PayloadCabundle => "1 to 8 certificates of 1 to 1024 bytes",
            Self::PayloadPublicKey | Self::PayloadUserData | Self::PayloadNonce => {
                "none, or at most 1024 bytes"
            }
            Self::CertificateEncoding => "X.509 v3 in strict DER",
            Self::CertificateAlgorithm => "ECDSA on P-384 with SHA-384",
            Self::CertificatePublicKey => "points on the curve",
            Self::CertificateExtensions => "none unknown and critical, none twice",
            Self::CertificateValidity => "all valid at the time of checking",
            Self::CertificateAuthority => "issuers are authorities, the leaf is not",
            Self::CertificatePathLength => "limits on the path's length are kept",
            Self::CertificateKeyUsage => "issuers may certify, the leaf may sign",
            Self::ChainRoot => "begins with a pinned root",
            Self::ChainNames => "each is issued by the one above it",
            Self::ChainSignature => "each is signed by the one above it",
            Self::DocumentSignature => "signed by the leaf's key",
            Self::FreshnessFuture => "the clock is not behind",
            Self::FreshnessAge => "not too old",
            Self::PolicyNonce => "the nonce that was asked for",
            Self::PolicyDebug => "not in debug mode",
            Self::PolicyProfile => "the kind of document",
            Self::PolicyStrictKeys => "no unknown key",
            Self::PolicyModuleId => "the form of the id",
            Self::PolicyImage => "an allowed image",
            Self::PolicyPcr(_) => "an allowed value",
            Self::PolicyPurpose => "what the document was made for",
            Self::PolicyUserData => "the bound user data",
            Self::PolicyPublicKey => "the bound public key",
        }
    }
}

/// The rule's stable identifier, as in `chain.root` or `policy.pcr.0`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PolicyPcr(index) => f.pad(&format!("{}.{index}", self.name())),
            _ => f.pad(self.name()),
        }
    }
}

/// The rule's identifier.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A document was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[error("{rule}: {reason}")]
pub struct Rejection {
    /// The rule that it broke.
    pub rule: Rule,
    /// How.
    pub reason: String,
}

impl Rejection {
    pub(crate) fn new(rule: Rule, reason: impl Into<String>) -> Self {
        Self {
            rule,
            reason: reason.into(),
        }
    }
}
