//! From a document's leaf certificate to a pinned root (RFC 5280, section 6,
//! narrowed to what AWS issues).

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use thiserror::Error;
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA384,
};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Version};

use crate::document::Document;
use crate::rule::{Rejection, Rule};

/// Most certificates in a document's `cabundle`; AWS's have four.
pub const MAX_CABUNDLE: usize = 8;

/// AWS's root for the commercial regions. SHA-256 of its DER:
/// `641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b`.
const AWS_ROOT: &[u8] = include_bytes!("aws-nitro-root.pem");

/// The root certificates that a verifier trusts.
#[derive(Debug, Clone)]
pub struct Roots {
    der: Vec<Vec<u8>>,
}

/// Why a root cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootsError {
    /// Not PEM, or not a certificate.
    #[error("the root certificate cannot be read ({0}): give a PEM file with a certificate")]
    Malformed(String),
}

impl Roots {
    /// AWS's root for the commercial regions.
    pub fn aws() -> Self {
        Self::from_pem(AWS_ROOT).unwrap_or(Self { der: Vec::new() })
    }

    /// The certificates of a PEM file, and no other root.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut der = Vec::new();
        for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| RootsError::Malformed(error.to_string()))?;
            X509Certificate::from_der(&block.contents)
                .map_err(|error| RootsError::Malformed(error.to_string()))?;
            der.push(block.contents);
        }
        if der.is_empty() {
            return Err(RootsError::Malformed("it holds no PEM block".to_owned()));
        }
        Ok(Self { der })
    }

    fn contains(&self, der: &[u8]) -> bool {
        self.der.iter().any(|root| root == der)
    }
}

/// What a certificate of the chain is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// An authority with this many authorities below it.
    Authority(u32),
    Leaf,
}

/// The public key of a leaf whose chain has been checked.
pub(crate) struct LeafKey(Vec<u8>);

impl LeafKey {
    /// Whether the key made the document's signature.
    pub(crate) fn verify(&self, document: &Document<'_>) -> bool {
        UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED, &self.0)
            .verify(&document.sig_structure(), document.signature)
            .is_ok()
    }
}

/// Checks every certificate and every link, root first. `passed` is told each
/// rule once it holds for the whole chain.
pub(crate) fn verify(
    document: &Document<'_>,
    roots: &Roots,
    time_seconds: i64,
    passed: &mut dyn FnMut(Rule),
) -> Result<LeafKey, Rejection> {
    let cabundle = document.cabundle.as_slice();
    let root = cabundle.first().copied().unwrap_or_default();
    if !roots.contains(root) {
        return Err(Rejection::new(
            Rule::ChainRoot,
            "the first certificate of the document's bundle is not a pinned root",
        ));
    }
    passed(Rule::ChainRoot);

    let ders: Vec<&[u8]> = document.unverified_certificates().collect();
    let mut certificates = Vec::with_capacity(ders.len());
    for (index, der) in ders.iter().enumerate() {
        certificates.push(parse(index, der)?);
    }
    passed(Rule::CertificateEncoding);

    let authorities_below = |index: usize| {
        // Authorities are all but the leaf; the leaf itself does not count.
        u32::try_from(certificates.len().saturating_sub(index + 2)).unwrap_or(u32::MAX)
    };
    let leaf_index = certificates.len().saturating_sub(1);
    for rule in [
        Rule::CertificateAlgorithm,
        Rule::CertificateExtensions,
        Rule::CertificateValidity,
        Rule::CertificateAuthority,
        Rule::CertificatePathLength,
        Rule::CertificateKeyUsage,
    ] {
        for (index, certificate) in certificates.iter().enumerate() {
            let position = if index == leaf_index {
                Position::Leaf
            } else {
                Position::Authority(authorities_below(index))
            };
            check(rule, certificate, position, time_seconds).map_err(|reason| {
                Rejection::new(rule, format!("{}: {reason}", name(index, certificate)))
            })?;
        }
        passed(rule);
    }

    for (index, pair) in certificates.windows(2).enumerate() {
        if let [issuer, subject] = pair
            && subject.issuer().as_raw() != issuer.subject().as_raw()
        {
            return Err(Rejection::new(
                Rule::ChainNames,
                format!(
                    "{} is not issued by the certificate above it",
                    name(index + 1, subject)
                ),
            ));
        }
    }
    passed(Rule::ChainNames);
    for (index, pair) in certificates.windows(2).enumerate() {
        if let [issuer, subject] = pair
            && !is_signed_by(subject, issuer)
        {
            return Err(Rejection::new(
                Rule::ChainSignature,
                format!(
                    "{} is not signed by the certificate above it",
                    name(index + 1, subject)
                ),
            ));
        }
    }
    passed(Rule::ChainSignature);
    let leaf = certificates
        .last()
        .map(|leaf| leaf.public_key().subject_public_key.data.to_vec());
    Ok(LeafKey(leaf.unwrap_or_default()))
}

