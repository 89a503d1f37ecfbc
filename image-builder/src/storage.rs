//! Where an image's files are stored: in a folder, or in a tar archive.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::archive::{ArchiveError, Entries};
use crate::compression::{CompressionError, decompressed};
use crate::entry::{EntryError, Written};
use crate::error::ImageError;
use crate::node::{Content, Kind};
use crate::spool::{Range, Spool, SpoolError};
use crate::stored::{open, read_document};
use crate::tree::Tree;

const MIB: u64 = 1024 * 1024;
/// What a compressed archive may have beside its layers, in bytes.
const DOCUMENTS: u64 = 64 * MIB;

/// The files of one or more images.
#[derive(Debug)]
pub(crate) enum Storage {
    Folder(PathBuf),
    Archive {
        path: PathBuf,
        file: Rc<File>,
        tree: Tree,
    },
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// Its own path, or its archive's.
    pub(crate) path: PathBuf,
    archive: Option<Rc<File>>,
    pub(crate) range: Content,
}

impl Blob {
    pub(crate) fn open(&self) -> Result<Rc<File>, ImageError> {
        match &self.archive {
            Some(file) => Ok(Rc::clone(file)),
            None => open(&self.path).map(Rc::new),
        }
    }
}

impl Storage {
    /// The files in a folder.
    pub(crate) fn folder(path: &Path) -> Self {
        Self::Folder(path.to_owned())
    }

    /// The files in an archive. One that is compressed is decompressed into a temporary
    /// file, of not much more than the `limit` that is for its layers.
    pub(crate) fn archive(path: &Path, limit: u64) -> Result<Self, ImageError> {
        let stored = open(path)?;
        let size = stored.metadata().map_err(ImageError::read)?.len();
        let (file, size) = match decompress(&stored, size, limit.saturating_add(DOCUMENTS))? {
            Some(temporary) => temporary,
            None => (stored, size),
        };
        let tree = index(&file, size)?;
        Ok(Self::Archive {
            path: path.to_owned(),
            file: Rc::new(file),
            tree,
        })
    }

    /// Whether there is a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Archive { tree, .. } => find(tree, name).is_some(),
        }
    }

    /// The file of this name.
    pub(crate) fn blob(&self, name: &str) -> Result<Blob, ImageError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let size = open(&path)?.metadata().map_err(ImageError::read)?.len();
                Ok(Blob {
                    path,
                    archive: None,
                    range: Content { offset: 0, size },
                })
            }
            Self::Archive { path, file, tree } => {
                let range = find(tree, name).ok_or_else(|| {
                    ImageError::Invalid(format!("{name} is missing in it: save the image again"))
                })?;
                Ok(Blob {
                    path: path.clone(),
                    archive: Some(Rc::clone(file)),
                    range,
                })
            }
        }
    }

    /// A JSON document, of which `what` is said in errors.
    pub(crate) fn document(&self, name: &str, what: &str) -> Result<Vec<u8>, ImageError> {
        let blob = self.blob(name)?;
        read_document(&*blob.open()?, blob.range, what)
    }
}

/// A file of an archive. Layers that are there more than once are links, also links to links.
fn find(tree: &Tree, name: &str) -> Option<Content> {
    match tree.lookup(name.as_bytes()).map(|node| &node.kind) {
        Some(Kind::File { content, .. }) => Some(*content),
        _ => None,
    }
}

/// Decompresses an archive that is compressed into a temporary file; gives its size.
fn decompress(stored: &File, size: u64, limit: u64) -> Result<Option<(File, u64)>, ImageError> {
    let stored = Range::new(stored, Content { offset: 0, size });
    let contents = decompressed(stored).map_err(unreadable)?;
    if !contents.is_compressed {
        return Ok(None);
    }
    let mut spool = Spool::new(limit).map_err(ImageError::Temporary)?;
    let whole = spool.append(contents.reader).map_err(|error| match error {
        SpoolError::Source(source) => unreadable(source.into()),
        SpoolError::Temporary(source) => ImageError::Temporary(source),
        SpoolError::Full => ImageError::Invalid(format!(
            "it has more than {} MiB when decompressed, four times enclave.memory_mib and {} more: decompress it first, as with `gunzip` or `unzstd`, and it is read in its place; or raise memory_mib",
            limit / MIB,
            DOCUMENTS / MIB
        )),
    })?;
    Ok(Some((spool.into_file(), whole.size)))
}

fn index(file: &File, size: u64) -> Result<Tree, ImageError> {
    let mut tree = Tree::default();
    let mut written = Written::default();
    let read = |content| Range::new(file, content);
    for entry in Entries::new(file, Content { offset: 0, size }) {
        let entry = entry.map_err(|error| match error {
            ArchiveError::Io(source) => ImageError::read(source),
            ArchiveError::Header(0) => ImageError::Invalid(
                "it is not a tar archive: write it with `docker save`, `skopeo copy` or `buildah push`"
                    .to_owned(),
            ),
            error => ImageError::Invalid(error.to_string()),
        })?;
        written
            .add(&entry, &mut tree, &read)
            .map_err(|error| match error {
                EntryError::Io(source) => ImageError::read(source),
                error => error.about(&entry.name),
            })?;
    }
    Ok(tree)
}

fn unreadable(error: CompressionError) -> ImageError {
    match error {
        CompressionError::Io(source) if source.raw_os_error().is_none() => ImageError::Invalid(
            format!("it cannot be decompressed ({source}): copy it or save the image again"),
        ),
        CompressionError::Io(source) => ImageError::read(source),
        error @ CompressionError::Format(_) => ImageError::Invalid(error.to_string()),
    }
}
