//! A certificate hierarchy of AWS's shape: root, regional, zonal and instance
//! authorities, and the leaf that signs documents.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
};
use thiserror::Error;

/// What every name ends in: nobody can take it for AWS's.
const DOMAIN: &str = "software-nsm.test";
const REGION: &str = "local";

/// The extension's object identifier (RFC 5280, section 4.2.1.9).
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
/// DER of a sequence whose fields all have their defaults.
const EMPTY_SEQUENCE: [u8; 2] = [0x30, 0x00];

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Lifetimes, as AWS's certificates have them.
const ROOT_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
const REGIONAL_LIFE: Duration = Duration::from_secs(20 * 24 * 60 * 60);
const ZONAL_LIFE: Duration = Duration::from_secs(6 * 24 * 60 * 60);
const INSTANCE_LIFE: Duration = DAY;
const LEAF_LIFE: Duration = Duration::from_secs(3 * 60 * 60);
/// How long before it is issued an authority is valid.
const AUTHORITY_BEFORE: Duration = MINUTE;
/// The same of a leaf: AWS makes it on demand, and it begins seconds before its first
/// document.
const LEAF_BEFORE: Duration = Duration::from_secs(3);
/// A leaf is renewed when this much of its life is left.
const RENEW_BEFORE: Duration = HOUR;

/// Why a root or a certificate could not be made or read.
#[derive(Debug, Error)]
pub enum RootError {
    /// A certificate or key could not be made, or the PEM is not a root's.
    #[error("the software NSM's root cannot be used: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A key was refused.
    #[error("the software NSM's key cannot be used: {0}")]
    Key(String),
}

/// The self-signed root of a software NSM.
#[derive(Debug)]
pub struct TestRoot {
    certificate_pem: String,
    certificate_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl TestRoot {
    /// A new root, valid for thirty years.
    pub fn generate() -> Result<Self, RootError> {
        let key = new_key()?;
        let now = SystemTime::now();
        let mut params = authority(name(&format!("root.{DOMAIN}")), None, now, ROOT_LIFE)?;
        params.use_authority_key_identifier_extension = false;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
        })
    }

    /// A root from its certificate and key, both PEM.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, RootError> {
        let block = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
            .map_err(|error| RootError::Key(error.to_string()))?
            .1;
        let key = KeyPair::from_pem(key)?;
        Ok(Self {
            certificate_pem: certificate.to_owned(),
            certificate_der: block.contents,
            issuer: Issuer::from_ca_cert_pem(certificate, key)?,
        })
    }

    /// The certificate, PEM: what a verifier pins.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PEM.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// A leaf and the authorities above it.
pub(crate) struct Chain {
    pub(crate) leaf_der: Vec<u8>,
    /// Root first.
    pub(crate) cabundle: Vec<Vec<u8>>,
    key: EcdsaKeyPair,
    expires: SystemTime,
}

impl Chain {
    /// Issues four certificates below `root` for the module of this identity, now.
    pub(crate) fn issue(
        root: &TestRoot,
        instance: &str,
        module_id: &str,
        now: SystemTime,
    ) -> Result<Self, RootError> {
        let regional_key = new_key()?;
        let regional = with_crl(authority(
            name(&format!("regional.{REGION}.{DOMAIN}")),
            Some(2),
            now,
            REGIONAL_LIFE,
        )?);
        let regional_certificate = regional.signed_by(&regional_key, &root.issuer)?;
        let regional = Issuer::new(regional, regional_key);

        let zonal_key = new_key()?;
        let zonal = with_crl(authority(
            name(&format!("zonal.{REGION}.{DOMAIN}")),
            Some(1),
            now,
            ZONAL_LIFE,
        )?);
        let zonal_certificate = zonal.signed_by(&zonal_key, &regional)?;
        let zonal = Issuer::new(zonal, zonal_key);

        let instance_key = new_key()?;
        let mut instance = authority(
            name(&format!("{instance}.{REGION}.{DOMAIN}")),
            Some(0),
            now,
            INSTANCE_LIFE,
        )?;
        instance.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let instance_certificate = instance.signed_by(&instance_key, &zonal)?;
        let instance = Issuer::new(instance, instance_key);

        let leaf_key = new_key()?;
        let mut leaf = params(
            name(&format!("{module_id}.{REGION}.{DOMAIN}")),
            now - LEAF_BEFORE,
            now + LEAF_LIFE,
        )?;
        // As AWS's leaf: basic constraints without an authority, no key identifiers.
        let mut constraints =
            CustomExtension::from_oid_content(BASIC_CONSTRAINTS, EMPTY_SEQUENCE.to_vec());
        constraints.set_criticality(true);
        leaf.custom_extensions = vec![constraints];
        leaf.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::ContentCommitment,
        ];
        let leaf_certificate = leaf.signed_by(&leaf_key, &instance)?;
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &leaf_key.serialize_der())
                .map_err(|error| RootError::Key(error.to_string()))?;
        Ok(Self {
            leaf_der: leaf_certificate.der().to_vec(),
            cabundle: vec![
                root.certificate_der.clone(),
                regional_certificate.der().to_vec(),
                zonal_certificate.der().to_vec(),
                instance_certificate.der().to_vec(),
            ],
            key,
            expires: now + LEAF_LIFE,
        })
    }

    /// Whether the leaf should be replaced.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        now + RENEW_BEFORE > self.expires
    }

    /// An ES384 signature: two numbers of 48 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RootError> {
        self.key
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|error| RootError::Key(error.to_string()))
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationalUnitName, "software NSM, not AWS");
    name.push(DnType::OrganizationName, "enclave tests");
    name.push(DnType::CountryName, "XX");
    name
}

fn params(
    name: DistinguishedName,
    from: SystemTime,
    to: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name;
    params.key_identifier_method = KeyIdMethod::Sha256;
    params.not_before = from.into();
    params.not_after = to.into();
    Ok(params)
}

fn authority(
    name: DistinguishedName,
    path_length: Option<u8>,
    now: SystemTime,
    life: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(name, now - AUTHORITY_BEFORE, now + life)?;
    params.is_ca = IsCa::Ca(match path_length {
        Some(length) => BasicConstraints::Constrained(length),
        None => BasicConstraints::Unconstrained,
    });
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    Ok(params)
}

/// AWS's regional and zonal certificates say where their revocation list is.
fn with_crl(mut params: CertificateParams) -> CertificateParams {
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec![format!("http://crl.{DOMAIN}/revoked.crl")],
    }];
    params
}
