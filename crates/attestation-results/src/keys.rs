//! The signing keys in a folder, and their rotation.
//!
//! A key is a file `<seconds since 1970>-<thumbprint>.pem`, mode 0600. It is
//! published before it signs, so that relying parties have it by then, and
//! afterwards until the last result that it signed has expired; then its file is
//! removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use thiserror::Error;

use crate::secret_file::{SecretFileError, read_secret, write_secret};
use crate::signing_key::{KeyError, SigningKey};

/// Most keys that a folder may hold: more are not made, and mean that something is wrong.
const MAX_KEYS: usize = 64;
/// Largest key file, in bytes; a P-384 key has some 300.
const MAX_KEY_FILE: u64 = 4096;
/// How much longer than its results a key is published, for clocks that differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Why the keys cannot be used.
#[derive(Debug, Error)]
pub enum KeyRingError {
    /// A file or the folder cannot be used.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A key's file cannot be read, or others can read it.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// A file's name is not a key's.
    #[error("{path} is not named as a key: <seconds since 1970>-<thumbprint>.pem")]
    Name {
        /// Which.
        path: String,
    },
    /// A file is no key.
    #[error("{path}: {error}")]
    Key {
        /// Which.
        path: String,
        /// Why.
        error: KeyError,
    },
    /// Too many files.
    #[error(
        "{path} may hold {MAX_KEYS} keys and no more: those whose results have all expired can go"
    )]
    TooMany {
        /// The folder.
        path: String,
    },
}

/// When keys change.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// The age at which a key gets a successor.
    pub period: Duration,
    /// How long a successor is published before it signs.
    pub publish_ahead: Duration,
    /// How long a result is valid.
    pub token_lifetime: Duration,
}

/// The keys of a folder. All times are in seconds since 1970.
#[derive(Debug)]
pub struct KeyRing {
    folder: PathBuf,
    rotation: Rotation,
    /// Oldest first, and never empty.
    keys: Vec<Entry>,
}

/// What a service signs with and publishes, until the ring changes. All times
/// are in seconds since 1970.
#[derive(Debug)]
pub struct KeySet {
    /// Newest first, with the time from which each signs.
    keys: Vec<(u64, Arc<SigningKey>)>,
    jwks: String,
}

#[derive(Debug)]
struct Entry {
    created: u64,
    path: PathBuf,
    key: Arc<SigningKey>,
}

impl KeyRing {
    /// Reads a folder's keys, makes the folder and a first key if need be.
    pub fn open(folder: &Path, rotation: Rotation, now: u64) -> Result<Self, KeyRingError> {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let mut keys = Vec::new();
        let entries = fs::read_dir(folder).map_err(|error| failed(folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            if path.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            if keys.len() == MAX_KEYS {
                return Err(KeyRingError::TooMany {
                    path: folder.display().to_string(),
                });
            }
            keys.push(read(path)?);
        }
        keys.sort_by_key(|entry| entry.created);
        let mut ring = Self {
            folder: folder.to_owned(),
            rotation,
            keys,
        };
        if ring.keys.is_empty() {
            ring.rotate(now)?;
        }
        ring.maintain(now)?;
        Ok(ring)
    }

    /// Makes a successor if the newest key is old enough, and removes the keys
    /// whose results have all expired. Whether anything changed.
    pub fn maintain(&mut self, now: u64) -> Result<bool, KeyRingError> {
        let mut changed = false;
        let kept = self.rotation.publish_ahead + self.rotation.token_lifetime + CLOCK_SKEW;
        while let [oldest, successor, ..] = self.keys.as_slice() {
            if successor.created.saturating_add(kept.as_secs()) > now {
                break;
            }
            fs::remove_file(&oldest.path).map_err(|error| failed(&oldest.path, error))?;
            self.keys.remove(0);
            changed = true;
        }
        let due = self.keys.last().is_none_or(|newest| {
            newest
                .created
                .saturating_add(self.rotation.period.as_secs())
                <= now
        });
        if due {
            self.rotate(now)?;
            changed = true;
        }
        Ok(changed)
    }

    /// Makes a new key, which signs as soon as it has been published for a while; none if
    /// there are as many as may be, because the folder could not be opened again.
    pub fn rotate(&mut self, now: u64) -> Result<(), KeyRingError> {
        if self.keys.len() >= MAX_KEYS {
            return Err(KeyRingError::TooMany {
                path: self.folder.display().to_string(),
            });
        }
        let (key, pem) = SigningKey::generate().map_err(|error| KeyRingError::Key {
            path: self.folder.display().to_string(),
            error,
        })?;
        // Later than any other, whatever the clock says: the order is by time.
        let created = self
            .keys
            .last()
            .map_or(now, |newest| now.max(newest.created.saturating_add(1)));
        let path = self.folder.join(format!("{created}-{}.pem", key.id()));
        write_secret(&path, pem.as_bytes()).map_err(|error| failed(&path, error))?;
        self.keys.push(Entry {
            created,
            path,
            key: Arc::new(key),
        });
        Ok(())
    }

    /// The keys as they are now.
    pub fn snapshot(&self) -> KeySet {
        let ahead = self.rotation.publish_ahead.as_secs();
        let newest_first = self.keys.iter().rev();
        let jwks: Vec<_> = newest_first.clone().map(|entry| entry.key.jwk()).collect();
        KeySet {
            jwks: json!({ "keys": jwks }).to_string(),
            keys: newest_first
                .map(|entry| (entry.created.saturating_add(ahead), entry.key.clone()))
                .collect(),
        }
    }
}

impl KeySet {
    /// The key that signs now: the newest that has been published for long
    /// enough, or the oldest if none has.
    pub fn signing(&self, now: u64) -> Option<&SigningKey> {
        self.keys
            .iter()
            .find(|(signs_from, _)| *signs_from <= now)
            .or(self.keys.last())
            .map(|(_, key)| &**key)
    }

