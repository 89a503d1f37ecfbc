//! Unpacking ramdisks into a folder, where no kernel does it.
//!
//! The archives are untrusted: nothing is created outside the folder, no
//! symbolic link is followed, and neither bytes nor entries exceed the limits.
//! Owners, devices, pipes and sockets are left out: an ordinary process cannot
//! make them all, and `enclave-init` mounts its own devices.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use eif::cpio::{CpioError, Entry, Kind, Reader};
use flate2::bufread::MultiGzDecoder;
use manifest::MemoryMib;
use nix::fcntl::OFlag;
use thiserror::Error;

/// Most entries of all ramdisks together.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// The longest target of a symbolic link, in bytes (`PATH_MAX` without its zero byte).
const MAX_LINK_TARGET: u32 = 4095;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const CPIO_MAGIC: &[u8] = b"0707";

/// Why a ramdisk could not be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The archive is damaged.
    #[error("a ramdisk of the image is damaged: {0}")]
    Archive(#[from] CpioError),
    /// The compression is not known.
    #[error("a ramdisk begins with {0:02x?}: only gzip and plain cpio can be unpacked under `sim`")]
    Compression(Vec<u8>),
    /// The ramdisk cannot be read from the image.
    #[error("a ramdisk of the image cannot be read: {0}")]
    Read(io::Error),
    /// An entry's name leads out of the folder.
    #[error("the ramdisk's entry {0:?} leads out of the file system")]
    Escape(String),
    /// An entry lies behind something that is not a folder.
    #[error("the ramdisk's entry {0:?} lies below something that is not a folder")]
    NotAFolder(String),
    /// A link's target is longer than a path can be.
    #[error("the ramdisk's symbolic link {0:?} has too long a target")]
    LinkTarget(String),
    /// The contents are larger than the enclave's memory.
    #[error(
        "the ramdisks unpack to more than the enclave's memory of {0} MiB: give it more with --memory-mib, or in the manifest"
    )]
    TooLarge(MemoryMib),
    /// There are too many entries.
    #[error("the ramdisks have more than {MAX_ENTRIES} entries")]
    TooMany,
    /// The folder's file system refused.
    #[error("cannot unpack {entry:?}: {source}")]
    Write {
        /// What was unpacked.
        entry: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The agent was told to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Unpacks ramdisks one after the other into the same folder.
#[derive(Debug)]
pub struct Unpacker<'a> {
    root: &'a Path,
    memory: MemoryMib,
    bytes_left: u64,
    entries_left: u64,
    interrupted: &'a AtomicBool,
}

impl<'a> Unpacker<'a> {
    /// Unpacks into `root`, which is empty and which nobody else can write to,
    /// at most `memory` of it; stops once `interrupted` is set.
    pub fn new(root: &'a Path, memory: MemoryMib, interrupted: &'a AtomicBool) -> Self {
        Self {
            root,
            memory,
            bytes_left: memory.bytes(),
            entries_left: MAX_ENTRIES,
            interrupted,
        }
    }

    /// Unpacks one ramdisk, compressed or not.
    pub fn unpack(&mut self, mut ramdisk: impl BufRead) -> Result<(), UnpackError> {
        let start = ramdisk.fill_buf().map_err(UnpackError::Read)?;
        if start.starts_with(GZIP_MAGIC) {
            self.archive(MultiGzDecoder::new(ramdisk))
        } else if start.starts_with(CPIO_MAGIC) {
            self.archive(ramdisk)
        } else {
            let start = start.iter().copied().take(6).collect();
            Err(UnpackError::Compression(start))
        }
    }

    fn archive(&mut self, input: impl Read) -> Result<(), UnpackError> {
        let mut limited = Limited {
            input,
            left: self.bytes_left,
            exceeded: false,
        };
        let result = self.entries(&mut Reader::new(&mut limited));
        self.bytes_left = limited.left;
        if limited.exceeded {
            return Err(UnpackError::TooLarge(self.memory));
        }
        result
    }

