//! One layer: its bytes checked and decompressed once into the spool, its
//! entries applied to the tree (OCI image specification, "layer.md").

use std::io::Read;

use crate::archive::{ArchiveError, Entry, Type};
use crate::digest::{Digest, Hashing};
use crate::error::ImageError;
use crate::large_file::LargeFile;
use crate::node::Content;
use crate::path::components;
use crate::spool::{Spool, SpoolError};
use crate::tree::{Tree, TreeError};

/// Largest window of a zstd frame, as a power of two: 128 MiB, what zstd itself
/// accepts unless told otherwise. It is memory.
const MAX_ZSTD_WINDOW: u32 = 27;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

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
    let mut stored = Hashing::new(stored);
    let mut start = Vec::new();
    stored
        .by_ref()
        .take(4)
        .read_to_end(&mut start)
        .map_err(ImageError::read)?;
    let whole = start.as_slice().chain(&mut stored);
    let appended = if start.starts_with(GZIP) {
        spool.append(flate2::read::MultiGzDecoder::new(whole))
    } else if start.starts_with(ZSTD) {
        let mut decoder = zstd::Decoder::new(whole).map_err(ImageError::read)?;
        decoder
            .window_log_max(MAX_ZSTD_WINDOW)
            .map_err(ImageError::read)?;
        spool.append(decoder)
    } else {
        spool.append(whole)
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
    let (content, computed) = appended.map_err(|error| match error {
        SpoolError::Source(source) if source.raw_os_error().is_none() => ImageError::Invalid(
            format!("it cannot be decompressed ({source}): build the image again"),
        ),
        SpoolError::Source(source) => ImageError::read(source),
        SpoolError::Temporary(source) => ImageError::Temporary(source),
        SpoolError::Full => ImageError::Full(largest(spool, begun)),
    })?;
    if computed != *diff_id {
        return Err(ImageError::Invalid(format!(
            "its diff id is {computed}, the image's configuration says {diff_id}: it is damaged, copy or build the image again"
        )));
    }
    Ok(content)
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

/// Whether these are the first bytes of something compressed.
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(GZIP) || start.starts_with(ZSTD)
}

/// Applies the layer's entries on top of the tree.
///
/// Whiteouts hide only what is in lower layers, wherever in the archive they
/// are, so they are applied first.
pub(crate) fn apply(spool: &Spool, layer: Content, tree: &mut Tree) -> Result<(), ImageError> {
    for_each(spool, layer, |entry| match whiteout(&entry.name) {
        Some(Whiteout::Opaque) => tree.clear(&entry.name),
        Some(Whiteout::File(hidden)) => tree.remove(&entry.name, hidden),
        None => Ok(()),
    })?;
    for_each(spool, layer, |entry| match whiteout(&entry.name) {
        Some(_) => Ok(()),
        None => add(entry, tree),
    })?;
    for_each(spool, layer, |entry| match whiteout(&entry.name) {
        Some(_) => tree.check_whiteout(&entry.name),
        None => Ok(()),
    })
}

/// Puts an entry that is no whiteout into the tree.
pub(crate) fn add(entry: &Entry, tree: &mut Tree) -> Result<(), TreeError> {
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

fn for_each(
    spool: &Spool,
    layer: Content,
    mut apply: impl FnMut(&Entry) -> Result<(), TreeError>,
) -> Result<(), ImageError> {
    for entry in spool.entries(layer) {
        let entry = entry.map_err(|error| match error {
            ArchiveError::Io(source) => ImageError::Temporary(source),
            error => ImageError::Invalid(error.to_string()),
        })?;
        apply(&entry).map_err(|error| {
            let name = String::from_utf8_lossy(&entry.name);
            ImageError::Invalid(format!("entry {name}: {error}"))
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
