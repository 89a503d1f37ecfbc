//! Files that only their owner reads.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use thiserror::Error;

/// What a secret's file may allow: nothing to its group and to others.
const OTHERS: u32 = 0o077;

/// Why a secret cannot be used.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Others may read or change it.
    #[error(
        "{path} can be read or changed by others (mode {mode:03o}): run chmod 600 on it, or remove it if it may be compromised"
    )]
    Open {
        /// The file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("{path} has more than {limit} bytes, and is no secret of this kind")]
    Size {
        /// The file.
        path: String,
        /// How large it may be.
        limit: u64,
    },
}

/// Reads a file of at most so many bytes that only its owner may read and change.
pub fn read_secret(path: &Path, limit: u64) -> Result<Vec<u8>, SecretFileError> {
    let shown = || path.display().to_string();
    let failed = |error| SecretFileError::Io {
        path: shown(),
        error,
    };
    // A pipe would be waited for.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    // The permissions are those of the file that is read, whatever its name leads to.
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(SecretFileError::Open {
            path: shown(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    let mut start = file.take(limit.saturating_add(1));
    start.read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(SecretFileError::Size {
            path: shown(),
            limit,
        });
    }
    Ok(bytes)
}

/// Writes a file that only its owner reads, whole or not at all, and for good: the
/// signing keys, and other secrets of whoever signs.
pub fn write_secret(path: &Path, contents: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    // It may have been there.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(path.with_extension("unfinished"), "left behind").unwrap();
        write_secret(&path, b"secret").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(read_secret(&path, 6).unwrap(), b"secret");
        let size = read_secret(&path, 5);
        assert!(matches!(size, Err(SecretFileError::Size { .. })));
        for mode in [0o640, 0o620, 0o604, 0o602, 0o610, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&path, 6).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read_secret(&path, 6).is_ok());
        let pipe = folder.path().join("pipe");
        let status = Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(&pipe)
            .status();
        assert!(status.unwrap().success());
        let error = read_secret(&pipe, 6).unwrap_err().to_string();
        assert!(error.ends_with("it is not a regular file"), "{error}");
    }
}
