//! The signature section: a COSE_Sign1 over PCR0 and the certificate for it.
//!
//! The section is a CBOR array of one map with `signing_certificate` (PEM) and
//! `signature` (COSE_Sign1 with the payload `{register_index: 0,
//! register_value: PCR0}`). AWS's writer stores all three byte vectors as CBOR
//! arrays of integers, and so does this one; byte strings are read too.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use aws_nitro_enclaves_cose::CoseSign1;
use aws_nitro_enclaves_cose::crypto::{
    Hash, MessageDigest, SignatureAlgorithm, SigningPrivateKey, SigningPublicKey,
};
use aws_nitro_enclaves_cose::error::CoseError;
use aws_nitro_enclaves_cose::header_map::HeaderMap;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use x509_parser::pem::Pem;

use crate::Pcr;
use crate::certificate::{Certificate, Curve, PublicKey};
use crate::error::SigningError;

/// A key and its certificate, ready to sign images.
///
/// Every signature is another one, even of the same image: ECDSA draws a random
/// number. A signed image is therefore reproducible up to its last section (and
/// the CRC), and in all its measurements.
#[derive(Debug)]
pub struct Signer {
    key: EcdsaKeyPair,
    certificate: Certificate,
    certificate_pem: Vec<u8>,
}

impl Signer {
    /// Reads a private key and its certificate, both PEM. What else the key's
    /// file holds, such as `EC PARAMETERS`, is skipped; the certificate's file
    /// must hold nothing else, as all of it goes into the image.
    pub fn from_pem(key: &[u8], certificate: &[u8]) -> Result<Self, SigningError> {
        let certificate_pem = certificate.to_vec();
        let certificate = Certificate::only_in(certificate)?;
        let (key, curve) = read_key(key)?;
        let public_key = PublicKey {
            curve,
            point: key.public_key().as_ref().to_vec(),
        };
        if public_key != *certificate.public_key() {
            return Err(SigningError::Mismatch(certificate.subject().to_owned()));
        }
        Ok(Self {
            key,
            certificate,
            certificate_pem,
        })
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// PCR8 of every image that this key signs.
    pub fn pcr8(&self) -> Pcr {
        self.certificate.pcr8()
    }

    /// The contents of a signature section for an image with this PCR0.
    pub(crate) fn sign(&self, pcr0: Pcr) -> Result<Vec<u8>, SigningError> {
        let payload = encode(&Payload {
            register_index: 0,
            register_value: pcr0.as_bytes().to_vec(),
        })?;
        let failed = |error: CoseError| SigningError::Sign(error.to_string());
        let cose = CoseSign1::new::<WholeMessage>(&payload, &HeaderMap::new(), self);
        let cose = cose.map_err(failed)?.as_bytes(false).map_err(failed)?;
        encode(&[Entry {
            signing_certificate: self.certificate_pem.clone(),
            signature: cose,
        }])
    }
}

/// An image's signature, found to hold for the image and its certificate. Who
/// the certificate belongs to, and whether it is valid today, is for others to
/// judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    certificate: Certificate,
}

impl Signature {
    /// Reads a signature section and checks it against the image's PCR0.
    pub(crate) fn verify(section: &[u8], pcr0: Pcr) -> Result<Self, SigningError> {
        let entries: Vec<Entry> = decode(section)?;
        let [entry] = entries.as_slice() else {
            return Err(SigningError::Malformed(format!(
                "it holds {} signatures instead of one",
                entries.len()
            )));
        };
        let certificate = Certificate::first_in(&entry.signing_certificate)?;
        let cose = CoseSign1::from_bytes(&entry.signature)
            .map_err(|error| SigningError::Malformed(error.to_string()))?;
        let payload = cose
            .get_payload::<WholeMessage>(Some(certificate.public_key()))
            .map_err(|_| SigningError::Invalid("the certificate's key did not make it"))?;
        let payload: Payload = decode(&payload)?;
        if payload.register_index != 0 || payload.register_value != pcr0.as_bytes() {
            return Err(SigningError::Invalid("it is for another image"));
        }
        Ok(Self { certificate })
    }

    /// The certificate whose key made the signature.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The measurement of the certificate.
    pub fn pcr8(&self) -> Pcr {
        self.certificate.pcr8()
    }
}

/// The first private key in `pem`, and its curve.
fn read_key(pem: &[u8]) -> Result<(EcdsaKeyPair, Curve), SigningError> {
    let mut labels = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| SigningError::Key(error.to_string()))?;
        if matches!(block.label.as_str(), "PRIVATE KEY" | "EC PRIVATE KEY") {
            return Curve::ALL
                .into_iter()
                .find_map(|curve| {
                    EcdsaKeyPair::from_private_key_der(curve.signing(), &block.contents)
                        .ok()
                        .map(|key| (key, curve))
                })
                .ok_or_else(|| SigningError::Key("it is not such an ECDSA key".to_owned()));
        }
        labels.push(block.label);
    }
    Err(SigningError::Key(match labels.as_slice() {
        [] => "there is no PEM block".to_owned(),
        labels => format!("its PEM blocks are {labels:?}"),
    }))
}

