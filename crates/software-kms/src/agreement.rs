//! Keys that secrets are agreed on with.

use aws_lc_rs::agreement::{
    Algorithm, ECDH_P256, ECDH_P384, ParsedPublicKey, ParsedPublicKeyFormat, PrivateKey,
    UnparsedPublicKey, agree,
};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;

use crate::error::{Kind, Refusal};

/// The one algorithm of agreeing.
pub(crate) const ECDH: &str = "ECDH";

/// The curve of a key that secrets are agreed on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::P256 => &ECDH_P256,
            Self::P384 => &ECDH_P384,
        }
    }
}

/// A private key of a curve.
pub(crate) struct AgreementKey {
    private: PrivateKey,
    /// `SubjectPublicKeyInfo`, DER.
    pub(crate) public_key: Vec<u8>,
}

impl AgreementKey {
    pub(crate) fn generate(curve: Curve) -> Result<Self, Unspecified> {
        let private = PrivateKey::generate(curve.algorithm())?;
        let public = private.compute_public_key()?;
        let public: PublicKeyX509Der<'_> = public.as_der()?;
        Ok(Self {
            public_key: public.as_ref().to_vec(),
            private,
        })
    }

    /// What is agreed on with the owner of a key of the same curve
    /// (`SubjectPublicKeyInfo`, DER): the x coordinate of the common point.
    pub(crate) fn secret(&self, public_key: &[u8]) -> Result<Vec<u8>, Refusal> {
        let refused = || {
            Refusal::new(
                Kind::Validation,
                "The public key is not valid: DER of a SubjectPublicKeyInfo on the KMS key's curve is",
            )
        };
        let peer = UnparsedPublicKey::new(self.private.algorithm(), public_key);
        let peer = ParsedPublicKey::try_from(peer).map_err(|_| refused())?;
        if peer.format() != ParsedPublicKeyFormat::X509 {
            return Err(refused());
        }
        agree(&self.private, peer, refused(), |secret| Ok(secret.to_vec()))
    }
}
