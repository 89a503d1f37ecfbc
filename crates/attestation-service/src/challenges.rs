//! Challenges: nonces that this service issued, for one verification each.
//!
//! A nonce carries its own expiry under a MAC, so that issuing one stores
//! nothing, and nobody can fill the disk by asking for many. What is stored is
//! that one has been used: see the module `store`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation_results::{SecretFileError, read_secret, write_secret};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;
use thiserror::Error;

/// Bytes of a challenge's nonce: few enough for `eat_nonce` (at most 64).
pub(crate) const NONCE_BYTES: usize = RANDOM_BYTES + EXPIRY_BYTES + MAC_BYTES;

const RANDOM_BYTES: usize = 16;
/// Milliseconds since 1970, big-endian.
const EXPIRY_BYTES: usize = 8;
/// Of two MACs, each cut to half its size, which 128 bits are enough for: the first
/// says that the service issued the challenge, the second for which policy.
const MAC_BYTES: usize = 2 * HALF_MAC;
const HALF_MAC: usize = 16;
const KEY_BYTES: usize = 32;
/// Largest file that is read to see that it is no key, in bytes.
const MAX_KEY_FILE: u64 = 4096;
/// What the MACs are for; it ends where the nonce begins.
const ISSUED: &[u8] = b"attest serve: challenge 2, issued\0";
const BOUND: &[u8] = b"attest serve: challenge 2, bound\0";

/// Why the key of challenges cannot be used.
#[derive(Debug, Error)]
pub enum ChallengeKeyError {
    /// The file cannot be written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The file cannot be read, or others can read it.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The file is something else.
    #[error(
        "{path} does not have {KEY_BYTES} bytes: remove it, and challenges that are open become void"
    )]
    Size {
        /// The file.
        path: String,
    },
    /// There is no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// Why a nonce is no open challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChallengeError {
    /// This service did not issue it, or for another policy.
    Unknown,
    /// It is too old.
    Expired,
}

/// Issues and recognises challenges.
#[derive(Debug)]
pub(crate) struct Challenges {
    key: hmac::Key,
    lifetime: Duration,
}

/// A challenge as it is issued.
#[derive(Debug)]
pub(crate) struct Challenge {
    pub(crate) nonce: [u8; NONCE_BYTES],
    /// In milliseconds since 1970.
    pub(crate) expires_ms: u64,
}

/// What a challenge is remembered by once it was used. In the order of these
/// bytes, those that expire first come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChallengeId(pub(crate) [u8; EXPIRY_BYTES + RANDOM_BYTES]);

impl ChallengeId {
    /// The least id of a challenge that expires at this time.
    pub(crate) fn first_of(expires_ms: u64) -> Self {
        let mut id = [0; EXPIRY_BYTES + RANDOM_BYTES];
        for (to, from) in id.iter_mut().zip(expires_ms.to_be_bytes()) {
            *to = from;
        }
        Self(id)
    }
}

impl Challenges {
    /// Reads the key, or makes it; challenges are open for this long.
    pub(crate) fn open(file: &Path, lifetime: Duration) -> Result<Self, ChallengeKeyError> {
        let failed = |error| ChallengeKeyError::Io {
            path: file.display().to_string(),
            error,
        };
        let key = match read_secret(file, MAX_KEY_FILE) {
            Ok(key) => key,
            Err(SecretFileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                rand::fill(&mut key).map_err(|_| ChallengeKeyError::Random)?;
                write_secret(file, &key).map_err(failed)?;
                key.to_vec()
            }
            Err(error) => return Err(error.into()),
        };
        if key.len() != KEY_BYTES {
            return Err(ChallengeKeyError::Size {
                path: file.display().to_string(),
            });
        }
        Ok(Self {
            key: hmac::Key::new(HMAC_SHA256, &key),
            lifetime,
        })
    }

    /// A new challenge, for documents under this policy or under any.
    pub(crate) fn issue(
        &self,
        policy: Option<&str>,
        now_ms: u64,
    ) -> Result<Challenge, ChallengeKeyError> {
        let lifetime = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now_ms.saturating_add(lifetime);
        let mut nonce = [0; NONCE_BYTES];
        let (random, rest) = nonce.split_at_mut(RANDOM_BYTES);
        let (expiry, mac) = rest.split_at_mut(EXPIRY_BYTES);
        rand::fill(random).map_err(|_| ChallengeKeyError::Random)?;
        expiry.copy_from_slice(&expires_ms.to_be_bytes());
        let (issued, bound) = mac.split_at_mut(HALF_MAC);
        issued.copy_from_slice(&self.issued(random, expiry));
        bound.copy_from_slice(&self.bound(random, expiry, policy));
        Ok(Challenge { nonce, expires_ms })
    }

    /// The id of an open challenge for this policy, or for any.
    pub(crate) fn check(
        &self,
        nonce: &[u8],
        policy: Option<&str>,
        now_ms: u64,
    ) -> Result<ChallengeId, ChallengeError> {
        let Some((random, expiry, bound)) = self.parts(nonce) else {
            return Err(ChallengeError::Unknown);
        };
        let is_for = |policy| equal(&self.bound(random, expiry, policy), bound);
        if !(is_for(None) || policy.is_some() && is_for(policy)) {
            return Err(ChallengeError::Unknown);
        }
        let expires_ms = expiry.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
        if expires_ms <= now_ms {
            return Err(ChallengeError::Expired);
        }
        let mut id = ChallengeId::first_of(expires_ms);
        for (to, from) in id.0.iter_mut().skip(EXPIRY_BYTES).zip(random) {
            *to = *from;
        }
        Ok(id)
    }

