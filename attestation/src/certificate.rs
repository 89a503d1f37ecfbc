//! One certificate: X.509 (RFC 5280), narrowed to what AWS issues.

use x509_parser::oid_registry::{OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Version};

use crate::clock::{Clock, seconds};
use crate::crypto::{Crypto, Es384Key, POINT_BYTES, SignatureEncoding};
use crate::der::Element;
use crate::rule::{Rejection, Rule};

/// DER of the algorithm ECDSA with SHA-384 (RFC 5758, section 3.2).
const ECDSA_WITH_SHA384: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
];
/// DER of the algorithm of a key on P-384 (RFC 5480, section 2.1.1).
const KEY_ON_P384: [u8; 18] = [
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];
/// First byte of a point that is written in full (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 0x04;

/// A certificate that is well-formed, and its place in the chain.
pub(crate) struct Certificate<'a> {
    x509: X509Certificate<'a>,
    /// The fields with their tags and lengths, as they were signed.
    signature_algorithms: [&'a [u8]; 2],
    key_algorithm: &'a [u8],
    position: Position,
    /// Counted from the root, which is 0.
    index: usize,
    /// The key, once its rule has been checked.
    key: Option<Es384Key>,
    crypto: &'a dyn Crypto,
}

/// What a certificate of the chain is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// An authority with this many authorities below it.
    Authority { below: usize },
    /// The certificate whose key signs documents.
    Leaf,
}

/// The rules that each certificate is held against by [`Certificate::check`].
pub(crate) const RULES: [Rule; 7] = [
    Rule::CertificateAlgorithm,
    Rule::CertificatePublicKey,
    Rule::CertificateExtensions,
    Rule::CertificateValidity,
    Rule::CertificateAuthority,
    Rule::CertificatePathLength,
    Rule::CertificateKeyUsage,
];

impl<'a> Certificate<'a> {
    pub(crate) fn parse(
        der: &'a [u8],
        index: usize,
        position: Position,
        crypto: &'a dyn Crypto,
    ) -> Result<Self, Rejection> {
        Self::try_parse(der, index, position, crypto).map_err(|reason| {
            Rejection::new(
                Rule::CertificateEncoding,
                format!("certificate {index}: {reason}"),
            )
        })
    }

    fn try_parse(
        der: &'a [u8],
        index: usize,
        position: Position,
        crypto: &'a dyn Crypto,
    ) -> Result<Self, String> {
        let certificate = Element::parse(der)?;
        let (_, x509) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        if x509.version() != X509Version::V3 {
            return Err("it is not version 3".to_owned());
        }
        let [body, outer_algorithm, signature] = certificate
            .children()
            .ok_or("it has more than body, algorithm and signature")?;
        let [_, _, inner_algorithm, _, validity, _, key, _] = body
            .children()
            .ok_or("it has fields that certificates of AWS lack, or lacks some of theirs")?;
        let [_, _] = validity
            .children()
            .ok_or("its validity is not two instants")?;
        let [key_algorithm, key_value] = key
            .children()
            .ok_or("its key is not an algorithm and a value")?;
        if !signature.is_whole_bytes() || !key_value.is_whole_bytes() {
            return Err("its signature or key ends within a byte".to_owned());
        }
        Ok(Self {
            x509,
            signature_algorithms: [inner_algorithm.whole, outer_algorithm.whole],
            key_algorithm: key_algorithm.whole,
            position,
            index,
            key: None,
            crypto,
        })
    }

    /// Checks one of [`RULES`].
    pub(crate) fn check(&mut self, rule: Rule, clock: Clock) -> Result<(), Rejection> {
        match rule {
            Rule::CertificateAlgorithm => self.check_algorithm(),
            Rule::CertificatePublicKey => self.check_public_key(),
            Rule::CertificateExtensions => self.check_extensions(),
            Rule::CertificateValidity => self.check_validity(clock),
            Rule::CertificateAuthority => self.check_authority(),
            Rule::CertificatePathLength => self.check_path_length(),
            _ => self.check_key_usage(),
        }
        .map_err(|reason| Rejection::new(rule, format!("{self}: {reason}")))
    }

    /// The first and the last instant that it is valid at, in milliseconds since 1970.
    pub(crate) fn valid_ms(&self) -> (i128, i128) {
        let validity = self.x509.validity();
        let milliseconds = |seconds: i64| i128::from(seconds) * 1000;
        (
            milliseconds(validity.not_before.timestamp()),
            milliseconds(validity.not_after.timestamp()),
        )
    }

    /// How many authorities may be below it: `None` where it sets no limit.
    pub(crate) fn path_length(&self) -> Option<usize> {
        let (_, limit) = self.constraints()?;
        limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// The subject's name, DER.
    pub(crate) fn subject(&self) -> &'a [u8] {
        self.x509.tbs_certificate.subject.as_raw()
    }

