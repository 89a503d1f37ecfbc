//! One layer: its bytes checked and decompressed once into the spool, its
//! entries applied to the tree (OCI image specification, "layer.md").

use std::io::Read;

use crate::archive::{ArchiveError, Entry, Type};
use crate::compression::{CompressionError, decompressed};
use crate::digest::{Digest, Hashing};
use crate::entry::{EntryError, Written};
use crate::error::ImageError;
use crate::large_file::LargeFile;
use crate::node::Content;
use crate::path::{components, push};
use crate::spool::{Spool, SpoolError};
use crate::tree::Tree;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Decompresses a layer and checks it against its digest (of the bytes as they
/// are stored, if known) and its diff id (of the archive itself). Gives its
/// place in the spool.
pub(crate) fn unpack(
    stored: impl Read,
    digest: Option<&Digest>,
    diff_id: &Digest,
    spool: &mut Spool,
) -> Result<Content, ImageError> {
    let begun = spool.end();
    let mut stored = Hashing::by(digest.map(Digest::algorithm).unwrap_or_default(), stored);
    let appended = match decompressed(&mut stored) {
        Ok(contents) => spool.append_hashed(contents.reader, diff_id.algorithm()),
        Err(CompressionError::Io(source)) => Err(SpoolError::Source(source)),
        Err(error @ CompressionError::Format(_)) => {
            return Err(ImageError::Invalid(error.to_string()));
        }
    };
    // Whatever is wrong with a damaged blob, its digest is what names it best.
    let read = !matches!(appended, Err(SpoolError::Full | SpoolError::Temporary(_)));
    if let Some(digest) = digest.filter(|_| read) {
        let computed = stored.finish().map_err(ImageError::read)?;
        if computed != *digest {
            return Err(ImageError::Invalid(format!(
                "its digest is {computed}: it is damaged, copy or build the image again"
            )));
        }
    }
    let (content, computed) = appended.map_err(|error| not_unpacked(error, spool, begun))?;
    if computed != *diff_id {
        return Err(ImageError::Invalid(format!(
            "its diff id is {computed}, the image's configuration says {diff_id}: it is damaged, copy or build the image again"
        )));
    }
    Ok(content)
}

/// Decompresses an archive of which nothing is known before.
pub(crate) fn unpack_unchecked(
    stored: impl Read,
    spool: &mut Spool,
) -> Result<Content, ImageError> {
    let begun = spool.end();
    let contents = match decompressed(stored) {
        Ok(contents) => contents.reader,
        Err(CompressionError::Io(source)) => {
            return Err(not_unpacked(SpoolError::Source(source), spool, begun));
        }
        Err(error @ CompressionError::Format(_)) => {
            return Err(ImageError::Invalid(error.to_string()));
        }
    };
    let appended = spool.append(contents);
    appended.map_err(|error| not_unpacked(error, spool, begun))
}

fn not_unpacked(error: SpoolError, spool: &Spool, begun: u64) -> ImageError {
    match error {
        SpoolError::Source(source) if source.raw_os_error().is_none() => ImageError::Invalid(
            format!("it cannot be decompressed ({source}): build the image again"),
        ),
        SpoolError::Source(source) => ImageError::read(source),
        SpoolError::Temporary(source) => ImageError::Temporary(source),
        SpoolError::Full => ImageError::Full(largest(spool, begun)),
    }
}

/// The largest file of an archive of which only the beginning is in the spool: the one at
/// whose contents it ends is among them.
fn largest(spool: &Spool, begun: u64) -> Option<LargeFile> {
    let whole = Content {
        offset: begun,
        size: u64::MAX - begun,
    };
    let entries = spool.entries(whole).map_while(Result::ok);
    entries.fold(None, |largest, entry| match entry.kind {
        Type::File => Some(LargeFile::or_larger(
            largest,
            &entry.name,
            entry.content.size,
        )),
        _ => largest,
    })
}

/// Applies the layer's entries on top of the tree.
///
/// Whiteouts hide only what is in lower layers, wherever in the archive they
/// are, so they are applied first.
pub(crate) fn apply(spool: &Spool, layer: Content, tree: &mut Tree) -> Result<(), ImageError> {
    for_each(spool, layer, |entry| match whiteout(&entry.name) {
        Some(Whiteout::Opaque) => Ok(tree.clear(&entry.name)?),
        Some(Whiteout::File(hidden)) => Ok(tree.remove(&entry.name, hidden)?),
        None => Ok(()),
    })?;
    let mut written = Written::default();
    for_each(spool, layer, |entry| match whiteout(&entry.name) {
        Some(whiteout) => {
            let mut path = Vec::new();
            let mut names = components(&entry.name);
            names.next_back();
            names.for_each(|name| push(&mut path, name));
            match whiteout {
                Whiteout::Opaque => written.check_opaque(&path),
                Whiteout::File(hidden) => {
                    push(&mut path, hidden);
                    written.check_whiteout(&path)
                }
            }
        }
        None => written.add(entry, tree, &|content| spool.reader(content)),
    })?;
    for_each(spool, layer, |entry| match whiteout(&entry.name) {
        Some(_) => Ok(tree.check_whiteout(&entry.name)?),
        None => Ok(()),
    })
}

/// Puts the entries of an archive that is no layer into the tree: it has no whiteouts.
pub(crate) fn add_all(spool: &Spool, archive: Content, tree: &mut Tree) -> Result<(), ImageError> {
    let mut written = Written::default();
    for_each(spool, archive, |entry| {
        written.add(entry, tree, &|content| spool.reader(content))
    })
}

fn for_each(
    spool: &Spool,
    layer: Content,
    mut apply: impl FnMut(&Entry) -> Result<(), EntryError>,
) -> Result<(), ImageError> {
    for entry in spool.entries(layer) {
        let entry = entry.map_err(|error| match error {
            ArchiveError::Io(source) => ImageError::Temporary(source),
            error => ImageError::Invalid(error.to_string()),
        })?;
        apply(&entry).map_err(|error| match error {
            EntryError::Io(source) => ImageError::Temporary(source),
            error => error.about(&entry.name),
        })?;
    }
    Ok(())
}

enum Whiteout<'a> {
    File(&'a [u8]),
    Opaque,
}

fn whiteout(name: &[u8]) -> Option<Whiteout<'_>> {
    let base = components(name).next_back()?;
    if base == OPAQUE {
        return Some(Whiteout::Opaque);
    }
    base.strip_prefix(WHITEOUT).map(Whiteout::File)
}