    /// The public keys as a JWK set (RFC 7517, section 5), newest first.
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// How many keys are published.
    pub fn published(&self) -> usize {
        self.keys.len()
    }
}

fn read(path: PathBuf) -> Result<Entry, KeyRingError> {
    let shown = || path.display().to_string();
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let Some((created, id)) = name.and_then(|name| name.split_once('-')) else {
        return Err(KeyRingError::Name { path: shown() });
    };
    let created = created
        .parse()
        .map_err(|_| KeyRingError::Name { path: shown() })?;
    let pem = read_secret(&path, MAX_KEY_FILE)?;
    let key = std::str::from_utf8(&pem)
        .map_err(|_| KeyError::Pem)
        .and_then(SigningKey::from_pem)
        .map_err(|error| KeyRingError::Key {
            path: shown(),
            error,
        })?;
    if key.id() != id {
        return Err(KeyRingError::Name { path: shown() });
    }
    Ok(Entry {
        created,
        key: Arc::new(key),
        path,
    })
}

fn failed(path: &Path, error: io::Error) -> KeyRingError {
    KeyRingError::Io {
        path: path.display().to_string(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const START: u64 = 1_000_000;
    const DAY: u64 = 86_400;
    const ROTATION: Rotation = Rotation {
        period: Duration::from_secs(30 * DAY),
        publish_ahead: Duration::from_secs(600),
        token_lifetime: Duration::from_secs(300),
    };

    fn id(ring: &KeyRing, now: u64) -> String {
        ring.snapshot().signing(now).unwrap().id().to_owned()
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_successor_is_published_before_it_signs_and_its_predecessor_until_its_results_expired() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        let first = id(&ring, START);
        assert!(!ring.maintain(START + 30 * DAY - 1).unwrap());

        let rotated = START + 30 * DAY;
        assert!(ring.maintain(rotated).unwrap());
        assert_eq!(ring.snapshot().published(), 2);
        assert_eq!(id(&ring, rotated + 599), first);
        let second = id(&ring, rotated + 600);
        assert_ne!(second, first);
        assert!(
            ring.snapshot().jwks().contains(&first) && ring.snapshot().jwks().contains(&second)
        );

        let expired = rotated + 600 + 300 + 60;
        assert!(!ring.maintain(expired - 1).unwrap());
        assert!(ring.maintain(expired).unwrap());
        assert!(!ring.snapshot().jwks().contains(&first));
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn keys_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        ring.rotate(START + 5).unwrap();
        let again = KeyRing::open(folder.path(), ROTATION, START + 6).unwrap();
        assert_eq!(again.snapshot().jwks(), ring.snapshot().jwks());
        assert_eq!(id(&again, START + 6), id(&ring, START + 6));
    }

    #[test]
    fn no_more_keys_are_made_than_can_be_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        for _ in 1..MAX_KEYS {
            ring.rotate(START).unwrap();
        }
        let another = ring.rotate(START);
        assert!(matches!(another, Err(KeyRingError::TooMany { .. })));
        let mut again = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        assert_eq!(files(folder.path()), MAX_KEYS);
        // Old ones go before one is made.
        assert!(again.maintain(START + 31 * DAY).unwrap());
        assert!(files(folder.path()) < MAX_KEYS);
    }

    #[test]
    fn keys_of_one_second_keep_their_order_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        for _ in 0..8 {
            ring.rotate(START).unwrap();
        }
        let again = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        assert_eq!(again.snapshot().jwks(), ring.snapshot().jwks());
    }

    #[test]
    fn a_clock_that_steps_back_leaves_a_key_to_sign_with() {
        let folder = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        assert_eq!(id(&ring, START - DAY), id(&ring, START));
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_another_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(folder.path(), ROTATION, START).unwrap();
        let path = ring.keys[0].path.clone();
        let open = || KeyRing::open(folder.path(), ROTATION, START).map(|_| ());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(), Err(KeyRingError::Secret(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(open().is_ok());

        let (_, another) = SigningKey::generate().unwrap();
        fs::write(&path, another).unwrap();
        assert!(matches!(open(), Err(KeyRingError::Name { .. })));
        fs::write(&path, "no key").unwrap();
        assert!(matches!(open(), Err(KeyRingError::Key { .. })));
        fs::rename(&path, folder.path().join("mine.pem")).unwrap();
        assert!(matches!(open(), Err(KeyRingError::Name { .. })));
    }
}