    /// Whether this service issued this nonce, for whatever policy and however long
    /// ago.
    pub(crate) fn issued_this(&self, nonce: &[u8]) -> bool {
        self.parts(nonce).is_some()
    }

    /// Random bytes, expiry and the policy's MAC of a nonce that this service issued.
    fn parts<'a>(&self, nonce: &'a [u8]) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
        if nonce.len() != NONCE_BYTES {
            return None;
        }
        let (random, rest) = nonce.split_at_checked(RANDOM_BYTES)?;
        let (expiry, macs) = rest.split_at_checked(EXPIRY_BYTES)?;
        let (issued, bound) = macs.split_at_checked(HALF_MAC)?;
        equal(&self.issued(random, expiry), issued).then_some((random, expiry, bound))
    }

    fn issued(&self, random: &[u8], expiry: &[u8]) -> [u8; HALF_MAC] {
        self.mac(&[ISSUED, random, expiry])
    }

    /// The policy comes last: all before it is of fixed size.
    fn bound(&self, random: &[u8], expiry: &[u8], policy: Option<&str>) -> [u8; HALF_MAC] {
        let bound: &[u8] = if policy.is_some() { b"\x01" } else { b"\x00" };
        let policy = policy.unwrap_or_default().as_bytes();
        self.mac(&[BOUND, random, expiry, bound, policy])
    }

    fn mac(&self, message: &[&[u8]]) -> [u8; HALF_MAC] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in message {
            context.update(part);
        }
        let mut half = [0; HALF_MAC];
        for (to, from) in half.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        half
    }
}

/// In a time that does not depend on where they differ.
fn equal(mac: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(mac, other).is_ok()
}

/// Where the key is within the service's folder.
pub(crate) fn key_file(data: &Path) -> PathBuf {
    data.join("challenge.key")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn challenges() -> (tempfile::TempDir, Challenges) {
        let folder = tempfile::tempdir().unwrap();
        let challenges =
            Challenges::open(&key_file(folder.path()), Duration::from_secs(60)).unwrap();
        (folder, challenges)
    }

    #[test]
    fn a_challenge_is_known_until_it_expires_and_after_a_restart() {
        let (folder, challenges) = challenges();
        let challenge = challenges.issue(None, NOW).unwrap();
        let again = Challenges::open(&key_file(folder.path()), Duration::from_secs(5)).unwrap();
        let nonce = &challenge.nonce;
        let id = again.check(nonce, None, NOW + 59_999).unwrap();
        assert_eq!(id.0[..8], (NOW + 60_000).to_be_bytes());
        assert_eq!(
            again.check(nonce, None, NOW + 60_000),
            Err(ChallengeError::Expired)
        );
    }

    #[test]
    fn no_bit_of_a_challenge_can_be_changed() {
        let (_folder, challenges) = challenges();
        let nonce = challenges.issue(None, NOW).unwrap().nonce;
        for bit in 0..NONCE_BYTES * 8 {
            let mut forged = nonce;
            forged[bit / 8] ^= 1 << (bit % 8);
            let result = challenges.check(&forged, None, NOW);
            assert_eq!(result, Err(ChallengeError::Unknown), "bit {bit}");
        }
        for size in 0..NONCE_BYTES {
            assert!(challenges.check(&nonce[..size], None, NOW).is_err());
        }
    }

    #[test]
    fn a_challenge_for_a_policy_is_for_no_other() {
        let (_folder, challenges) = challenges();
        let bound = challenges.issue(Some("payments"), NOW).unwrap().nonce;
        assert!(challenges.check(&bound, Some("payments"), NOW).is_ok());
        for other in [None, Some(""), Some("payment"), Some("payments2")] {
            assert!(challenges.check(&bound, other, NOW).is_err(), "{other:?}");
        }
        let free = challenges.issue(None, NOW).unwrap().nonce;
        assert!(challenges.check(&free, Some("payments"), NOW).is_ok());
        assert!(challenges.check(&free, None, NOW).is_ok());
    }

    #[test]
    fn a_challenge_is_recognised_whatever_it_is_for_and_however_old_it_is() {
        let (_folder, challenges) = challenges();
        for policy in [None, Some("payments")] {
            let mut nonce = challenges.issue(policy, 0).unwrap().nonce;
            assert!(challenges.issued_this(&nonce));
            assert!(!challenges.issued_this(&nonce[1..]));
            nonce[0] ^= 1;
            assert!(!challenges.issued_this(&nonce));
        }
        assert!(!challenges.issued_this(&[0; NONCE_BYTES]));
    }

    #[test]
    fn another_service_does_not_know_it() {
        let (_folder, ours) = challenges();
        let (_other_folder, theirs) = challenges();
        let nonce = theirs.issue(None, NOW).unwrap().nonce;
        assert_eq!(ours.check(&nonce, None, NOW), Err(ChallengeError::Unknown));
    }

    #[test]
    fn a_key_file_of_another_size_or_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = key_file(folder.path());
        let open = || Challenges::open(&file, Duration::from_secs(60)).map(|_| ());
        write_secret(&file, &[0; 31]).unwrap();
        assert!(matches!(open(), Err(ChallengeKeyError::Size { .. })));
        write_secret(&file, &[0; KEY_BYTES]).unwrap();
        assert!(open().is_ok());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(), Err(ChallengeKeyError::Secret(_))));
    }
}
