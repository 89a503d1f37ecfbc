//! One layer: its bytes checked, decompressed once into an unnamed temporary
//! file, and its entries applied to the tree.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use aws_lc_rs::digest::{Context, SHA256};

use crate::tree::{Content, Metadata, Tree, TreeError};

/// Most bytes that a layer may have when decompressed.
const MAX_LAYER: u64 = 16 * 1024 * 1024 * 1024;
/// Most entries in one layer.
const MAX_ENTRIES: usize = 1_000_000;
const COPY_BYTES: usize = 64 * 1024;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A layer, decompressed.
#[derive(Debug)]
pub(crate) struct Layer {
    tar: File,
}

impl Layer {
    /// Decompresses a layer and checks it against its digest (of the bytes as
    /// they are stored, if known) and its diff id (of the archive itself).
    pub(crate) fn unpack(
        stored: impl Read,
        digest: Option<&str>,
        diff_id: &str,
    ) -> io::Result<Self> {
        let mut stored = Hashing::new(stored);
        let mut tar = tempfile::tempfile()?;
        let mut start = Vec::new();
        stored.by_ref().take(4).read_to_end(&mut start)?;
        let whole = start.as_slice().chain(&mut stored);
        let computed = match start.as_slice() {
            [0x1f, 0x8b, ..] => copy(flate2::read::MultiGzDecoder::new(whole), &mut tar)?,
            [0x28, 0xb5, 0x2f, 0xfd] => copy(zstd::Decoder::new(whole)?, &mut tar)?,
            _ => copy(whole, &mut tar)?,
        };
        expect("diff id", diff_id, &computed)?;
        if let Some(digest) = digest {
            io::copy(&mut stored, &mut io::sink())?;
            expect("digest", digest, &hex::encode(stored.context.finish()))?;
        }
        tar.seek(SeekFrom::Start(0))?;
        Ok(Self { tar })
    }

    /// Applies the layer's entries on top of the tree, and gives the archive
    /// that file contents now refer to by `index`.
    pub(crate) fn apply(self, index: usize, tree: &mut Tree) -> io::Result<File> {
        let mut archive = tar::Archive::new(BufReader::new(&self.tar));
        for (count, entry) in archive.entries()?.enumerate() {
            if count == MAX_ENTRIES {
                return Err(invalid(format!(
                    "a layer has more than {MAX_ENTRIES} entries"
                )));
            }
            let mut entry = entry?;
            apply_entry(index, &mut entry, tree)?;
        }
        drop(archive);
        Ok(self.tar)
    }
}

fn apply_entry<R: Read>(
    index: usize,
    entry: &mut tar::Entry<'_, R>,
    tree: &mut Tree,
) -> io::Result<()> {
    let name = entry.path_bytes().into_owned();
    let failed =
        |error: TreeError| invalid(format!("entry {}: {error}", String::from_utf8_lossy(&name)));
    let header = entry.header();
    let number = |value: u64| {
        u32::try_from(value).map_err(|_| invalid("a user or group id is too large".to_owned()))
    };
    let metadata = Metadata {
        permissions: header.mode()? & 0o7777,
        uid: number(header.uid()?)?,
        gid: number(header.gid()?)?,
    };
    let kind = header.entry_type();
    let base = name
        .rsplit(|&byte| byte == b'/')
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    if base == OPAQUE {
        return tree.clear_below(index, &name).map_err(failed);
    }
    if let Some(hidden) = base.strip_prefix(WHITEOUT) {
        return tree.remove_below(index, &name, hidden).map_err(failed);
    }
    let link = || {
        entry
            .link_name_bytes()
            .map(std::borrow::Cow::into_owned)
            .unwrap_or_default()
    };
    let result = match kind {
        tar::EntryType::Directory => tree.directory(index, &name, metadata),
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            if kind == tar::EntryType::GNUSparse {
                return Err(invalid(format!(
                    "entry {}: sparse files are not supported",
                    String::from_utf8_lossy(&name)
                )));
            }
            let content = Content {
                layer: index,
                offset: entry.raw_file_position(),
                size: entry.size(),
            };
            tree.file(index, &name, metadata, content)
        }
        tar::EntryType::Symlink => tree.symlink(index, &name, metadata, link()),
        tar::EntryType::Link => tree.hard_link(index, &name, &link()),
        // Device nodes and pipes: the enclave's init makes /dev itself.
        _ => Ok(()),
    };
    result.map_err(failed)
}

/// Copies within the limit and gives the SHA-256 of what was copied, hex.
fn copy(mut from: impl Read, to: &mut File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; COPY_BYTES];
    let mut total: u64 = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += count as u64;
        if total > MAX_LAYER {
            return Err(invalid(format!(
                "a layer has more than {MAX_LAYER} bytes when decompressed"
            )));
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        context.update(bytes);
        to.write_all(bytes)?;
    }
    Ok(hex::encode(context.finish()))
}

fn expect(what: &str, wanted: &str, computed: &str) -> io::Result<()> {
    match wanted.strip_prefix("sha256:") {
        Some(wanted) if wanted.eq_ignore_ascii_case(computed) => Ok(()),
        Some(_) => Err(invalid(format!(
            "a layer's {what} is sha256:{computed}, the image says {wanted}: it is damaged"
        ))),
        None => Err(invalid(format!(
            "the {what} {wanted} is not a SHA-256 digest"
        ))),
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    context: Context,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            context: Context::new(&SHA256),
        }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.context.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