/// Passes the message on as its own digest: aws-lc-rs hashes while it signs and
/// verifies, with the hash that the curve's algorithm prescribes.
struct WholeMessage;

impl Hash for WholeMessage {
    fn hash(_: MessageDigest, data: &[u8]) -> Result<Vec<u8>, CoseError> {
        Ok(data.to_vec())
    }
}

impl SigningPublicKey for PublicKey {
    fn get_parameters(&self) -> Result<(SignatureAlgorithm, MessageDigest), CoseError> {
        Ok(match self.curve {
            Curve::P256 => (SignatureAlgorithm::ES256, MessageDigest::Sha256),
            Curve::P384 => (SignatureAlgorithm::ES384, MessageDigest::Sha384),
            Curve::P521 => (SignatureAlgorithm::ES512, MessageDigest::Sha512),
        })
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, CoseError> {
        Ok(
            UnparsedPublicKey::new(self.curve.verification(), &self.point)
                .verify(message, signature)
                .is_ok(),
        )
    }
}

impl SigningPublicKey for Signer {
    fn get_parameters(&self) -> Result<(SignatureAlgorithm, MessageDigest), CoseError> {
        self.certificate.public_key().get_parameters()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, CoseError> {
        self.certificate.public_key().verify(message, signature)
    }
}

impl SigningPrivateKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CoseError> {
        self.key
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|error| CoseError::SignatureError(Box::new(error)))
    }
}

/// One entry of the section. Some readers expect the fields in this order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(deserialize_with = "bytes_or_integers")]
    signing_certificate: Vec<u8>,
    #[serde(deserialize_with = "bytes_or_integers")]
    signature: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    register_index: i32,
    #[serde(deserialize_with = "bytes_or_integers")]
    register_value: Vec<u8>,
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, SigningError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)
        .map_err(|error| SigningError::Sign(error.to_string()))?;
    Ok(bytes)
}

fn decode<T: for<'de> Deserialize<'de>>(mut bytes: &[u8]) -> Result<T, SigningError> {
    let value = ciborium::from_reader(&mut bytes)
        .map_err(|error| SigningError::Malformed(error.to_string()))?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(SigningError::Malformed(format!(
            "{} bytes follow the CBOR",
            bytes.len()
        )))
    }
}

