//! The instance's files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most bytes of a file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// The instance, whose files all lie under a root.
#[derive(Debug, Clone)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where the file with this absolute path is.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A file's text, without the line end; none if there is no such file.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, String> {
        let file = self.path(path);
        let mut text = String::new();
        let read = fs::File::open(&file)
            .and_then(|opened| opened.take(MAX_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
        }
    }

    /// A number in a file that must be there.
    pub(super) fn number(&self, path: &str) -> Result<u64, String> {
        let text = self.read(path)?.unwrap_or_default();
        text.parse()
            .map_err(|_| format!("{path} holds no number: is this kernel as it should be?"))
    }

    /// The names in a folder; none if there is no such folder.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let folder = self.path(path);
        let names = fs::read_dir(&folder).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
        });
        match names {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(|error| format!("{} cannot be read: {error}", folder.display())),
        }
    }

    /// Writes into a file of the kernel's, whose error says more than that it failed.
    pub(super) fn write(&self, path: &str, value: &str) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.path(path))
            .and_then(|mut opened| opened.write_all(value.as_bytes()))
    }

    /// Writes into a file of the kernel's.
    pub(super) fn set(&self, path: &str, value: &str) -> Result<(), String> {
        let file = self.path(path);
        self.write(path, value).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => ": run it as root",
                _ => "",
            };
            format!(
                "{} takes no `{}`: {error}{advice}",
                file.display(),
                value.trim()
            )
        })
    }

    /// Puts a file in place, whole or not at all, readable by its owner alone if
    /// it is private.
    pub(super) fn put(&self, path: &str, text: &str, is_private: bool) -> Result<(), String> {
        let file = self.path(path);
        let new = file.with_extension("new");
        let mode = if is_private { 0o600 } else { 0o644 };
        let put = || -> io::Result<()> {
            if let Some(folder) = file.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(folder)?;
            }
            // An earlier attempt may have left one.
            remove_if_there(&new)?;
            let mut opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&new)?;
            opened.write_all(text.as_bytes())?;
            opened.sync_all()?;
            fs::rename(&new, &file)
        };
        put().map_err(|error| format!("{} cannot be written: {error}", file.display()))
    }

    pub(super) fn remove(&self, path: &str) -> Result<(), String> {
        let file = self.path(path);
        remove_if_there(&file)
            .map_err(|error| format!("{} cannot be removed: {error}", file.display()))
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The numbers of a list such as `0-3,8`.
pub(super) fn parse_list(text: &str) -> Option<Vec<u32>> {
    /// More than any machine has CPUs.
    const MAX: u32 = 8192;
    let mut numbers = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

/// The list of numbers, as the kernel writes and reads it.
pub(super) fn format_list(numbers: &[u32]) -> String {
    let texts: Vec<_> = numbers.iter().map(u32::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_list("0-3,8").unwrap(), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list("2,6\n").unwrap(), [2, 6]);
        assert_eq!(parse_list("").unwrap(), [0u32; 0]);
        for bad in ["x", "3-1", "1-", "-1", "0-99999999"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
        assert_eq!(format_list(&[1, 3]), "1,3");
    }

    #[test]
    fn a_file_is_put_whole_and_privately() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path().to_owned());
        host.put("/etc/a/b.json", "one", true).unwrap();
        fs::write(host.path("/etc/a/b.new"), "left by a crash").unwrap();
        host.put("/etc/a/b.json", "two", true).unwrap();
        assert_eq!(host.read("/etc/a/b.json").unwrap().unwrap(), "two");
        let mode = fs::metadata(host.path("/etc/a/b.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        host.remove("/etc/a/b.json").unwrap();
        host.remove("/etc/a/b.json").unwrap();
        assert_eq!(host.read("/etc/a/b.json").unwrap(), None);
    }
}
