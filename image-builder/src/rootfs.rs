//! Root file systems without a container image around them, as `debootstrap` makes one in a
//! folder and `docker export` writes one as an archive.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::error::ImageError;
use crate::large_file::LargeFile;
use crate::layer;
use crate::left_out::Attributes;
use crate::list::list;
use crate::node::Metadata;
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
    let root = fs::metadata(folder).map_err(about(folder))?;
    let mut reading = Reading {
        folder,
        device: root.dev(),
        builder: spool.owner().map_err(ImageError::Temporary)?,
        links: BTreeMap::new(),
        pending: vec![Vec::new()],
        spool,
        tree,
        of_builder: Vec::new(),
    };
    reading.add(b"", &root)?;
    while let Some(path) = reading.pending.pop() {
        reading.read_children(&path)?;
    }
    Ok(reading.note())
}

/// A folder that is being read.
struct Reading<'a> {
    folder: &'a Path,
    /// The file system that it is on.
    device: u64,
    /// The user who builds.
    builder: u32,
    /// The first name of each file that has several.
    links: BTreeMap<u64, Vec<u8>>,
    /// Folders that are still to be read.
    pending: Vec<Vec<u8>>,
    spool: &'a mut Spool,
    tree: &'a mut Tree,
    /// What belongs to the builder.
    of_builder: Vec<Vec<u8>>,
}

impl Reading<'_> {
    fn read_children(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let folder = self.folder.join(OsStr::from_bytes(path));
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(about(&folder))? {
            if names.len() >= MAX_ENTRIES {
                return Err(invalid(path, &TreeError::Entries));
            }
            let entry = entry.map_err(about(&folder))?;
            names.push(entry.file_name().into_vec());
        }
        names.sort();
        for name in names {
            let mut path = path.to_vec();
            push(&mut path, &name);
            let file = self.folder.join(OsStr::from_bytes(&path));
            let metadata = fs::symlink_metadata(&file).map_err(about(&file))?;
            self.add(&path, &metadata)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &[u8], found: &fs::Metadata) -> Result<(), ImageError> {
        let kind = found.file_type();
        let metadata = Metadata {
            permissions: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
        };
        let file = self.folder.join(OsStr::from_bytes(path));
        let is_linked = !kind.is_dir() && found.nlink() > 1;
        let added = if let Some(first) = self.links.get(&found.ino()).filter(|_| is_linked) {
            self.tree.hard_link(path, first)
        } else if kind.is_dir() {
            if found.dev() != self.device {
                return Err(ImageError::Invalid(format!(
                    "/{} in it is another file system, which is mounted there: unmount it",
                    String::from_utf8_lossy(path)
                )));
            }
            self.pending.push(path.to_vec());
            let name = if path.is_empty() { b"." } else { path };
            self.tree.directory(name, metadata)
        } else if kind.is_symlink() {
            let target = fs::read_link(&file).map_err(about(&file))?;
            let target = target.into_os_string().into_vec();
            self.tree.symlink(path, metadata, target)
        } else if kind.is_file() {
            let content = self.copy(path, &file, found.len())?;
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
                    self.tree.attributes(path, &attributes(&file))?;
                }
                Ok(())
            })
            .map_err(|error| invalid(path, &error))?;
        if is_linked {
            self.links
                .entry(found.ino())
                .or_insert_with(|| path.to_vec());
        }
        if metadata.uid == self.builder && self.builder != 0 {
            self.of_builder.push(path.to_vec());
        }
        Ok(())
    }

    /// Copies a file, of which the size is known before anything is copied.
    fn copy(
        &mut self,
        path: &[u8],
        file: &Path,
        size: u64,
    ) -> Result<crate::node::Content, ImageError> {
        if size > self.spool.left() {
            return Err(ImageError::Full(Some(LargeFile::new(path, size))));
        }
        let reader = File::open(file).map_err(about(file))?;
        self.spool.append(reader).map_err(|error| match error {
            SpoolError::Source(source) => about(file)(source),
            SpoolError::Temporary(source) => ImageError::Temporary(source),
            SpoolError::Full => ImageError::Full(Some(LargeFile::new(path, size))),
        })
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

/// The extended attributes of a file; none where its file system has none.
fn attributes(file: &Path) -> Attributes {
    let mut attributes = Attributes::default();
    let names = read_attribute(|buffer| llistxattr(file, spare_capacity(buffer)));
    for name in names.split(|&byte| byte == 0) {
        if name.is_empty() || name == SELINUX {
            continue;
        }
        let value = if name == CAPABILITY {
            read_attribute(|buffer| lgetxattr(file, name, spare_capacity(buffer)))
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
