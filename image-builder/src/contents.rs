//! What the ramdisks of an enclave image unpack to.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek};

use eif::cpio::{CpioError, Entry, Kind, Reader};
use eif::{Eif, Section, SectionKind};
use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use crate::digest::{Digest, Hashing};
use crate::tree::MAX_ENTRIES;

/// Bytes that a ramdisk may unpack to, those of headers and names included: more than
/// an enclave's memory holds.
const MAX_UNPACKED: u64 = 64 << 30;
/// What a gzip member begins with (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What a cpio archive in the "new ASCII" format begins with.
const CPIO: [u8; 2] = *b"07";

/// Why the files of a ramdisk are unknown. The kernel may read what this does not.
#[derive(Debug, Error)]
pub(crate) enum RamdiskError {
    #[error("it is neither a cpio archive nor one compressed with gzip")]
    Format,
    #[error("it holds more than {MAX_ENTRIES} files")]
    Files,
    #[error("it is no sound cpio archive: {0}")]
    Archive(#[from] CpioError),
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// One file of a ramdisk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) permissions: u32,
    pub(crate) owner: (u32, u32),
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    pub(crate) size: u64,
    /// Of a file's contents, or of the target of a symbolic link.
    pub(crate) digest: Digest,
}

/// The files of a ramdisk by path, or why they are unknown.
pub(crate) type Files = Result<BTreeMap<Vec<u8>, Item>, RamdiskError>;

/// A section as it is measured, and what it unpacks to if it is a ramdisk.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) section: Section,
    pub(crate) digest: Digest,
    pub(crate) files: Option<Files>,
}

/// Reads every section of a sound image.
pub(crate) fn read<R: Read + Seek>(image: &mut Eif<R>) -> io::Result<Vec<Part>> {
    let sections = image.sections().to_vec();
    let mut parts = Vec::with_capacity(sections.len());
    for section in sections {
        let mut contents = Hashing::new(image.contents(section)?);
        let files = match section.kind {
            SectionKind::Ramdisk => Some(files(&mut contents)),
            _ => None,
        };
        parts.push(Part {
            section,
            digest: contents.finish()?,
            files,
        });
    }
    Ok(parts)
}

/// Reads a ramdisk's files.
pub(crate) fn files(ramdisk: impl Read) -> Files {
    let mut ramdisk = ramdisk;
    let mut magic = [0; 2];
    ramdisk.read_exact(&mut magic)?;
    let whole = BufReader::new(io::Cursor::new(magic).chain(ramdisk));
    match magic {
        GZIP => list(MultiGzDecoder::new(whole).take(MAX_UNPACKED)),
        CPIO => list(whole.take(MAX_UNPACKED)),
        _ => Err(RamdiskError::Format),
    }
}

fn list(archive: impl Read) -> Files {
    let mut archive = Reader::new(archive);
    let mut files = BTreeMap::new();
    // Of the names of one file only one has its contents, the first or the last.
    let mut contents: BTreeMap<u32, (u64, Digest)> = BTreeMap::new();
    let mut linked = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        if files.len() >= MAX_ENTRIES {
            return Err(RamdiskError::Files);
        }
        let digest = Hashing::new(archive.contents()).finish()?;
        if entry.kind == Kind::File && entry.links > 1 {
            if entry.size > 0 {
                contents.insert(entry.inode, (entry.size.into(), digest.clone()));
            }
            linked.push((entry.name.clone(), entry.inode));
        }
        // A later entry of the same name replaces the file, as the kernel does it.
        files.insert(entry.name.clone(), Item::new(&entry, digest));
    }
    for (name, inode) in linked {
        if let (Some(item), Some((size, digest))) = (files.get_mut(&name), contents.get(&inode)) {
            item.size = *size;
            item.digest = digest.clone();
        }
    }
    Ok(files)
}

impl Item {
    fn new(entry: &Entry, digest: Digest) -> Self {
        Self {
            kind: entry.kind,
            permissions: entry.permissions,
            owner: (entry.uid, entry.gid),
            device: entry.device,
            size: entry.size.into(),
            digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use eif::cpio::Writer;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn archive() -> Vec<u8> {
        let mut archive = Writer::new(Vec::new());
        let mut link = Entry::new("link", Kind::File, 0o644, 0);
        (link.inode, link.links) = (7, 2);
        archive.append(&link, io::empty()).unwrap();
        let mut file = Entry::new("file", Kind::File, 0o644, 5);
        (file.inode, file.links) = (7, 2);
        archive.append(&file, &b"hello"[..]).unwrap();
        archive.finish().unwrap()
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn contents_of_a_linked_file_are_those_of_each_of_its_names() {
        let plain = files(&*archive()).unwrap();
        assert_eq!(plain[&b"link"[..]], plain[&b"file"[..]]);
        assert_eq!(plain[&b"link"[..]].digest, Digest::of(b"hello"));
        assert_eq!(files(&*compressed(&archive())).unwrap(), plain);
    }

    #[test]
    fn contents_of_a_broken_ramdisk_are_unknown() {
        let archive = archive();
        for length in 0..archive.len() {
            assert!(files(archive.get(..length).unwrap()).is_err(), "{length}");
            let packed = compressed(archive.get(..length).unwrap());
            assert!(files(&*packed).is_err(), "{length}");
        }
        assert!(matches!(files(&b"BZh9"[..]), Err(RamdiskError::Format)));
    }
}
