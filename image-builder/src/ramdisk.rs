//! The two ramdisks: cpio archives, compressed with gzip, which every kernel
//! for enclaves can unpack.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use eif::cpio::{Entry, Kind as EntryKind, Writer};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use crate::node::{Kind, Node};
use crate::spool::Spool;
use crate::tree::Tree;

/// Mount points and devices that `enclave-init` finds when it starts.
const FOLDERS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];
/// Major and minor number of the console (Linux, `admin-guide/devices.txt`).
const CONSOLE: (u32, u32) = (5, 1);

type Archive = Writer<GzEncoder<BufWriter<File>>>;

/// Writes `init` and what it needs to start.
pub(crate) fn boot(init: &mut File) -> io::Result<File> {
    let size = init.metadata()?.len();
    let mut archive = new_archive()?;
    let mut numbers = Numbers::default();
    for folder in FOLDERS {
        archive.append(
            &numbers.entry(folder.as_bytes(), EntryKind::Directory, 0o755, 0)?,
            io::empty(),
        )?;
    }
    let mut console = numbers.entry(b"dev/console", EntryKind::CharDevice, 0o600, 0)?;
    console.device = CONSOLE;
    archive.append(&console, io::empty())?;
    init.seek(SeekFrom::Start(0))?;
    archive.append(&numbers.entry(b"init", EntryKind::File, 0o755, size)?, init)?;
    finish(archive)
}

/// Writes the merged image below `rootfs/`, and last of all the measured
/// configuration: a kernel that runs out of room stops unpacking and starts the init
/// with what is there, and whoever chooses the memory would choose how many of the
/// measured files that is. Without its configuration the init refuses to start.
pub(crate) fn application(
    tree: &Tree,
    spool: &Spool,
    config_path: &str,
    config: &[u8],
) -> io::Result<File> {
    let mut archive = new_archive()?;
    let mut numbers = Numbers::default();
    let links = count_links(tree);
    // The first name of a file carries its contents, later ones only its inode.
    let mut written = BTreeMap::new();
    let root = std::iter::once((&b""[..], tree.root()));
    for (path, node) in root.chain(tree.iter()) {
        let mut name = b"rootfs".to_vec();
        if !path.is_empty() {
            name.push(b'/');
            name.extend_from_slice(path);
        }
        let (kind, size) = match &node.kind {
            Kind::Directory => (EntryKind::Directory, 0),
            Kind::Fifo => (EntryKind::Fifo, 0),
            Kind::Symlink(target) => (EntryKind::Symlink, target.len() as u64),
            Kind::File { inode, .. } if written.contains_key(inode) => (EntryKind::File, 0),
            Kind::File { content, .. } => (EntryKind::File, content.size),
        };
        let mut entry = numbers.entry(&name, kind, node.metadata.permissions, size)?;
        (entry.uid, entry.gid) = (node.metadata.uid, node.metadata.gid);
        match &node.kind {
            Kind::Directory | Kind::Fifo => archive.append(&entry, io::empty())?,
            Kind::Symlink(target) => archive.append(&entry, target.as_slice())?,
            Kind::File { content, inode } => {
                entry.links = links.get(inode).copied().unwrap_or(1);
                entry.inode = *written.entry(*inode).or_insert(entry.inode);
                archive.append(&entry, spool.reader(*content).take(size))?;
            }
        }
    }
    let folder = config_path
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder);
    archive.append(
        &numbers.entry(folder.as_bytes(), EntryKind::Directory, 0o755, 0)?,
        io::empty(),
    )?;
    let entry = numbers.entry(
        config_path.as_bytes(),
        EntryKind::File,
        0o444,
        config.len() as u64,
    )?;
    archive.append(&entry, config)?;
    finish(archive)
}

fn count_links(tree: &Tree) -> BTreeMap<u32, u32> {
    let mut links = BTreeMap::new();
    for (_, Node { kind, .. }) in tree.iter() {
        if let Kind::File { inode, .. } = kind {
            *links.entry(*inode).or_insert(0) += 1;
        }
    }
    links
}

/// Hands out inode numbers in the order of writing.
#[derive(Default)]
struct Numbers {
    last: u32,
}

impl Numbers {
    fn entry(
        &mut self,
        name: &[u8],
        kind: EntryKind,
        permissions: u32,
        size: u64,
    ) -> io::Result<Entry> {
        let size = u32::try_from(size).map_err(|_| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "{} has {size} bytes; a file in a ramdisk has less than 4 GiB",
                    String::from_utf8_lossy(name)
                ),
            )
        })?;
        self.last = self.last.checked_add(1).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Entry {
            inode: self.last,
            ..Entry::new(name, kind, permissions, size)
        })
    }
}

fn new_archive() -> io::Result<Archive> {
    let output = BufWriter::new(tempfile::tempfile()?);
    // No time and no name: both would differ from build to build.
    Ok(Writer::new(
        GzBuilder::new()
            .mtime(0)
            .write(output, Compression::default()),
    ))
}

fn finish(archive: Archive) -> io::Result<File> {
    let mut output = archive.finish()?.finish()?;
    output.flush()?;
    let mut file = output
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
