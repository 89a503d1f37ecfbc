//! The cryptography that verification needs, behind one trait.

use std::fmt;
use std::sync::Arc;

/// Bytes of a point on P-384 that is written in full (SEC 1, section 2.3.3): 4, x, y.
pub const POINT_BYTES: usize = 97;

/// What verification needs of a cryptographic library: two digests, and ECDSA on P-384
/// with SHA-384.
///
/// `AwsLcRs`, of the feature of that name, is what everything uses that takes no other.
/// Whoever implements the trait answers for it: a document is no more authentic than this
/// says.
pub trait Crypto: fmt::Debug + Send + Sync {
    /// SHA-256 of the parts, one behind the other.
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32];

    /// SHA-384.
    fn sha384(&self, data: &[u8]) -> [u8; 48];

    /// The key of a point, for signatures in this encoding. `None` if the point is not on
    /// the curve or is the one at infinity.
    fn es384_key(&self, point: &[u8; POINT_BYTES], encoding: SignatureEncoding)
    -> Option<Es384Key>;
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// DER, strict (RFC 3279, section 2.2.3): of certificates.
    Der,
    /// Two numbers of 48 bytes (RFC 9053, section 2.1): of documents.
    Fixed,
}

/// Says of a message and a signature whether a key made it.
type Verify = dyn Fn(&[u8], &[u8]) -> bool + Send + Sync;

/// A key that signatures are verified with.
#[derive(Clone)]
pub struct Es384Key(Arc<Verify>);

impl Es384Key {
    /// The key for which `verify` says of a message and a signature whether it made it.
    pub fn new(verify: impl Fn(&[u8], &[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(verify))
    }

    /// Whether the key signed the message.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        (self.0)(message, signature)
    }
}

impl fmt::Debug for Es384Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Es384Key")
    }
}