fn bytes_or_integers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a byte string or an array of integers from 0 to 255")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
            // The number of elements is only claimed; it is not allocated.
            let mut bytes = Vec::new();
            while let Some(byte) = sequence.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }

    deserializer.deserialize_any(Bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use ciborium::value::Value;
    use rcgen::{
        CertificateParams, KeyPair as RcgenKeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
        PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SignatureAlgorithm as RcgenAlgorithm,
    };

    use super::*;

    const PCR0: Pcr = Pcr::new([7; 48]);

    /// A key and a certificate for it, PEM.
    fn identity(algorithm: &'static RcgenAlgorithm) -> (String, String) {
        let key = RcgenKeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        (key.serialize_pem(), certificate.pem())
    }

    static P384: LazyLock<(String, String)> = LazyLock::new(|| identity(&PKCS_ECDSA_P384_SHA384));

    fn signer() -> Signer {
        Signer::from_pem(P384.0.as_bytes(), P384.1.as_bytes()).unwrap()
    }

    /// What a section says, to be changed.
    fn section() -> Value {
        ciborium::from_reader(signer().sign(PCR0).unwrap().as_slice()).unwrap()
    }

    fn field<'a>(section: &'a mut Value, name: &str) -> &'a mut Value {
        let entries = section.as_array_mut().unwrap();
        let fields = entries[0].as_map_mut().unwrap().iter_mut();
        let mut fields = fields.filter(|(key, _)| key.as_text() == Some(name));
        &mut fields.next().unwrap().1
    }

    fn verify(section: &Value) -> Result<Signature, SigningError> {
        Signature::verify(&encode(section).unwrap(), PCR0)
    }

    #[test]
    fn every_curve_signs_and_verifies() {
        for algorithm in [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ECDSA_P521_SHA512,
        ] {
            let (key, certificate) = identity(algorithm);
            let signer = Signer::from_pem(key.as_bytes(), certificate.as_bytes()).unwrap();
            let section = signer.sign(PCR0).unwrap();
            let signature = Signature::verify(&section, PCR0).unwrap();
            assert_eq!(signature.certificate(), signer.certificate());
            assert_eq!(signature.pcr8(), signer.pcr8());
        }
    }

    #[test]
    fn a_signature_of_another_image_does_not_hold() {
        let section = signer().sign(PCR0).unwrap();
        let error = Signature::verify(&section, Pcr::new([8; 48])).unwrap_err();
        assert!(matches!(
            error,
            SigningError::Invalid("it is for another image")
        ));
    }

    #[test]
    fn a_signature_under_another_certificate_does_not_hold() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P256_SHA256] {
            let mut section = section();
            *field(&mut section, "signing_certificate") =
                Value::Bytes(identity(algorithm).1.into());
            let error = verify(&section).unwrap_err();
            assert!(matches!(error, SigningError::Invalid(_)), "{error}");
        }
    }

    #[test]
    fn byte_strings_and_a_chain_are_read_too() {
        let mut section = section();
        for name in ["signing_certificate", "signature"] {
            let value = field(&mut section, name);
            let bytes = value.as_array().unwrap().iter();
            let bytes = bytes.map(|byte| u8::try_from(byte.as_integer().unwrap()).unwrap());
            *value = Value::Bytes(bytes.collect());
        }
        assert!(verify(&section).is_ok());
        let issuer = identity(&PKCS_ECDSA_P256_SHA256).1;
        let pem = field(&mut section, "signing_certificate")
            .as_bytes_mut()
            .unwrap();
        pem.extend(issuer.as_bytes());
        assert_eq!(verify(&section).unwrap().pcr8(), signer().pcr8());
    }

    #[test]
    fn sections_of_another_shape_are_refused() {
        let good = section();
        let refused = |section: &Value| {
            let error = verify(section).unwrap_err();
            assert!(matches!(error, SigningError::Malformed(_)), "{error}");
        };
        let entry = good.as_array().unwrap()[0].clone();
        refused(&Value::Array(vec![]));
        refused(&Value::Array(vec![entry.clone(), entry.clone()]));
        refused(&entry);
        let mut extended = good.clone();
        let fields = extended.as_array_mut().unwrap()[0].as_map_mut().unwrap();
        fields.push(("more".into(), Value::Null));
        refused(&extended);
        let mut without_cose = good.clone();
        *field(&mut without_cose, "signature") = Value::Bytes(vec![0xf6]);
        refused(&without_cose);
        let mut wide = good.clone();
        *field(&mut wide, "signature") = Value::Array(vec![256.into()]);
        refused(&wide);
    }

    #[test]
    fn no_byte_of_the_cose_sign1_can_change() {
        let mut section = section();
        let length = field(&mut section, "signature").as_array().unwrap().len();
        for index in 0..length {
            let mut changed = section.clone();
            let bytes = field(&mut changed, "signature").as_array_mut().unwrap();
            let byte = u8::try_from(bytes[index].as_integer().unwrap()).unwrap();
            bytes[index] = (byte ^ 1).into();
            assert!(verify(&changed).is_err(), "byte {index}");
        }
    }

    #[test]
    fn another_certificate_for_the_same_key_is_another_pcr8() {
        let key = RcgenKeyPair::from_pem(&P384.0).unwrap();
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(1.into());
        let other = parameters.self_signed(&key).unwrap().pem();
        let mut section = section();
        *field(&mut section, "signing_certificate") = Value::Bytes(other.into());
        assert_ne!(verify(&section).unwrap().pcr8(), signer().pcr8());
    }

    #[test]
    fn every_truncation_is_refused() {
        let section = signer().sign(PCR0).unwrap();
        for length in 0..section.len() {
            let error = Signature::verify(&section[..length], PCR0).unwrap_err();
            assert!(matches!(error, SigningError::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn keys_and_certificates_must_fit() {
        let (key, certificate) = &*P384;
        let other = identity(&PKCS_ECDSA_P384_SHA384).0;
        let p256 = identity(&PKCS_ECDSA_P256_SHA256).0;
        let from_pem = |key: &str, certificate: &str| {
            Signer::from_pem(key.as_bytes(), certificate.as_bytes()).unwrap_err()
        };
        assert!(matches!(
            from_pem(&other, certificate),
            SigningError::Mismatch(_)
        ));
        assert!(matches!(
            from_pem(&p256, certificate),
            SigningError::Mismatch(_)
        ));

        let (edwards_key, edwards_certificate) = identity(&PKCS_ED25519);
        for key in ["", "text", certificate, &edwards_key] {
            assert!(matches!(from_pem(key, certificate), SigningError::Key(_)));
        }
        // The last two would put a private key into the image.
        for certificate in [
            String::new(),
            key.clone(),
            edwards_certificate,
            certificate.repeat(2),
            format!("{key}{certificate}"),
            format!("{certificate}{key}"),
        ] {
            let error = from_pem(key, &certificate);
            assert!(matches!(error, SigningError::Certificate(_)), "{error}");
        }
    }

    #[test]
    fn what_else_a_key_file_holds_is_skipped() {
        let (key, certificate) = &*P384;
        // As written by `openssl ecparam -genkey`.
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n";
        let key = format!("{parameters}{key}");
        assert!(Signer::from_pem(key.as_bytes(), certificate.as_bytes()).is_ok());
    }
}
