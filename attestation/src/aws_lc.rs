//! The cryptography of aws-lc-rs.

use aws_lc_rs::digest::{Context, SHA256, SHA384, digest};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, ParsedPublicKey};

use crate::crypto::{Crypto, Es384Key, POINT_BYTES, SignatureEncoding};

/// aws-lc-rs, which is used unless another [`Crypto`] is given.
#[derive(Debug, Clone, Copy)]
pub struct AwsLcRs;

impl Crypto for AwsLcRs {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        of_length(context.finish().as_ref())
    }

    fn sha384(&self, data: &[u8]) -> [u8; 48] {
        of_length(digest(&SHA384, data).as_ref())
    }

    fn es384_key(
        &self,
        point: &[u8; POINT_BYTES],
        encoding: SignatureEncoding,
    ) -> Option<Es384Key> {
        let algorithm = match encoding {
            SignatureEncoding::Der => &ECDSA_P384_SHA384_ASN1,
            SignatureEncoding::Fixed => &ECDSA_P384_SHA384_FIXED,
        };
        let key = ParsedPublicKey::new(algorithm, point).ok()?;
        Some(Es384Key::new(move |message, signature| {
            key.verify_sig(message, signature).is_ok()
        }))
    }
}

/// The digest's bytes, of which there are as many as its algorithm gives.
fn of_length<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(digest);
    bytes
}
