//! Root file systems without a container image around them, as `debootstrap` makes one in a
//! folder and `docker export` writes one as an archive.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, ResolveFlags, getxattr, listxattr, openat2, readlinkat};
use rustix::io::Errno;

use crate::error::ImageError;
use crate::large_file::LargeFile;
use crate::layer;
use crate::left_out::Attributes;
use crate::list::list;
use crate::node::{Content, Metadata};
use crate::path::push;
use crate::spool::{Spool, SpoolError};
use crate::stored::open;
use crate::tree::{MAX_ENTRIES, Tree, TreeError};

/// Largest list of names of attributes (Linux, `XATTR_LIST_MAX`), and more than a value of
/// the only one that is read.
const MAX_ATTRIBUTES: usize = 64 * 1024;
const CAPABILITY: &[u8] = b"security.capability";
/// The label that this machine's own policy gives every file.
const SELINUX: &[u8] = b"security.selinux";
/// Most files that a note names.
const MOST_NAMED: usize = 3;

/// The files of an archive, which may be compressed.
pub(crate) fn read_archive(
    path: &Path,
    spool: &mut Spool,
    tree: &mut Tree,
) -> Result<(), ImageError> {
    let archive = layer::unpack_unchecked(open(path)?, spool)?;
    layer::add_all(spool, archive, tree)
}

/// The files of a folder, with their owners and modes as they are there. Gives what should
/// be known of them.
pub(crate) fn read_folder(
    folder: &Path,
    spool: &mut Spool,
    tree: &mut Tree,
) -> Result<Option<String>, ImageError> {
    let root = File::open(folder).map_err(about(folder))?;
    let mut reading = Reading {
        folder,
        root,
        builder: spool.owner().map_err(ImageError::Temporary)?,
        links: BTreeMap::new(),
        pending: vec![Vec::new()],
        spool,
        tree,
        of_builder: Vec::new(),
    };
    reading.add(b"")?;
    while let Some(path) = reading.pending.pop() {
        reading.read_children(&path)?;
    }
    Ok(reading.note())
}

/// A folder that is being read, perhaps while others write to it: what was seen is what is
/// read, and no link or mount leads out of it.
struct Reading<'a> {
    folder: &'a Path,
    root: File,
    /// The user who builds.
    builder: u32,
    /// The first name of each file that has several, by file system and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    /// Folders that are still to be read.
    pending: Vec<Vec<u8>>,
    spool: &'a mut Spool,
    tree: &'a mut Tree,
    /// What belongs to the builder.
    of_builder: Vec<Vec<u8>>,
}

impl Reading<'_> {
    fn read_children(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let folder = self.seen(path)?;
        if !folder.metadata.is_dir() {
            return Err(changed(&folder.path));
        }
        let entries = fs::read_dir(folder.link()).map_err(about(&folder.path))?;
        let mut names = Vec::new();
        for entry in entries {
            if names.len() >= MAX_ENTRIES {
                return Err(invalid(path, &TreeError::Entries));
            }
            let entry = entry.map_err(about(&folder.path))?;
            names.push(entry.file_name().into_vec());
        }
        names.sort();
        for name in names {
            let mut path = path.to_vec();
            push(&mut path, &name);
            self.add(&path)?;
        }
        Ok(())
    }

    /// What is at a path now. It is not opened for reading: of a pipe or device that would
    /// have effects.
    fn seen(&self, path: &[u8]) -> Result<Seen, ImageError> {
        let name = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&self.root, name, flags, Mode::empty(), resolve);
        let path = self.folder.join(OsStr::from_bytes(path));
        match file {
            Ok(file) => {
                let file = File::from(file);
                let metadata = file.metadata().map_err(about(&path))?;
                Ok(Seen {
                    path,
                    file,
                    metadata,
                })
            }
            Err(Errno::XDEV) => Err(ImageError::Invalid(format!(
                "a file system or file is mounted at /{} in it: unmount it",
                String::from_utf8_lossy(name)
            ))),
            Err(Errno::LOOP) => Err(changed(&path)),
            Err(error) => Err(about(&path)(error.into())),
        }
    }

    fn add(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let seen = self.seen(path)?;
        let found = &seen.metadata;
        let kind = found.file_type();
        let metadata = Metadata {
            permissions: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
        };
        let inode = (found.dev(), found.ino());
        let is_linked = !kind.is_dir() && found.nlink() > 1;
        let added = if let Some(first) = self.links.get(&inode).filter(|_| is_linked) {
            self.tree.hard_link(path, first)
        } else if kind.is_dir() {
            self.pending.push(path.to_vec());
            let name = if path.is_empty() { b"." } else { path };
            self.tree.directory(name, metadata)
        } else if kind.is_symlink() {
            let target = readlinkat(&seen.file, "", Vec::new());
            let target = target.map_err(|error| about(&seen.path)(error.into()))?;
            self.tree.symlink(path, metadata, target.into_bytes())
        } else if kind.is_file() {
            let content = self.copy(path, &seen)?;
            self.tree.file(path, metadata, content)
        } else if kind.is_fifo() {
            self.tree.fifo(path, metadata)
        } else if kind.is_socket() {
            self.tree.socket(path)
        } else {
            self.tree.device(path)
        };
        let is_kept = kind.is_dir() || kind.is_file() || kind.is_symlink() || kind.is_fifo();
        added
            .and_then(|()| {
                if is_kept {
                    self.tree.attributes(path, &attributes(&seen.link()))?;
                }
                Ok(())
            })
            .map_err(|error| invalid(path, &error))?;
        if is_linked {
            self.links.entry(inode).or_insert_with(|| path.to_vec());
        }
        if metadata.uid == self.builder && self.builder != 0 {
            self.of_builder.push(path.to_vec());
        }
        Ok(())
    }

    /// Copies a file, of which the size is known before anything is copied.
    fn copy(&mut self, path: &[u8], seen: &Seen) -> Result<Content, ImageError> {
        let size = seen.metadata.len();
        if size > self.spool.left() {
            return Err(ImageError::Full(Some(LargeFile::new(path, size))));
        }
        let reader = File::open(seen.link()).map_err(about(&seen.path))?;
        let content = self.spool.append(&reader).map_err(|error| match error {
            SpoolError::Source(source) => about(&seen.path)(source),
            SpoolError::Temporary(source) => ImageError::Temporary(source),
            SpoolError::Full => ImageError::Full(Some(LargeFile::new(path, size))),
        })?;
        let after = reader.metadata().map_err(about(&seen.path))?;
        if state(&after) != state(&seen.metadata) || content.size != size {
            return Err(changed(&seen.path));
        }
        Ok(content)
    }

    fn note(&self) -> Option<String> {
        let paths = self.of_builder.iter();
        let paths = paths.map(|path| format!("/{}", String::from_utf8_lossy(path)));
        let listed = list(paths, MOST_NAMED)?;
        Some(format!(
            "files belong to user {}, who builds the image, and will in the enclave: {listed}; where that is not meant, make the root file system as root, or an archive of it for `rootfs-archive:`",
            self.builder
        ))
    }
}

