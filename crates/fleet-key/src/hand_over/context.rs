//! What a gift is bound to.

use aws_lc_rs::digest::{Context as Digest, SHA384, SHA384_OUTPUT_LEN, digest};

use super::rules::Generation;

/// Bytes of the nonce in a gift's document.
pub const GIFT_NONCE_BYTES: usize = SHA384_OUTPUT_LEN;

/// How what is digested begins.
const CONTEXT: &[u8] = b"enclave key hand-over: context, version 1\0";
const GIFT: &[u8] = b"enclave key hand-over: gift, version 1\0";

/// The one request that a gift answers, and the giver's generation: what the seed is
/// encrypted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context([u8; SHA384_OUTPUT_LEN]);

/// What stands for a request's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DocumentDigest([u8; SHA384_OUTPUT_LEN]);

impl DocumentDigest {
    pub(super) fn of(document: &[u8]) -> Self {
        Self(bytes(digest(&SHA384, document).as_ref()))
    }
}

impl Context {
    pub(super) fn new(request: DocumentDigest, giver: Generation) -> Self {
        let mut context = Digest::new(&SHA384);
        context.update(CONTEXT);
        context.update(&request.0);
        context.update(&giver.get().to_be_bytes());
        Self(bytes(context.finish().as_ref()))
    }

    /// The context's bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The nonce of the document that goes with what was encrypted.
    pub fn gift_nonce(&self, sealed: &[u8]) -> [u8; GIFT_NONCE_BYTES] {
        let mut context = Digest::new(&SHA384);
        context.update(GIFT);
        context.update(&self.0);
        context.update(sealed);
        bytes(context.finish().as_ref())
    }
}

fn bytes(digest: &[u8]) -> [u8; SHA384_OUTPUT_LEN] {
    digest.try_into().expect("SHA-384 has this length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_over_context_differs_with_request_generation_and_ciphertext() {
        let generation = |number| Generation::new(number).unwrap();
        let context = |document: &[u8], number| {
            Context::new(DocumentDigest::of(document), generation(number))
        };
        let one = context(b"a", 1);
        assert_eq!(one, context(b"a", 1));
        assert_ne!(one, context(b"b", 1));
        assert_ne!(one, context(b"a", 2));
        let nonces = [
            one.gift_nonce(b"x"),
            one.gift_nonce(b"y"),
            context(b"b", 1).gift_nonce(b"x"),
            context(b"a", 256).gift_nonce(b"x"),
        ];
        for (index, nonce) in nonces.iter().enumerate() {
            assert!(!nonces[..index].contains(nonce), "{index}");
        }
    }
}