    fn entries<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<(), UnpackError> {
        // Names of files with several: the first carries the contents.
        let mut links: HashMap<u32, PathBuf> = HashMap::new();
        while let Some(entry) = reader.next_entry()? {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(UnpackError::Interrupted);
            }
            self.entries_left = self
                .entries_left
                .checked_sub(1)
                .ok_or(UnpackError::TooMany)?;
            let Some(path) = self.place(&entry)? else {
                continue;
            };
            let written = match entry.kind {
                Kind::Directory => make_folder(&path, entry.permissions),
                Kind::Symlink => {
                    if entry.size > MAX_LINK_TARGET {
                        return Err(UnpackError::LinkTarget(display(&entry.name)));
                    }
                    let mut target = Vec::new();
                    reader
                        .contents()
                        .read_to_end(&mut target)
                        .map_err(CpioError::from)?;
                    replace(&path).and_then(|()| symlink(OsStr::from_bytes(&target), &path))
                }
                Kind::File => replace(&path).and_then(|()| match links.get(&entry.inode) {
                    // Something else may have taken the first name's place.
                    Some(first) if entry.links > 1 && is_file(first) => {
                        fs::hard_link(first, &path)?;
                        if entry.size > 0 {
                            fill(reader, &path, &entry)?;
                        }
                        Ok(())
                    }
                    _ => {
                        if entry.links > 1 {
                            links.insert(entry.inode, path.clone());
                        }
                        fill(reader, &path, &entry)
                    }
                }),
                Kind::CharDevice | Kind::BlockDevice | Kind::Fifo | Kind::Socket => Ok(()),
            };
            written.map_err(|source| UnpackError::Write {
                entry: display(&entry.name),
                source,
            })?;
        }
        Ok(())
    }

    /// Where an entry goes: `None` for the root itself. Every folder on the way
    /// must be one that exists; nobody else can turn it into a link meanwhile.
    fn place(&self, entry: &Entry) -> Result<Option<PathBuf>, UnpackError> {
        let name = Path::new(OsStr::from_bytes(&entry.name));
        let mut components = name.components().filter_map(|component| match component {
            Component::Normal(part) => Some(Ok(part)),
            Component::RootDir | Component::CurDir => None,
            Component::ParentDir | Component::Prefix(_) => {
                Some(Err(UnpackError::Escape(display(&entry.name))))
            }
        });
        let mut path = self.root.to_owned();
        let Some(first) = components.next() else {
            return Ok(None);
        };
        path.push(first?);
        for part in components {
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
            if !is_folder {
                return Err(UnpackError::NotAFolder(display(&entry.name)));
            }
            path.push(part?);
        }
        Ok(Some(path))
    }
}

/// Whether a file is at `path`; a link to one is not.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// Writes a file's contents.
fn fill<R: Read>(reader: &mut Reader<R>, path: &Path, entry: &Entry) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    io::copy(&mut reader.contents(), &mut file)?;
    set_permissions(&file, entry.permissions)
}

/// Makes a folder, which stays open to its owner so that it can be removed.
fn make_folder(path: &Path, permissions: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !fs::symlink_metadata(path)?.is_dir() {
                fs::remove_file(path)?;
                DirBuilder::new().mode(0o700).create(path)?;
            }
        }
        Err(error) => return Err(error),
    }
    fs::set_permissions(path, Permissions::from_mode(permissions & 0o1777 | 0o700))
}

/// Makes room for an entry, as the kernel does.
fn replace(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sets a file's permissions without set-user-id and set-group-id, which must
/// not come from an untrusted image to the host.
fn set_permissions(file: &File, permissions: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(permissions & 0o777))
}