fn parse(index: usize, der: &[u8]) -> Result<X509Certificate<'_>, Rejection> {
    let malformed = |reason: String| {
        Rejection::new(
            Rule::CertificateEncoding,
            format!("certificate {index}: {reason}"),
        )
    };
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes follow it", rest.len())));
    }
    if certificate.version() != X509Version::V3 {
        return Err(malformed("it is not version 3".to_owned()));
    }
    Ok(certificate)
}

/// Checks one rule on one certificate.
fn check(
    rule: Rule,
    certificate: &X509Certificate<'_>,
    position: Position,
    time_seconds: i64,
) -> Result<(), String> {
    match rule {
        Rule::CertificateAlgorithm => check_algorithm(certificate),
        Rule::CertificateExtensions => check_extensions(certificate),
        Rule::CertificateValidity => check_validity(certificate, time_seconds),
        Rule::CertificateAuthority | Rule::CertificatePathLength => {
            let constraints = certificate
                .basic_constraints()
                .map_err(|error| error.to_string())?
                .map(|extension| (extension.value.ca, extension.value.path_len_constraint));
            match (rule, position, constraints) {
                (Rule::CertificateAuthority, Position::Authority(_), Some((true, _)))
                | (Rule::CertificateAuthority, Position::Leaf, None | Some((false, _))) => Ok(()),
                (Rule::CertificateAuthority, Position::Authority(_), _) => {
                    Err("it is not a certificate authority".to_owned())
                }
                (Rule::CertificateAuthority, Position::Leaf, _) => {
                    Err("a leaf must not be a certificate authority".to_owned())
                }
                (_, Position::Authority(below), Some((_, Some(limit)))) if below > limit => Err(
                    format!("{below} authorities are below it, {limit} are allowed"),
                ),
                _ => Ok(()),
            }
        }
        _ => check_key_usage(certificate, position),
    }
}

fn check_algorithm(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let outer = &certificate.signature_algorithm.algorithm;
    let inner = &certificate.tbs_certificate.signature.algorithm;
    if *outer != OID_SIG_ECDSA_WITH_SHA384 || inner != outer {
        return Err(format!("it is signed with {outer}, not ECDSA with SHA-384"));
    }
    let key = &certificate.public_key().algorithm;
    let curve = key
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    if key.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_NIST_EC_P384) {
        return Err("its key is not on P-384".to_owned());
    }
    Ok(())
}

/// RFC 5280, section 4.2: a critical extension that is not processed here, or
/// an extension that is there twice, ends the matter.
fn check_extensions(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let extensions = certificate.extensions();
    for (index, extension) in extensions.iter().enumerate() {
        let processed = matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_) | ParsedExtension::KeyUsage(_)
        );
        if extension.critical && !processed {
            return Err(format!("critical extension {} is not known", extension.oid));
        }
        if extensions
            .iter()
            .skip(index + 1)
            .any(|other| other.oid == extension.oid)
        {
            return Err(format!("extension {} is there twice", extension.oid));
        }
    }
    Ok(())
}

fn check_validity(certificate: &X509Certificate<'_>, time_seconds: i64) -> Result<(), String> {
    let validity = certificate.validity();
    if time_seconds < validity.not_before.timestamp() {
        return Err(format!("it is not valid before {}", validity.not_before));
    }
    if time_seconds > validity.not_after.timestamp() {
        return Err(format!("it expired on {}", validity.not_after));
    }
    Ok(())
}

fn check_key_usage(certificate: &X509Certificate<'_>, position: Position) -> Result<(), String> {
    let usage = certificate.key_usage().map_err(|error| error.to_string())?;
    let usage = usage.ok_or("it does not say what its key is for")?.value;
    match position {
        Position::Authority(_) if !usage.key_cert_sign() => {
            Err("its key may not sign certificates".to_owned())
        }
        Position::Leaf if !usage.digital_signature() => Err("its key may not sign data".to_owned()),
        _ => Ok(()),
    }
}

fn is_signed_by(subject: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    UnparsedPublicKey::new(
        &ECDSA_P384_SHA384_ASN1,
        &issuer.public_key().subject_public_key.data,
    )
    .verify(
        subject.tbs_certificate.as_ref(),
        &subject.signature_value.data,
    )
    .is_ok()
}

/// A certificate as a person knows it; its subject is whatever a stranger wrote.
fn name(index: usize, certificate: &X509Certificate<'_>) -> String {
    let mut subject = String::new();
    for character in certificate.subject().to_string().chars() {
        if character.is_control() {
            subject.extend(character.escape_default());
        } else {
            subject.push(character);
        }
    }
    format!("certificate {index} ({subject})")
}
