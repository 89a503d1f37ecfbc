//! The root certificates that a verifier pins.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

#[cfg(feature = "aws-lc-rs")]
use crate::aws_lc::AwsLcRs;
use crate::certificate::{Certificate, Position, RULES};
use crate::clock::Clock;
use crate::crypto::Crypto;
use crate::partition::Partition;
use crate::rule::{Rejection, Rule};

/// How a certificate is called in PEM (RFC 7468, section 5).
const CERTIFICATE: &str = "CERTIFICATE";
/// Characters of another block's label that are said.
const MAX_LABEL: usize = 64;

/// The root certificates that a verifier trusts.
#[derive(Debug, Clone)]
pub struct Roots {
    der: Vec<Vec<u8>>,
}

/// The pinned root that a document's certificates lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PinnedRoot {
    /// The partition of AWS whose root it is; none if it is not known as AWS's. Only
    /// AWS's roots speak for AWS's hardware.
    pub partition: Option<Partition>,
    /// SHA-256 of its DER, in hexadecimal.
    pub sha256: String,
}

/// Why a root cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RootsError {
    /// Not PEM, or not a certificate.
    #[error("the root certificate cannot be read ({0}): give a PEM file with a certificate")]
    Malformed(String),
    /// A certificate as it is, without the text around it.
    #[error(
        "the root certificate is in DER, not in PEM: `openssl x509 -inform DER -in FILE -out root.pem` writes it in PEM"
    )]
    Der,
    /// A PEM file of something else.
    #[error(
        "there is a {0} where a root certificate is wanted: give the certificate alone, in PEM"
    )]
    Label(String),
    /// A certificate that no chain can begin with.
    #[error(
        "the root certificate cannot be used ({0}): give the self-signed certificate of an authority, whose key is on P-384 and whose signature is ECDSA with SHA-384"
    )]
    NoRoot(String),
}

/// For people.
impl fmt::Display for PinnedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(partition) => write!(f, "AWS's of {partition}")?,
            None => f.write_str("not AWS's")?,
        }
        write!(f, ", SHA-256 {}", self.sha256)
    }
}

impl Roots {
    /// AWS's root for the commercial regions, those of the partition `aws`. Others are
    /// trusted only where they are named: [`partition`](Self::partition).
    #[must_use]
    pub fn aws() -> Self {
        Self::partition(Partition::Aws)
    }

    /// AWS's root for the regions of a partition.
    #[must_use]
    pub fn partition(partition: Partition) -> Self {
        Self {
            der: vec![partition.certificate().to_vec()],
        }
    }

    /// These roots and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        for der in others.der {
            if !self.contains(&der) {
                self.der.push(der);
            }
        }
        self
    }

    /// The certificates of a PEM file, and no other root. A chain that begins with one that
    /// no chain can begin with is refused when it is verified.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        if X509Certificate::from_der(pem).is_ok() {
            return Err(RootsError::Der);
        }
        let malformed = |reason: &dyn ToString| RootsError::Malformed(reason.to_string());
        let mut der = Vec::new();
        for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| malformed(&error))?;
            if block.label != CERTIFICATE {
                let label = block.label.chars().take(MAX_LABEL).collect::<String>();
                return Err(RootsError::Label(label.escape_default().to_string()));
            }
            let (rest, _) = X509Certificate::from_der(&block.contents)
                .map_err(|_| malformed(&"what its PEM block holds is no certificate"))?;
            if !rest.is_empty() {
                return Err(malformed(&"bytes follow it"));
            }
            der.push(block.contents);
        }
        if der.is_empty() {
            return Err(malformed(&"it holds no PEM block"));
        }
        Ok(Self { der })
    }

    /// The certificates of a PEM file that a person names. Each is one that a chain of
    /// documents can begin with: that of an authority, self-issued, with a key on P-384.
    /// Whether it is valid at some time is not looked at.
    #[cfg(feature = "aws-lc-rs")]
    pub fn usable_from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let roots = Self::from_pem(pem)?;
        roots.check(&AwsLcRs)?;
        Ok(roots)
    }

    /// The one certificate of a PEM file, under the same conditions.
    #[cfg(feature = "aws-lc-rs")]
    pub fn only_root_from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let roots = Self::usable_from_pem(pem)?;
        match roots.der.as_slice() {
            [_] => Ok(roots),
            several => Err(RootsError::NoRoot(format!(
                "there are {} of them",
                several.len()
            ))),
        }
    }

    /// Checks that chains of documents can begin with each of these certificates.
    pub fn check(&self, crypto: &dyn Crypto) -> Result<(), RootsError> {
        self.der.iter().try_for_each(|der| check_root(der, crypto))
    }

    /// Checks that a chain begins with one of them.
    pub(crate) fn find(&self, der: &[u8], crypto: &dyn Crypto) -> Result<PinnedRoot, Rejection> {
        let partition = Partition::of(der);
        if self.contains(der) {
            let sha256 = partition.map_or_else(
                || hex::encode(crypto.sha256(&[der])),
                |partition| partition.fingerprint().to_owned(),
            );
            return Ok(PinnedRoot { partition, sha256 });
        }
        let reason = partition.map_or_else(
            || "the first certificate of the document's bundle is not a pinned root".to_owned(),
            |partition| {
                format!(
                    "the document's root is that of AWS's partition {partition}, which is not pinned: trust it if enclaves there are to be accepted"
                )
            },
        );
        Err(Rejection::new(Rule::ChainRoot, reason))
    }

    pub(crate) fn contains(&self, der: &[u8]) -> bool {
        self.der.iter().any(|root| root == der)
    }
}

