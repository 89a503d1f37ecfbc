//! Pairs of keys that the KMS makes and does not keep.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};

use crate::error::Refusal;

/// What kind of pair is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairSpec {
    /// As requests name it.
    pub(crate) name: &'static str,
    algorithm: Algorithm,
}

#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Rsa(KeySize),
    Ecc(&'static EcdsaSigningAlgorithm),
}

const SPECS: [PairSpec; 6] = [
    PairSpec::new("RSA_2048", Algorithm::Rsa(KeySize::Rsa2048)),
    PairSpec::new("RSA_3072", Algorithm::Rsa(KeySize::Rsa3072)),
    PairSpec::new("RSA_4096", Algorithm::Rsa(KeySize::Rsa4096)),
    PairSpec::new(
        "ECC_NIST_P256",
        Algorithm::Ecc(&ECDSA_P256_SHA256_ASN1_SIGNING),
    ),
    PairSpec::new(
        "ECC_NIST_P384",
        Algorithm::Ecc(&ECDSA_P384_SHA384_ASN1_SIGNING),
    ),
    PairSpec::new(
        "ECC_NIST_P521",
        Algorithm::Ecc(&ECDSA_P521_SHA512_ASN1_SIGNING),
    ),
];

/// A pair in DER.
pub(crate) struct DataKeyPair {
    /// `PrivateKeyInfo` (RFC 5208).
    pub(crate) private: Vec<u8>,
    /// `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
    pub(crate) public: Vec<u8>,
}

impl PairSpec {
    const fn new(name: &'static str, algorithm: Algorithm) -> Self {
        Self { name, algorithm }
    }

    pub(crate) fn parse(name: Option<&str>) -> Result<Self, Refusal> {
        let Some(name) = name else {
            return Err(Refusal::constraint("keyPairSpec", "not be null"));
        };
        let found = SPECS.into_iter().find(|spec| spec.name == name);
        found.ok_or_else(|| {
            let names = SPECS.map(|spec| spec.name).join(", ");
            Refusal::constraint("keyPairSpec", &format!("satisfy enum value set: [{names}]"))
        })
    }

    pub(crate) fn generate(self) -> Result<DataKeyPair, Unspecified> {
        let (private, public) = match self.algorithm {
            Algorithm::Rsa(size) => {
                let pair = RsaKeyPair::generate(size)?;
                let private: Pkcs8V1Der<'_> = pair.as_der()?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                (private.as_ref().to_vec(), public.as_ref().to_vec())
            }
            Algorithm::Ecc(algorithm) => {
                let pair = EcdsaKeyPair::generate(algorithm)?;
                let private = pair.to_pkcs8v1()?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                (private.as_ref().to_vec(), public.as_ref().to_vec())
            }
        };
        Ok(DataKeyPair { private, public })
    }
}