fn display(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Fails once more bytes have been read than allowed.
struct Limited<R> {
    input: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            self.exceeded = true;
            return Err(io::Error::other("more bytes than allowed"));
        };
        self.left = left;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use eif::cpio::Writer;
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, kind: Kind, size: usize) -> Entry {
        let permissions = if kind == Kind::Directory {
            0o755
        } else {
            0o644
        };
        Entry::new(name, kind, permissions, size.try_into().unwrap())
    }

    fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, contents) in entries {
            writer.append(entry, *contents).unwrap();
        }
        writer.finish().unwrap()
    }

    fn named(kind: Kind, name: &str, contents: &'static [u8]) -> (Entry, &'static [u8]) {
        (entry(name, kind, contents.len()), contents)
    }

    fn memory() -> MemoryMib {
        "64".parse().unwrap()
    }

    fn unpack(root: &Path, archive: &[u8]) -> Result<(), UnpackError> {
        Unpacker::new(root, memory(), &AtomicBool::new(false)).unpack(archive)
    }

    #[test]
    fn files_folders_links_and_modes_are_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let mut setuid = entry("bin/su", Kind::File, 2);
        setuid.permissions = 0o4755;
        let mut closed = entry("closed", Kind::Directory, 0);
        closed.permissions = 0o000;
        let bytes = archive(&[
            named(Kind::Directory, ".", b""),
            named(Kind::Directory, "bin", b""),
            named(Kind::File, "/bin/sh", b"shell"),
            named(Kind::Symlink, "bin/bash", b"/bin/sh"),
            (setuid, b"su"),
            (closed, b""),
            named(Kind::CharDevice, "console", b""),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        unpack(root.path(), &gzip.finish().unwrap()).unwrap();
        let at = |path: &str| root.path().join(path);
        assert_eq!(fs::read(at("bin/sh")).unwrap(), b"shell");
        assert_eq!(fs::read_link(at("bin/bash")).unwrap(), Path::new("/bin/sh"));
        assert_eq!(
            fs::metadata(at("bin/su")).unwrap().permissions().mode() & 0o7777,
            0o755
        );
        assert_eq!(
            fs::metadata(at("closed")).unwrap().permissions().mode() & 0o7777,
            0o700
        );
        assert!(!at("console").exists());
    }

    #[test]
    fn names_of_one_file_share_their_contents() {
        let root = tempfile::tempdir().unwrap();
        let linked = |name: &str, size| Entry {
            inode: 7,
            links: 2,
            ..entry(name, Kind::File, size)
        };
        let bytes = archive(&[(linked("a", 3), b"abc"), (linked("b", 0), b"")]);
        unpack(root.path(), &bytes).unwrap();
        assert_eq!(fs::read(root.path().join("b")).unwrap(), b"abc");
        // As GNU cpio writes them: the contents come with the last name.
        let bytes = archive(&[(linked("c", 0), b""), (linked("d", 3), b"xyz")]);
        unpack(root.path(), &bytes).unwrap();
        assert_eq!(fs::read(root.path().join("c")).unwrap(), b"xyz");
    }

    #[test]
    fn nothing_escapes() {
        let outside = tempfile::tempdir().unwrap();
        let target: &'static [u8] = outside
            .path()
            .to_str()
            .unwrap()
            .to_owned()
            .leak()
            .as_bytes();
        for entries in [
            vec![named(Kind::File, "../x", b"1")],
            vec![named(Kind::File, "a/../../x", b"1")],
            vec![
                named(Kind::Symlink, "a", target),
                named(Kind::File, "a/x", b"1"),
            ],
            vec![
                named(Kind::Symlink, "a", b".."),
                named(Kind::Directory, "a/x", b""),
            ],
            vec![named(Kind::File, "absent/x", b"1")],
        ] {
            let parent = tempfile::tempdir().unwrap();
            let root = parent.path().join("root");
            fs::create_dir(&root).unwrap();
            let error = unpack(&root, &archive(&entries)).unwrap_err();
            assert!(
                matches!(error, UnpackError::Escape(_) | UnpackError::NotAFolder(_)),
                "{error}"
            );
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_file_over_a_link_replaces_the_link() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "intact").unwrap();
        let target: &'static [u8] = victim.to_str().unwrap().to_owned().leak().as_bytes();
        let bytes = archive(&[
            named(Kind::Symlink, "a", target),
            named(Kind::File, "a", b"evil"),
        ]);
        unpack(root.path(), &bytes).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"intact");
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"evil");
    }

    /// A second name of a file, whose first name has become a link that leads out.
    #[test]
    fn a_name_of_a_replaced_file_does_not_lead_out() {
        let parent = tempfile::tempdir().unwrap();
        let victim = parent.path().join("victim");
        fs::write(&victim, "intact").unwrap();
        let linked = |name: &str, size| Entry {
            inode: 7,
            links: 2,
            ..entry(name, Kind::File, size)
        };
        for replacement in [
            named(Kind::Symlink, "a", b"../victim"),
            named(Kind::Directory, "a", b""),
        ] {
            let root = tempfile::tempdir_in(parent.path()).unwrap();
            let bytes = archive(&[
                (linked("a", 0), b""),
                replacement,
                (linked("b", 4), b"evil"),
                (linked("b", 4), b"more"),
            ]);
            unpack(root.path(), &bytes).unwrap();
            assert_eq!(fs::read(&victim).unwrap(), b"intact");
            assert_eq!(fs::read(root.path().join("b")).unwrap(), b"more");
        }
    }

    #[test]
    fn size_compression_and_interruption_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let large: &'static [u8] = vec![0; 65 * 1024 * 1024].leak();
        let bytes = archive(&[named(Kind::File, "a", large)]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&bytes).unwrap();
        let error = unpack(root.path(), &gzip.finish().unwrap()).unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge(_)), "{error}");
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0];
        assert!(matches!(
            unpack(root.path(), &zstd),
            Err(UnpackError::Compression(_))
        ));
        let bytes = archive(&[named(Kind::File, "b", b"1")]);
        let stop = AtomicBool::new(true);
        let stopped = Unpacker::new(root.path(), memory(), &stop).unpack(bytes.as_slice());
        assert!(matches!(stopped, Err(UnpackError::Interrupted)));
    }

    proptest! {
        #[test]
        fn hostile_names_and_links_stay_inside(
            entries in proptest::collection::vec(
                ("(\\.\\./|/|\\./)?[ab](/[ab.]{1,2}){0,3}", 0..3u8, "(\\.\\.|/|[ab]|\\.\\./[ab])"),
                1..12,
            )
        ) {
            let parent = tempfile::tempdir().unwrap();
            let root = parent.path().join("root");
            fs::create_dir(&root).unwrap();
            let entries: Vec<_> = entries.iter().map(|(name, kind, target)| match kind {
                0 => (entry(name, Kind::File, 1), &b"x"[..]),
                1 => (entry(name, Kind::Directory, 0), &b""[..]),
                _ => (entry(name, Kind::Symlink, target.len()), target.as_bytes()),
            }).collect();
            let _ = unpack(&root, &archive(&entries));
            prop_assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
            prop_assert!(!Path::new("/a").exists() && !Path::new("/b").exists());
        }
    }
}
