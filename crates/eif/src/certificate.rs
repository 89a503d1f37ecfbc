//! The certificate that an image is signed with.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm,
};
use plain_text::plain;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use crate::Pcr;
use crate::error::SigningError;

const LABEL: &str = "CERTIFICATE";

/// The certificate that an image is signed with: an X.509 certificate for a
/// key on P-256, P-384 or P-521. Nothing here says who it belongs to; a
/// verifier judges that by [PCR8](Self::pcr8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: String,
    issuer: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    public_key: PublicKey,
}

/// A key that images are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    pub(crate) curve: Curve,
    /// The uncompressed point.
    pub(crate) point: Vec<u8>,
}

/// A curve that images are signed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Certificate {
    /// The certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its subject, for people; control characters are escaped.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Its issuer, for people; control characters are escaped.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The start of its validity. AWS's launcher refuses an image whose
    /// certificate is not valid at the time of the start; this library knows no
    /// time.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The end of its validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Why the certificate does not count at this time, if it does not.
    pub fn problem_at(&self, now: OffsetDateTime) -> Option<String> {
        let date = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        if now < self.not_before {
            return Some(format!("it is not valid before {}", date(self.not_before)));
        }
        (now > self.not_after).then(|| format!("it expired at {}", date(self.not_after)))
    }

    /// The measurement of the certificate.
    pub fn pcr8(&self) -> Pcr {
        Pcr::of_signer(&self.der)
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Reads the first certificate in `pem`; like AWS's reader it takes no
    /// notice of what follows, for instance the issuer's.
    pub(crate) fn first_in(pem: &[u8]) -> Result<Self, SigningError> {
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| unusable(&error))?;
            if block.label == LABEL {
                return Self::from_der(block.contents);
            }
        }
        Err(unusable(&"there is no PEM block CERTIFICATE"))
    }

    /// Reads `pem`, which must be one certificate and nothing else: all of it
    /// goes into the image.
    pub(crate) fn only_in(pem: &[u8]) -> Result<Self, SigningError> {
        let mut blocks = Pem::iter_from_buffer(pem);
        let (Some(block), None) = (blocks.next(), blocks.next()) else {
            return Err(unusable(&"there is not exactly one PEM block"));
        };
        let block = block.map_err(|error| unusable(&error))?;
        if block.label != LABEL {
            return Err(unusable(&format!("the PEM block is a {:?}", block.label)));
        }
        Self::from_der(block.contents)
    }

    fn from_der(der: Vec<u8>) -> Result<Self, SigningError> {
        let (rest, certificate) =
            X509Certificate::from_der(&der).map_err(|error| unusable(&error))?;
        if !rest.is_empty() {
            return Err(unusable(&"bytes follow the certificate"));
        }
        let validity = certificate.validity();
        Ok(Self {
            subject: plain(&certificate.subject().to_string()),
            issuer: plain(&certificate.issuer().to_string()),
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
            public_key: PublicKey::from_info(certificate.public_key())
                .ok_or_else(|| unusable(&"its key is not on P-256, P-384 or P-521"))?,
            der,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct View<'a> {
    subject: &'a str,
    issuer: &'a str,
    not_before: Option<String>,
    not_after: Option<String>,
}

/// Names, and validity as RFC 3339.
impl Serialize for Certificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        View {
            subject: &self.subject,
            issuer: &self.issuer,
            not_before: self.not_before.format(&Rfc3339).ok(),
            not_after: self.not_after.format(&Rfc3339).ok(),
        }
        .serialize(serializer)
    }
}

impl PublicKey {
    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        if info.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let parameter = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let curve = Curve::ALL.into_iter().find(|curve| {
            parameter
                == match curve {
                    Curve::P256 => OID_EC_P256,
                    Curve::P384 => OID_NIST_EC_P384,
                    Curve::P521 => OID_NIST_EC_P521,
                }
        })?;
        Some(Self {
            curve,
            point: info.subject_public_key.data.to_vec(),
        })
    }
}

impl Curve {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    pub(crate) fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    pub(crate) fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

fn unusable(reason: &dyn ToString) -> SigningError {
    SigningError::Certificate(reason.to_string())
}