    /// The issuer's name, DER.
    pub(crate) fn issuer(&self) -> &'a [u8] {
        self.x509.tbs_certificate.issuer.as_raw()
    }

    /// Its key, if the rule about it has been checked: an authority's verifies
    /// certificates, a leaf's documents.
    pub(crate) fn into_key(self) -> Option<Es384Key> {
        self.key
    }

    /// Whether the key of `issuer` signed it.
    pub(crate) fn is_signed_by(&self, issuer: &Es384Key) -> bool {
        issuer.signed(
            self.x509.tbs_certificate.as_ref(),
            &self.x509.signature_value.data,
        )
    }

    fn check_algorithm(&self) -> Result<(), String> {
        if self
            .signature_algorithms
            .iter()
            .any(|algorithm| *algorithm != ECDSA_WITH_SHA384)
        {
            return Err("it is not signed with ECDSA and SHA-384".to_owned());
        }
        if self.key_algorithm != KEY_ON_P384 {
            return Err("its key is not on P-384".to_owned());
        }
        Ok(())
    }

    fn check_public_key(&mut self) -> Result<(), String> {
        let point: &[u8] = &self.x509.public_key().subject_public_key.data;
        let point: &[u8; POINT_BYTES] = point
            .try_into()
            .ok()
            .filter(|point: &&[u8; POINT_BYTES]| point.starts_with(&[UNCOMPRESSED]))
            .ok_or("its key is not a point written in full")?;
        // Certificates carry signatures in DER, documents as two numbers.
        let encoding = match self.position {
            Position::Authority { .. } => SignatureEncoding::Der,
            Position::Leaf => SignatureEncoding::Fixed,
        };
        let key = self
            .crypto
            .es384_key(point, encoding)
            .ok_or("its key is not a point on the curve")?;
        self.key = Some(key);
        Ok(())
    }

    /// Basic constraints and key usage are processed; any other extension that
    /// says it matters is one that this verifier cannot honour.
    fn check_extensions(&self) -> Result<(), String> {
        let extensions = self.x509.extensions();
        for (index, extension) in extensions.iter().enumerate() {
            let known =
                [OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE].contains(&extension.oid);
            let understood = matches!(
                extension.parsed_extension(),
                ParsedExtension::BasicConstraints(_) | ParsedExtension::KeyUsage(_)
            ) && Element::parse(extension.value).is_ok();
            if known && !understood {
                return Err(format!("extension {} is malformed", extension.oid));
            }
            if extension.critical && !known {
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

    /// AWS makes leaves on demand: one begins when its document is made, and a clock that
    /// is a second behind sees it before it begins.
    fn check_validity(&self, clock: Clock) -> Result<(), String> {
        let (first, last) = self.valid_ms();
        let validity = self.x509.validity();
        if let Some(behind) = clock.behind(first) {
            return Err(format!(
                "the clock is {} behind its beginning, {}: set the clock",
                seconds(behind),
                validity.not_before
            ));
        }
        if let Some(over) = clock.over(last) {
            let (over, end) = (seconds(over), validity.not_after);
            return Err(format!("it expired on {end}, {over} ago"));
        }
        Ok(())
    }

    fn check_authority(&self) -> Result<(), String> {
        let authority = self.constraints().is_some_and(|(authority, _)| authority);
        match self.position {
            Position::Authority { .. } if !authority => {
                Err("it is not a certificate authority".to_owned())
            }
            Position::Leaf if authority => {
                Err("a leaf must not be a certificate authority".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn check_path_length(&self) -> Result<(), String> {
        match (self.position, self.path_length()) {
            (Position::Authority { below }, Some(limit)) if below > limit => Err(format!(
                "{below} authorities are below it, {limit} are allowed"
            )),
            (Position::Leaf, Some(_)) => {
                Err("only an authority may limit the path's length".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn check_key_usage(&self) -> Result<(), String> {
        let usage = self.x509.key_usage().map_err(|error| error.to_string())?;
        let usage = usage.ok_or("it does not say what its key is for")?.value;
        match self.position {
            Position::Authority { .. } if !usage.key_cert_sign() => {
                Err("its key may not sign certificates".to_owned())
            }
            Position::Leaf if !usage.digital_signature() => {
                Err("its key may not sign data".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Basic constraints: whether it is an authority, and the path's length.
    fn constraints(&self) -> Option<(bool, Option<u32>)> {
        let extension = self.x509.basic_constraints().ok().flatten()?;
        Some((extension.value.ca, extension.value.path_len_constraint))
    }
}

/// A certificate as a person knows it; its subject is whatever a stranger wrote.
impl std::fmt::Display for Certificate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "certificate {} ({})",
            self.index,
            plain_text::plain(&self.x509.subject().to_string())
        )
    }
}
