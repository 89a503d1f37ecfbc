//! What the entries of one archive put into a tree.
//!
//! Programs that read an archive which says two things of one path differ on which counts:
//! container runtimes take the last, others, scanners among them, the first, and some apply a
//! whiteout to what comes before it. Such archives are refused, because what was examined has
//! to be what runs. Nothing that makes images writes them.

use std::collections::BTreeSet;
use std::io::{self, Read};

use thiserror::Error;

use crate::archive::{Entry, Type};
use crate::error::ImageError;
use crate::node::{Content, Kind, Metadata, Node};
use crate::path::{has_below, parent};
use crate::tree::{Tree, TreeError};

/// What to do about an archive that says two things.
const ADVICE: &str = "programs differ on which of them counts: make it with one of them";
/// Bytes that are compared at a time.
const COMPARED: usize = 16 * 1024;

/// Why an entry cannot be in the tree.
#[derive(Debug, Error)]
pub(crate) enum EntryError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("another entry before it has the same name and is not the same; {ADVICE}")]
    Twice,
    #[error("entries before it are below it, but it is not a directory; {ADVICE}")]
    Replaces,
    #[error("it is a whiteout for what the same layer has before it; {ADVICE}")]
    Whiteout,
}

/// The paths without links that an archive has written, in the order of its entries.
#[derive(Debug, Default)]
pub(crate) struct Written {
    entries: BTreeSet<Vec<u8>>,
    /// Directories that are only in the paths of entries.
    implied: BTreeSet<Vec<u8>>,
}

impl Written {
    /// Puts an entry into the tree. `read` reads what files have.
    pub(crate) fn add<R: Read>(
        &mut self,
        entry: &Entry,
        tree: &mut Tree,
        read: &dyn Fn(Content) -> R,
    ) -> Result<(), EntryError> {
        let path = tree.entry_path(&entry.name)?;
        let is_again = self.entries.contains(&path);
        if is_again && !is_same(entry, &path, tree, read)? {
            return Err(EntryError::Twice);
        }
        if entry.kind != Type::Directory && self.implied.contains(&path) {
            return Err(EntryError::Replaces);
        }
        put(entry, tree)?;
        let mut above = parent(&path);
        while !above.is_empty() && !self.entries.contains(above) {
            if !self.implied.insert(above.to_vec()) {
                break;
            }
            above = parent(above);
        }
        self.implied.remove(&path);
        self.entries.insert(path);
        Ok(())
    }

    /// Refuses a whiteout for this path after an entry for it, or below it.
    pub(crate) fn check_whiteout(&self, path: &[u8]) -> Result<(), EntryError> {
        if self.entries.contains(path) || self.implied.contains(path) {
            return Err(EntryError::Whiteout);
        }
        Ok(())
    }

    /// Refuses an opaque whiteout for a folder after an entry in a folder below, where that
    /// folder has no entry of its own: to some programs it is of the layers below.
    pub(crate) fn check_opaque(&self, folder: &[u8]) -> Result<(), EntryError> {
        if has_below(&self.implied, folder) {
            return Err(EntryError::Whiteout);
        }
        Ok(())
    }
}

impl EntryError {
    /// Says which entry it is.
    pub(crate) fn about(&self, name: &[u8]) -> ImageError {
        let name = String::from_utf8_lossy(name);
        ImageError::Invalid(format!("entry {name}: {self}"))
    }
}

/// Puts an entry into the tree, whatever is there.
fn put(entry: &Entry, tree: &mut Tree) -> Result<(), TreeError> {
    let Entry { name, metadata, .. } = entry;
    match entry.kind {
        Type::Directory => tree.directory(name, *metadata),
        Type::File => tree.file(name, *metadata, entry.content),
        Type::Symlink => tree.symlink(name, *metadata, entry.target.clone()),
        Type::HardLink => tree.hard_link(name, &entry.target),
        Type::Fifo => tree.fifo(name, *metadata),
        // The enclave's init makes /dev, and nothing else may reach a device.
        Type::Device => return tree.device(name),
    }?;
    tree.attributes(name, &entry.attributes)
}

/// Whether an entry says the same as the one that wrote what is at the path. Directories
/// always do: they have no contents, and their entries stay.
fn is_same<R: Read>(
    entry: &Entry,
    path: &[u8],
    tree: &mut Tree,
    read: &dyn Fn(Content) -> R,
) -> Result<bool, EntryError> {
    let linked = match entry.kind {
        Type::HardLink => {
            let target = tree.entry_path(&entry.target)?;
            tree.get(&target).map(|node| node.kind.clone())
        }
        _ => None,
    };
    let Some(Node { kind, metadata }) = tree.get(path) else {
        // A device, which is not in the tree.
        return Ok(entry.kind == Type::Device);
    };
    let owns = |with: &Metadata| *metadata == *with;
    Ok(match (entry.kind, kind) {
        (Type::Directory, Kind::Directory) => true,
        (Type::File, Kind::File { content, .. }) => {
            owns(&entry.metadata) && have_same_bytes(read, *content, entry.content)?
        }
        (Type::Symlink, Kind::Symlink(target)) => *target == entry.target,
        (Type::Fifo, Kind::Fifo) => owns(&entry.metadata),
        (Type::HardLink, kind) => linked.as_ref() == Some(kind),
        _ => false,
    })
}

fn have_same_bytes<R: Read>(
    read: &dyn Fn(Content) -> R,
    one: Content,
    other: Content,
) -> io::Result<bool> {
    if one.size != other.size {
        return Ok(false);
    }
    let (mut one, mut other) = (read(one), read(other));
    let mut bytes = (Vec::new(), Vec::new());
    loop {
        bytes.0.clear();
        bytes.1.clear();
        one.by_ref()
            .take(COMPARED as u64)
            .read_to_end(&mut bytes.0)?;
        other
            .by_ref()
            .take(COMPARED as u64)
            .read_to_end(&mut bytes.1)?;
        if bytes.0 != bytes.1 {
            return Ok(false);
        }
        if bytes.0.is_empty() {
            return Ok(true);
        }
    }
}
