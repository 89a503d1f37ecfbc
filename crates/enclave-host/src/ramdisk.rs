//! Unpacking ramdisks into a folder, where no kernel does it.
//!
//! The archives are untrusted: nothing is created outside the folder, no
//! symbolic link is followed, and neither bytes nor entries exceed the limits.
//! Devices are left out: a user namespace cannot make them, and `enclave-init`
//! mounts its own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use eif::cpio::{CpioError, Entry, Kind, Reader};
use flate2::bufread::MultiGzDecoder;
use manifest::MemoryMib;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
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
    /// An entry lies below something that is not a folder.
    #[error("the ramdisk's entry {0:?} lies below something that is not a folder")]
    NotAFolder(String),
    /// A link's target is longer than a path can be.
    #[error("the ramdisk's symbolic link {0:?} has too long a target")]
    LinkTarget(String),
    /// The contents are larger than what the enclave's memory has room for.
    #[error(
        "the ramdisks unpack to more than the enclave's memory of {0} MiB has room for: give it more with --memory-mib, or in the manifest"
    )]
    TooLarge(MemoryMib),
    /// There are too many entries.
    #[error("the ramdisks have more than {MAX_ENTRIES} entries")]
    TooMany,
    /// An owner is none of the ids that this process may give files to.
    #[error(
        "the ramdisk's entry {entry:?} belongs to user {uid} and group {gid}, and one of them is beyond the ids that are mapped for this user: give it a longer range in /etc/subuid and /etc/subgid, or run as root"
    )]
    Owner {
        /// What was unpacked.
        entry: String,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The folder's file system refused.
    #[error("cannot unpack {entry:?}: {source}")]
    Write {
        /// What was unpacked.
        entry: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Whom the unpacked files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whom the archive says: permissions are the archive's too.
    Image,
    /// All to the caller. No file is set-user-id or set-group-id, which would mean
    /// its owner, and each folder stays open to the caller.
    Caller,
}

/// Unpacks ramdisks one after the other into the same folder.
#[derive(Debug)]
pub struct Unpacker<'a> {
    root: &'a Path,
    memory: MemoryMib,
    owners: Owners,
    bytes_left: u64,
    entries_left: u64,
    /// Folders and their times, which change as long as something is put into them.
    folders: Vec<(PathBuf, u32)>,
}

impl<'a> Unpacker<'a> {
    /// Unpacks into `root`, which is empty and which nobody else can write to,
    /// at most `memory` of it.
    pub fn new(root: &'a Path, memory: MemoryMib, owners: Owners) -> Self {
        Self {
            root,
            memory,
            owners,
            bytes_left: memory.bytes(),
            entries_left: MAX_ENTRIES,
            folders: Vec::new(),
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
        result?;
        for (path, mtime) in self.folders.drain(..) {
            // Something else may have taken its place.
            let _ = set_time(&path, mtime);
        }
        Ok(())
    }

    fn entries<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<(), UnpackError> {
        // Names of files with several: the first carries the contents.
        let mut links: HashMap<u32, PathBuf> = HashMap::new();
        while let Some(entry) = reader.next_entry()? {
            self.entries_left = self
                .entries_left
                .checked_sub(1)
                .ok_or(UnpackError::TooMany)?;
            let Some(path) = self.place(&entry)? else {
                continue;
            };
            let written = match entry.kind {
                Kind::Directory => make_folder(&path),
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
                            fill(reader, &path)?;
                        }
                        Ok(())
                    }
                    _ => {
                        if entry.links > 1 {
                            links.insert(entry.inode, path.clone());
                        }
                        fill(reader, &path)
                    }
                }),
                Kind::Fifo => replace(&path).and_then(|()| make_node(&path, SFlag::S_IFIFO)),
                Kind::Socket => replace(&path).and_then(|()| make_node(&path, SFlag::S_IFSOCK)),
                Kind::CharDevice | Kind::BlockDevice => continue,
            };
            written.map_err(|source| self.write_error(&entry, source))?;
            self.describe(path, &entry)?;
        }
        Ok(())
    }

    /// Gives what was unpacked its owner, permissions and time, in the order of the
    /// kernel: another owner takes set-user-id away.
    fn describe(&mut self, path: PathBuf, entry: &Entry) -> Result<(), UnpackError> {
        if self.owners == Owners::Image {
            lchown(&path, Some(entry.uid), Some(entry.gid)).map_err(|source| {
                if source.raw_os_error() == Some(libc::EINVAL) {
                    UnpackError::Owner {
                        entry: display(&entry.name),
                        uid: entry.uid,
                        gid: entry.gid,
                    }
                } else {
                    self.write_error(entry, source)
                }
            })?;
        }
        let permissions = match (self.owners, entry.kind) {
            (_, Kind::Symlink) => None,
            (Owners::Image, _) => Some(entry.permissions & 0o7777),
            (Owners::Caller, Kind::Directory) => Some(entry.permissions & 0o1777 | 0o700),
            (Owners::Caller, _) => Some(entry.permissions & 0o777),
        };
        permissions
            // No link: it was made just now, and nobody else can replace it.
            .map_or(Ok(()), |mode| {
                fs::set_permissions(&path, Permissions::from_mode(mode))
            })
            .and_then(|()| set_time(&path, entry.mtime))
            .map_err(|source| self.write_error(entry, source))?;
        if entry.kind == Kind::Directory {
            self.folders.push((path, entry.mtime));
        }
        Ok(())
    }

    fn write_error(&self, entry: &Entry, source: io::Error) -> UnpackError {
        if source.kind() == io::ErrorKind::StorageFull {
            return UnpackError::TooLarge(self.memory);
        }
        UnpackError::Write {
            entry: display(&entry.name),
            source,
        }
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
fn fill<R: Read>(reader: &mut Reader<R>, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    io::copy(&mut reader.contents(), &mut file)?;
    Ok(())
}

/// Makes a pipe or a socket.
fn make_node(path: &Path, kind: SFlag) -> io::Result<()> {
    Ok(mknod(path, kind, Mode::S_IRUSR | Mode::S_IWUSR, 0)?)
}

/// Sets when it was changed; a link's own time.
fn set_time(path: &Path, mtime: u32) -> io::Result<()> {
    let time = TimeSpec::new(mtime.into(), 0);
    let no_follow = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(AT_FDCWD, path, &time, &time, no_follow)?)
}

