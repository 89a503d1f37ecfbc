//! The rules that a document must keep, each with a stable identifier.

use std::fmt;

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
    /// The payload is a map with the known keys, each at most once.
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
    /// `public_key` is null or has 1 to 1024 bytes.
    PayloadPublicKey,
    /// `user_data` is null or has at most 512 bytes.
    PayloadUserData,
    /// `nonce` is null or has at most 512 bytes.
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
    /// Each certificate is valid at the time of checking.
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
    /// The document's time is not ahead of the time of checking.
    FreshnessFuture,
    /// The document is not older than the policy allows.
    FreshnessAge,
    /// The document carries the nonce that was asked for.
    PolicyNonce,
    /// The enclave does not run in debug mode.
    PolicyDebug,
    /// A register has one of the allowed values.
    PolicyPcr(u8),
    /// `user_data` is what the policy wants.
    PolicyUserData,
    /// `public_key` is what the policy wants.
    PolicyPublicKey,
}

impl Rule {
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
            Self::PolicyPcr(_) => "policy.pcr",
            Self::PolicyUserData => "policy.user-data",
            Self::PolicyPublicKey => "policy.public-key",
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

/// A document was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
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