/// Checks that a chain of documents can begin with the certificate.
fn check_root(der: &[u8], crypto: &dyn Crypto) -> Result<(), RootsError> {
    let unusable = |rejection: Rejection| RootsError::NoRoot(rejection.to_string());
    let position = Position::Authority { below: 0 };
    let mut certificate = Certificate::parse(der, 0, position, crypto).map_err(unusable)?;
    let no_time = Clock::new(0, Duration::ZERO);
    for rule in RULES {
        if rule != Rule::CertificateValidity {
            certificate.check(rule, no_time).map_err(unusable)?;
        }
    }
    if certificate.issuer() != certificate.subject() {
        return Err(RootsError::NoRoot("another authority issued it".to_owned()));
    }
    Ok(())
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose,
        PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm,
    };

    use super::*;
    use software_nsm::TestRoot;

    /// The same, as AWS publishes it.
    const AWS_ROOT_PEM: &[u8] = include_bytes!("aws-nitro-root.pem");

    fn self_signed(
        algorithm: &'static SignatureAlgorithm,
        is_ca: IsCa,
    ) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(algorithm)?;
        Ok(params.self_signed(&key)?.pem())
    }

    #[test]
    fn a_root_that_chains_can_begin_with_is_usable() {
        let root = TestRoot::generate().unwrap();
        let own = Roots::only_root_from_pem(root.certificate_pem().as_bytes()).unwrap();
        let all = Roots::aws()
            .and(Roots::partition(Partition::AwsUsGov))
            .and(own.clone())
            .and(Roots::aws());
        assert_eq!(all.der.len(), 3);
        all.check(&AwsLcRs).unwrap();
        for partition in Partition::ALL {
            let found = all.find(partition.certificate(), &AwsLcRs).unwrap();
            assert_eq!(found.partition, Some(partition));
            let refused = own.find(partition.certificate(), &AwsLcRs).unwrap_err();
            assert_eq!(refused.rule, Rule::ChainRoot);
            assert!(refused.reason.contains(partition.name()), "{refused}");
        }
        let found = all.find(&own.der[0], &AwsLcRs).unwrap();
        assert_eq!(found.partition, None);
        assert_eq!(found.sha256, hex::encode(AwsLcRs.sha256(&[&own.der[0]])));
    }

    #[test]
    fn what_no_chain_can_begin_with_is_refused() {
        let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
        let root = TestRoot::generate().unwrap();
        for (pem, message) in [
            ("no certificate".to_owned(), "no PEM block"),
            (root.certificate_pem().repeat(2), "there are 2"),
            (root.key_pem(), "there is a PRIVATE KEY where a root"),
            (
                self_signed(&PKCS_ECDSA_P256_SHA256, authority()).unwrap(),
                "on P-384 and whose signature is ECDSA with SHA-384",
            ),
            (
                self_signed(&PKCS_ECDSA_P384_SHA384, IsCa::ExplicitNoCa).unwrap(),
                "certificate.authority",
            ),
        ] {
            let error = Roots::only_root_from_pem(pem.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            // Whoever trusts several of them is told the same.
            let several = Roots::usable_from_pem(pem.as_bytes());
            assert!(message == "there are 2" || several.err() == Some(error));
        }
    }

    #[test]
    fn a_root_that_is_no_pem_or_has_another_algorithm_is_named_as_what_it_is() {
        let pem = x509_parser::pem::parse_x509_pem(AWS_ROOT_PEM).unwrap().1;
        assert_eq!(Roots::from_pem(&pem.contents).unwrap_err(), RootsError::Der);
        // The last byte of the algorithm says the digest, and SHA-256 is 2.
        let (with_sha384, with_sha256) = ([0x04, 0x03, 0x03], [0x04, 0x03, 0x02]);
        let mut der = pem.contents;
        let places: Vec<_> = (0..der.len() - 3)
            .filter(|&place| der[place..place + 3] == with_sha384)
            .collect();
        for place in places {
            der[place..place + 3].copy_from_slice(&with_sha256);
        }
        let error = check_root(&der, &AwsLcRs).unwrap_err().to_string();
        assert!(
            error.contains("it is not signed with ECDSA and SHA-384"),
            "{error}"
        );
        assert!(
            error.ends_with("whose signature is ECDSA with SHA-384"),
            "{error}"
        );
        assert!(check_root(&der[1..], &AwsLcRs).is_err());
    }
}
