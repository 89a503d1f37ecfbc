//! Secrets as files, in a file system in memory that the workload can only read.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use manifest::{SecretFile, User};
use zeroize::Zeroizing;

use crate::error::{Doing, InitError};

/// Puts the value into the folder in place of the file that is there: who opens it finds
/// the whole of one value or of the other.
pub(super) fn write(
    folder: &Path,
    file: &SecretFile,
    owner: Option<User>,
    value: &[u8],
) -> Result<(), InitError> {
    let name = file.path.file_name();
    // No secret's name begins with a dot.
    let new = folder.join(format!(".{name}"));
    write_new(&new, file.mode.bits(), owner, value)
        .and_then(|()| fs::rename(&new, folder.join(name)))
        .doing(|| format!("writing {}", file.path))
}

/// Whether the file that is there has this value.
pub(super) fn has(folder: &Path, file: &SecretFile, value: &[u8]) -> Result<bool, InitError> {
    let found = fs::read(folder.join(file.path.file_name())).map(Zeroizing::new);
    let found = found.doing(|| format!("reading {}", file.path))?;
    Ok(*found == value)
}

fn write_new(path: &Path, mode: u32, owner: Option<User>, value: &[u8]) -> io::Result<()> {
    // One that was left half-written must not be in the way.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(value)?;
    if let Some(User { uid, gid }) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use nix::unistd::{getgid, getuid};

    use super::*;

    fn file(mode: &str) -> SecretFile {
        serde_json::from_value(serde_json::json!({
            "path": "/run/secrets/password",
            "mode": mode,
        }))
        .unwrap()
    }

    #[test]
    fn secrets_files_have_their_mode_and_owner() {
        let folder = tempfile::tempdir().unwrap();
        let owner = User {
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
        };
        for mode in ["0400", "0440", "0444"] {
            write(folder.path(), &file(mode), Some(owner), b"value").unwrap();
            let found = fs::metadata(folder.path().join("password")).unwrap();
            assert_eq!(format!("{:04o}", found.mode() & 0o7777), mode);
            assert_eq!((found.uid(), found.gid()), (owner.uid, owner.gid));
        }
    }

    #[test]
    fn secrets_files_are_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        // As a write that was cut off leaves it.
        fs::write(folder.path().join(".password"), "ol").unwrap();
        write(folder.path(), &file("0400"), None, b"old value").unwrap();
        let mut open = File::open(&path).unwrap();
        write(folder.path(), &file("0400"), None, b"new").unwrap();
        let mut old = String::new();
        open.read_to_string(&mut old).unwrap();
        assert_eq!(old, "old value");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(has(folder.path(), &file("0400"), b"new").unwrap());
        assert!(!has(folder.path(), &file("0400"), b"old").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn secrets_files_that_cannot_be_written_leave_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &file("0400"), None, b"old").unwrap();
        fs::create_dir(folder.path().join(".password")).unwrap();
        let error = write(folder.path(), &file("0400"), None, b"secret value").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("/run/secrets/password"), "{error}");
        assert!(!error.contains("secret value"), "{error}");
        let kept = fs::read_to_string(folder.path().join("password")).unwrap();
        assert_eq!(kept, "old");
    }
}
