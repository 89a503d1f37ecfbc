//! The policies of a folder, by name, and their reload.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use attestation::{Policy, PolicyError};
use serde_json::json;
use thiserror::Error;

use crate::watch::{Fingerprint, MAX_FILES};

/// Most policies of a service.
const MAX_POLICIES: usize = 1000;
/// Longest name of a policy, in characters.
pub const MAX_NAME: usize = 64;
/// How often policies are read that change meanwhile, and how long a pause is between.
const ATTEMPTS: u32 = 10;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the policies cannot be used.
#[derive(Debug, Error)]
pub enum PolicySetError {
    /// The folder cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The folder or file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A policy is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A policy cannot be used here.
    #[error("{path}: {reason}")]
    Unusable {
        /// The file.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Files change while they are read.
    #[error(
        "{path} is being written to, and what was read may be half of it: write files elsewhere, and rename them into place"
    )]
    Changing {
        /// The folder.
        path: String,
    },
    /// There are none.
    #[error(
        "{path} holds no policy: put one there as NAME.toml or NAME.json, as docs/attest.md describes"
    )]
    Empty {
        /// The folder.
        path: String,
    },
    /// There are too many.
    #[error("{path} holds more than {limit} files: is this the right folder?")]
    TooMany {
        /// The folder.
        path: String,
        /// How many it may hold.
        limit: usize,
    },
}

/// A policy as the service uses it.
#[derive(Debug)]
pub(crate) struct NamedPolicy {
    pub(crate) policy: Policy,
    /// `sha256:` and the digest of its demands, in hexadecimal.
    pub(crate) digest: String,
}

/// The policies of a folder, by name.
#[derive(Debug)]
pub(crate) struct PolicySet(BTreeMap<String, NamedPolicy>);

