//! How far each sink has come, kept beside the segments.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::reader::Cursor;

const PREFIX: &str = "cursor-";
const SUFFIX: &str = ".json";
/// Largest file that can be a cursor, in bytes.
const MAX_FILE: u64 = 1024;

/// The file of a sink's cursor. Its name keeps letters, digits, `-` and `.`.
pub(super) fn path(directory: &Path, sink: &str) -> PathBuf {
    let mut name = String::from(PREFIX);
    // Writing to a string cannot fail.
    for byte in sink.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "_{byte:02x}");
        }
    }
    // A long destination still has a name of its own.
    if name.len() > 200 {
        let sum = crc32fast::hash(name.as_bytes());
        name.truncate(180);
        let _ = write!(name, "-{sum:08x}");
    }
    directory.join(name + SUFFIX)
}

/// A cursor: `None` if there is none, an error if it cannot be understood.
pub(super) fn load(path: &Path) -> io::Result<Option<Cursor>> {
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.len() > MAX_FILE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(serde_json::from_slice(&fs::read(path)?)?))
}

/// Replaces a cursor as a whole.
pub(super) fn store(path: &Path, cursor: Cursor) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(&cursor)?)?;
    fs::rename(new, path)
}

/// The files of all cursors, also of sinks that are not in use.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
        {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "file:/var/log/a b");
        assert_eq!(load(&path).unwrap(), None);
        for record in 1..3 {
            let cursor = Cursor { offset: 9, record };
            store(&path, cursor).unwrap();
            assert_eq!(load(&path).unwrap(), Some(cursor));
        }
        assert_eq!(list(folder.path()).unwrap(), std::slice::from_ref(&path));
        fs::write(&path, "").unwrap();
        load(&path).unwrap_err();
        fs::write(&path, " ".repeat(2000)).unwrap();
        load(&path).unwrap_err();
    }

    #[test]
    fn different_sinks_have_different_files() {
        let folder = Path::new("/spool");
        let long = "x".repeat(300);
        let sinks = [
            "file:/a_2f",
            "file:/a/",
            "stdout",
            &long,
            &format!("{long}y"),
        ];
        let paths: std::collections::BTreeSet<_> =
            sinks.iter().map(|sink| path(folder, sink)).collect();
        assert_eq!(paths.len(), sinks.len());
        assert!(paths.iter().all(|path| path.as_os_str().len() < 250));
    }
}