fn make_folder(path: &Path) -> io::Result<()> {
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
    Ok(())
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
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::process::Command;

    use eif::cpio::Writer;
    use nix::unistd::geteuid;
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
        Unpacker::new(root, memory(), Owners::Caller).unpack(archive)
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
            named(Kind::Fifo, "pipe", b""),
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
        assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo());
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
    fn size_and_compression_are_bounded() {
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
    }

    /// As the kernel leaves them. Only root may give files away: any other caller tests it
    /// as root of its subordinate ids, if it has them.
    #[test]
    fn owners_permissions_and_times_are_the_images() {
        if !geteuid().is_root() {
            let as_root = |program: &Path| {
                let mut command = Command::new("unshare");
                command.args(["--map-root-user", "--map-auto"]).arg(program);
                command
            };
            if !as_root("true".as_ref())
                .status()
                .is_ok_and(|status| status.success())
            {
                eprintln!("not tested: this user has no subordinate ids");
                return;
            }
            let status = as_root(&std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "ramdisk::tests::owners_permissions_and_times_are_the_images",
                ])
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let owned = |name: &str, kind, permissions, size| Entry {
            permissions,
            uid: 33,
            gid: 44,
            mtime: 1_000_000,
            ..entry(name, kind, size)
        };
        let bytes = archive(&[
            (owned("d", Kind::Directory, 0o2050, 0), &b""[..]),
            (owned("d/su", Kind::File, 0o6711, 2), b"su"),
            (owned("d/link", Kind::Symlink, 0o777, 2), b"su"),
            (owned("d/pipe", Kind::Fifo, 0o620, 0), b""),
            (owned("d/socket", Kind::Socket, 0o700, 0), b""),
            (owned("d/device", Kind::CharDevice, 0o666, 0), b""),
        ]);
        Unpacker::new(root.path(), memory(), Owners::Image)
            .unpack(bytes.as_slice())
            .unwrap();
        let found = |path: &str| fs::symlink_metadata(root.path().join(path)).unwrap();
        for (path, mode) in [
            ("d", 0o2050),
            ("d/su", 0o6711),
            ("d/link", 0o777),
            ("d/pipe", 0o620),
            ("d/socket", 0o700),
        ] {
            let found = found(path);
            assert_eq!((found.uid(), found.gid()), (33, 44), "{path}");
            assert_eq!(found.mode() & 0o7777, mode, "{path}");
            assert_eq!(found.mtime(), 1_000_000, "{path}");
        }
        assert!(found("d/pipe").file_type().is_fifo());
        assert!(found("d/socket").file_type().is_socket());
        assert!(!root.path().join("d/device").exists());
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
