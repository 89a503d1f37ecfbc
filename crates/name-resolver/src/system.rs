//! The host's configuration, followed while it changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hickory_resolver::TokioResolver;

/// What the resolver's configuration is read from. Its second file the resolver itself reads.
const NAME_SERVERS: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// The host's resolver. When `/etc/resolv.conf` or `/etc/hosts` is replaced, the next lookup
/// goes by the new one; while that cannot be used, by the last one that could.
#[derive(Debug)]
pub struct System(Followed<TokioResolver>);

impl Default for System {
    fn default() -> Self {
        Self(Followed::new([NAME_SERVERS.into(), HOSTS.into()]))
    }
}

impl System {
    /// A resolver with the configuration of this moment, or why there is none. Clones of
    /// one share its cache.
    pub fn resolver(&self) -> Result<TokioResolver, String> {
        self.0.get(|[name_servers, _]| read(name_servers))
    }
}

fn read(name_servers: &Path) -> Result<TokioResolver, String> {
    let about = |error: &dyn ToString| format!("{}: {}", name_servers.display(), error.to_string());
    let text = fs::read(name_servers).map_err(|error| about(&error))?;
    let (config, options) =
        hickory_resolver::system_conf::parse_resolv_conf(text).map_err(|error| about(&error))?;
    crate::build(config, options)
}

/// What is made of two files, and made again when they have changed.
#[derive(Debug)]
struct Followed<T> {
    files: [PathBuf; 2],
    last: Mutex<Option<Made<T>>>,
}

#[derive(Debug)]
struct Made<T> {
    value: T,
    of: [Option<Stamp>; 2],
}

/// What tells a file from the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Clone> Followed<T> {
    fn new(files: [PathBuf; 2]) -> Self {
        Self {
            files,
            last: Mutex::default(),
        }
    }

    fn get(&self, make: impl FnOnce(&[PathBuf; 2]) -> Result<T, String>) -> Result<T, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: what changes meanwhile is read the next time.
        let of = self.files.each_ref().map(|file| stamp(file));
        match &*last {
            Some(last) if last.of == of => return Ok(last.value.clone()),
            _ => {}
        }
        match (make(&self.files), &*last) {
            (Ok(value), _) => {
                *last = Some(Made {
                    value: value.clone(),
                    of,
                });
                Ok(value)
            }
            // It may be written at this very moment.
            (Err(_), Some(last)) => Ok(last.value.clone()),
            (Err(error), None) => Err(error),
        }
    }
}

/// None for a file that is not there, or cannot be looked at.
fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some(Stamp {
        place: (file.dev(), file.ino()),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_again_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let followed = Followed::new([path.clone(), folder.path().join("hosts")]);
        let get = || {
            followed.get(|[path, _]| match fs::read_to_string(path) {
                Ok(text) if !text.is_empty() => Ok(text),
                result => Err(format!("{result:?}")),
            })
        };
        // Without a configuration at first, as on an instance whose network comes later.
        get().unwrap_err();
        fs::write(&path, "first").unwrap();
        assert_eq!(get().unwrap(), "first");
        // Replaced by another file of the same size.
        let next = folder.path().join("next");
        fs::write(&next, "other").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(get().unwrap(), "other");
        // While there is none, and while it is being written, the last one serves.
        fs::remove_file(&path).unwrap();
        assert_eq!(get().unwrap(), "other");
        fs::write(&path, "").unwrap();
        assert_eq!(get().unwrap(), "other");
        fs::write(&path, "third one").unwrap();
        assert_eq!(get().unwrap(), "third one");
        // Nothing is read without need.
        let kept = followed.get(|_| Err("read again".to_owned()));
        assert_eq!(kept.unwrap(), "third one");
        fs::write(folder.path().join("hosts"), "").unwrap();
        assert_eq!(followed.get(|_| Ok("anew".to_owned())).unwrap(), "anew");
    }

    #[tokio::test]
    async fn name_servers_of_the_file_make_a_resolver() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let error = read(&path).err().unwrap();
        assert!(error.contains("resolv.conf: No such file"), "{error}");
        fs::write(&path, "# nothing\n").unwrap();
        assert!(read(&path).is_err());
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert!(read(&path).is_ok());
    }
}