impl PolicySet {
    /// Reads all of a folder's policies between two looks that see the same, and gives
    /// what they see; none if the folder keeps changing.
    pub(crate) fn read_unchanging(
        folder: &Path,
    ) -> Option<(Result<Self, PolicySetError>, Fingerprint)> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::park_timeout(ATTEMPT_PAUSE);
            }
            let before = Fingerprint::of(folder);
            let read = if before.is_cut() {
                Err(PolicySetError::TooMany {
                    path: folder.display().to_string(),
                    limit: MAX_FILES,
                })
            } else {
                Self::read(folder)
            };
            if before == Fingerprint::of(folder) {
                return Some((read, before));
            }
        }
        None
    }

    /// Reads all of a folder's policies; one that is wrong makes the set wrong.
    fn read(folder: &Path) -> Result<Self, PolicySetError> {
        let failed = |error| PolicySetError::Io {
            path: folder.display().to_string(),
            error,
        };
        let mut policies = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = policy_name(&path)? else {
                continue;
            };
            let unusable = |reason: &dyn std::fmt::Display| PolicySetError::Unusable {
                path: path.display().to_string(),
                reason: reason.to_string(),
            };
            // A pipe would keep the service waiting, when it starts and when it stops too.
            if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
                return Err(unusable(&"it is not a regular file: remove it"));
            }
            let policy = Policy::read(&path)?;
            check(&policy).map_err(|error| unusable(&error))?;
            let named = NamedPolicy::new(policy);
            if policies.insert(name, named).is_some() {
                return Err(unusable(
                    &"another file has this name: remove one of the two",
                ));
            }
            if policies.len() > MAX_POLICIES {
                return Err(PolicySetError::TooMany {
                    path: folder.display().to_string(),
                    limit: MAX_POLICIES,
                });
            }
        }
        if policies.is_empty() {
            return Err(PolicySetError::Empty {
                path: folder.display().to_string(),
            });
        }
        Ok(Self(policies))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&NamedPolicy> {
        self.0.get(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What `GET /v1/policies` answers.
    pub(crate) fn to_json(&self) -> String {
        let policies: Vec<_> = self
            .0
            .iter()
            .map(|(name, named)| {
                json!({
                    "id": name,
                    "digest": named.digest,
                    "profile": named.policy.profile(),
                    "nonce_required": named.policy.needs_nonce(),
                })
            })
            .collect();
        json!({ "policies": policies }).to_string()
    }
}

impl NamedPolicy {
    pub(crate) fn new(policy: Policy) -> Self {
        let digest = policy.digest();
        Self { policy, digest }
    }
}

/// A policy that demands one fixed nonce accepts one document again and again.
pub(crate) fn check(policy: &Policy) -> Result<(), PolicyError> {
    if policy.fixes_nonce() {
        return Err(PolicyError::FixedNonce);
    }
    Ok(())
}

/// The name of the policy in a file, if it is one: hidden files, folders and
/// files of other kinds are not.
fn policy_name(path: &Path) -> Result<Option<String>, PolicySetError> {
    let text =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str().map(str::to_owned));
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = text(path.extension());
    if hidden || !matches!(extension.as_deref(), Some("toml" | "json")) || path.is_dir() {
        return Ok(None);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text(path.file_stem()) {
        Some(name) if name.len() <= MAX_NAME && name.bytes().all(allowed) => Ok(Some(name)),
        _ => Err(PolicySetError::Unusable {
            path: path.display().to_string(),
            reason: "a policy's name is at most 64 letters, digits, hyphens, underscores and dots: rename the file".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn error(files: &[(&str, &str)]) -> String {
        let folder = folder(files);
        PolicySet::read(folder.path()).unwrap_err().to_string()
    }

    const ANY: &str = "allow_any_image = true\n";

    #[test]
    fn files_are_policies_by_their_name_and_others_are_left_alone() {
        let folder = folder(&[
            ("payments.toml", ANY),
            (
                "Team_2.v1.json",
                r#"{"allow_any_image":true,"nonce":"required"}"#,
            ),
            (".hidden.toml", "no policy"),
            ("README.md", "no policy"),
        ]);
        fs::create_dir(folder.path().join("images.json")).unwrap();
        let set = PolicySet::read(folder.path()).unwrap();
        assert_eq!(set.len(), 2);
        assert!(set.get("Team_2.v1").unwrap().policy.needs_nonce());
        assert!(!set.get("payments").unwrap().policy.needs_nonce());
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_refused_and_says_why() {
        for (files, expected) in [
            (vec![], "holds no policy"),
            (vec![("a.toml", "x = 1")], "a.toml"),
            (vec![("a.toml", ANY), ("b.toml", "")], "names no code"),
            (vec![("a b.toml", ANY)], "rename the file"),
            (
                vec![("a.toml", ANY), ("a.json", r#"{"allow_any_image":true}"#)],
                "another file has this name",
            ),
            (
                vec![("a.toml", "allow_any_image = true\nnonce = \"00ff\"")],
                "fixes a nonce",
            ),
        ] {
            let error = error(&files);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_pipe_is_no_policy_and_is_not_waited_for() {
        let folder = folder(&[("a.toml", "images = [{ file = \"pipe\" }]")]);
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        };
        pipe("pipe");
        let error = PolicySet::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("pipe: it is not a regular file"), "{error}");
        fs::write(folder.path().join("a.toml"), ANY).unwrap();
        pipe("b.toml");
        let error = PolicySet::read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("b.toml: it is not a regular file"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_with_more_files_than_are_watched_is_refused() {
        let folder = folder(&[("a.toml", ANY)]);
        for number in 1..MAX_FILES {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        let read = || PolicySet::read_unchanging(folder.path()).unwrap().0;
        assert!(read().is_ok());
        fs::write(folder.path().join("last"), "").unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("more than 4000 files"), "{error}");
    }

    #[test]
    fn a_folder_is_read_with_what_it_was_then() {
        let folder = folder(&[("a.toml", ANY)]);
        let (read, found) = PolicySet::read_unchanging(folder.path()).unwrap();
        assert_eq!(read.unwrap().len(), 1);
        assert_eq!(found, Fingerprint::of(folder.path()));
        fs::write(folder.path().join("a.toml"), "x = 1").unwrap();
        let (read, other) = PolicySet::read_unchanging(folder.path()).unwrap();
        assert!(read.is_err());
        assert_ne!(found, other);
    }
}