/// A file of any kind that stays the same, whatever its path leads to later.
struct Seen {
    path: PathBuf,
    file: File,
    metadata: fs::Metadata,
}

impl Seen {
    /// The path that leads to this very file.
    fn link(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// What changes with a file's contents, its owners or its mode.
fn state(metadata: &fs::Metadata) -> (u64, i64, i64) {
    (metadata.len(), metadata.ctime(), metadata.ctime_nsec())
}

fn changed(path: &Path) -> ImageError {
    let path = path.display();
    ImageError::Invalid(format!(
        "{path} has changed while it was read: build when nothing writes there"
    ))
}

/// The extended attributes of a file; none where its file system has none.
fn attributes(file: &Path) -> Attributes {
    let mut attributes = Attributes::default();
    let names = read_attribute(|buffer| listxattr(file, spare_capacity(buffer)));
    for name in names.split(|&byte| byte == 0) {
        if name.is_empty() || name == SELINUX {
            continue;
        }
        let value = if name == CAPABILITY {
            read_attribute(|buffer| getxattr(file, name, spare_capacity(buffer)))
        } else {
            Vec::new()
        };
        // Linux has no longer names than may be here.
        let _ = attributes.set(name, &value);
    }
    attributes
}

fn read_attribute(read: impl FnOnce(&mut Vec<u8>) -> Result<usize, Errno>) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(MAX_ATTRIBUTES);
    match read(&mut buffer) {
        Ok(_) => buffer,
        Err(_) => Vec::new(),
    }
}

fn about(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = Some(path.to_owned());
    move |source| ImageError::Read { path, source }
}

fn invalid(path: &[u8], error: &TreeError) -> ImageError {
    let path = String::from_utf8_lossy(path);
    ImageError::Invalid(format!("/{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is said of a folder that is changed after `d` and `d/x` in it were seen.
    fn changed_after_it_was_seen(change: impl FnOnce(&Path)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("d")).unwrap();
        fs::create_dir(path.join("other")).unwrap();
        fs::write(path.join("d/x"), "1").unwrap();
        fs::write(path.join("other/x"), "secret").unwrap();
        let mut reading = Reading {
            folder: path,
            root: File::open(path).unwrap(),
            builder: 0,
            links: BTreeMap::new(),
            pending: Vec::new(),
            spool: &mut Spool::new(1024).unwrap(),
            tree: &mut Tree::default(),
            of_builder: Vec::new(),
        };
        let seen = reading.seen(b"d/x").unwrap();
        change(path);
        let copied = reading.copy(b"d/x", &seen).map(drop);
        match copied.and_then(|()| reading.read_children(b"d")) {
            Err(ImageError::Invalid(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rootfs_that_changes_while_it_is_read_is_refused() {
        let changed = "has changed while it was read";
        let reason = changed_after_it_was_seen(|path| {
            fs::rename(path.join("d"), path.join("before")).unwrap();
            symlink("other", path.join("d")).unwrap();
        });
        assert!(reason.contains(&format!("/d {changed}")), "{reason}");
        for contents in ["2", "22"] {
            let reason = changed_after_it_was_seen(|path| {
                let file = path.join("d/x");
                let now = || state(&fs::metadata(&file).unwrap());
                let before = now();
                // The clock of files goes in steps.
                while now() == before {
                    fs::write(&file, contents).unwrap();
                }
            });
            assert!(reason.contains(&format!("/d/x {changed}")), "{reason}");
        }
    }
}
