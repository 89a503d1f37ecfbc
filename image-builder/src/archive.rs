//! Reading tar archives (POSIX.1-2017, "pax", "ustar Interchange Format"; GNU
//! tar's manual, "Basic Tar Format").
//!
//! The `tar` crate parses header fields. Walking the archive is done here: long
//! names and extended headers must not grow memory, a file is never read only
//! to get past it, and what another program would read differently is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tar::Header;
use thiserror::Error;

use crate::large_file::advice;
use crate::left_out::Attributes;
use crate::node::{Content, Metadata};

/// Longest name in a GNU header: Linux's `PATH_MAX`, with its zero byte.
const MAX_LONG_NAME: u64 = 4096;
/// Largest extended header: names, and attributes that are left out.
const MAX_EXTENDED: u64 = 1024 * 1024;
const BLOCK: u64 = 512;
/// Where a header's type is.
const TYPE: usize = 156;
/// Where a header's checksum is, which it counts as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// What ends a header of the star program.
const STAR: &[u8] = b"tar\0";

/// Why an archive cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ArchiveError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the archive ends in the middle of an entry: it is truncated")]
    Truncated,
    #[error("the archive's header at byte {0} is not one of a tar file: it is damaged")]
    Header(u64),
    #[error("the archive's extended header at byte {0} cannot be read: it is damaged")]
    Extended(u64),
    #[error(
        "the archive's global header at byte {0} changes what the entries are, which programs differ on: make the archive without it"
    )]
    Global(u64),
    #[error(
        "the archive's extended header or long name at byte {0} is the second of its kind for one entry, and programs differ on which counts: make the archive with one of them"
    )]
    Second(u64),
    #[error(
        "the archive's extended header at byte {0} has two values for `{1}`, and programs differ on which counts: make the archive with one of them"
    )]
    TwoValues(u64, String),
    #[error(
        "the archive's header at byte {0} is of the star program's own format, whose names programs read differently: make the archive in the pax format"
    )]
    Star(u64),
    #[error("an extended header or long name has {0} bytes, more than is allowed")]
    TooLong(u64),
    #[error("entry {name}: {reason}{}", advice(.name))]
    Entry { name: String, reason: &'static str },
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Directory,
    File,
    Symlink,
    HardLink,
    Fifo,
    Device,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Type,
    pub(crate) metadata: Metadata,
    pub(crate) attributes: Attributes,
    /// What a link points to.
    pub(crate) target: Vec<u8>,
    /// A file's bytes.
    pub(crate) content: Content,
}

/// The entries of the archive in a range of a file.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    file: &'a File,
    start: u64,
    position: u64,
    end: u64,
    long_name: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
    extended: Option<Extended>,
}

/// The values of an extended header that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extended {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    attributes: Attributes,
    sparse: bool,
    sparse_name: Option<Vec<u8>>,
    is_attribute_too_long: bool,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(file: &'a File, range: Content) -> Self {
        Self {
            file,
            start: range.offset,
            position: range.offset,
            end: range.offset.saturating_add(range.size),
            long_name: None,
            long_target: None,
            extended: None,
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        loop {
            let at = self.offset();
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size, header.entry_size(), at)?;
            match header.as_bytes()[TYPE] {
                b'L' => {
                    let name = self.read_long_name(size)?;
                    only(&mut self.long_name, name, at)?;
                }
                b'K' => {
                    let target = self.read_long_name(size)?;
                    only(&mut self.long_target, target, at)?;
                }
                b'x' => {
                    let extended = self.read_extended(size, at)?;
                    only(&mut self.extended, extended, at)?;
                }
                // Go's archive/tar, with which container runtimes unpack, ignores what it says
                // of the entries that follow, and GNU tar does not.
                b'g' => {
                    let global = self.read_extended(size, at)?;
                    if global != Extended::default() {
                        return Err(ArchiveError::Global(at));
                    }
                }
                kind => return self.entry(&header, kind, size, at).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: u8,
        size: u64,
        at: u64,
    ) -> Result<Entry, ArchiveError> {
        let extended = self.extended.take().unwrap_or_default();
        let long_name = self.long_name.take();
        let long_target = self.long_target.take();
        // GNU tar and Go do not agree on which counts.
        let is_named_twice = differ(extended.name.as_ref(), long_name.as_ref())
            || differ(extended.target.as_ref(), long_target.as_ref());
        let name = extended
            .sparse_name
            .or(extended.name)
            .or(long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let refuse = |reason| ArchiveError::Entry {
            name: String::from_utf8_lossy(&name).into_owned(),
            reason,
        };
        if is_named_twice {
            return Err(refuse(
                "its two long names, of GNU tar's kind and of POSIX's, are not the same: make the archive with one of them",
            ));
        }
        // The oldest archives mark a directory by its name alone.
        let is_old_directory = kind == 0 && name.ends_with(b"/");
        let kind = match kind {
            0 if is_old_directory => Type::Directory,
            0 | b'0' | b'7' => Type::File,
            b'1' => Type::HardLink,
            b'2' => Type::Symlink,
            b'3' | b'4' => Type::Device,
            b'5' => Type::Directory,
            b'6' => Type::Fifo,
            b'S' => {
                return Err(refuse(
                    "sparse files are not supported: archive it whole, or leave it out",
                ));
            }
            _ => return Err(refuse("it has a type that layers do not have")),
        };
        if extended.is_attribute_too_long {
            return Err(refuse(
                "an extended attribute has a name that Linux does not take, of more than 255 bytes: archive it without",
            ));
        }
        if extended.sparse {
            return Err(refuse(
                "sparse files are not supported: archive it whole, or leave it out",
            ));
        }
        let target = extended.target.or(long_target).unwrap_or_else(|| {
            let target = header.link_name_bytes();
            target.map(std::borrow::Cow::into_owned).unwrap_or_default()
        });
        let old = header.as_old();
        // The last number means "leave it as it is" to Linux.
        let id = |value: u64| match u32::try_from(value) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(refuse("its user or group id is larger than Linux's")),
        };
        let uid = number(&old.uid, header.uid(), at)?;
        let gid = number(&old.gid, header.gid(), at)?;
        let permissions = number(&old.mode, header.mode().map(u64::from), at)?;
        let metadata = Metadata {
            permissions: u32::try_from(permissions & 0o7777).expect("twelve bits"),
            uid: id(extended.uid.unwrap_or(uid))?,
            gid: id(extended.gid.unwrap_or(gid))?,
        };
        // As Go's archive/tar, with which images are written: what is no file
        // has no contents, whatever its header says.
        let content = match kind {
            Type::File => self.take(extended.size.unwrap_or(size))?,
            _ => self.take(if is_old_directory { size } else { 0 })?,
        };
        Ok(Entry {
            name,
            kind,
            metadata,
            attributes: extended.attributes,
            target,
            content,
        })
    }

    /// The next header, or `None` at the archive's end.
    fn read_header(&mut self) -> Result<Option<Header>, ArchiveError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let at = self.offset();
        let mut header = Header::new_old();
        let Content { offset, .. } = self.take(BLOCK)?;
        self.file.read_exact_at(header.as_mut_bytes(), offset)?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            self.check_end(at)?;
            self.position = self.end;
            return Ok(None);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(index, &byte)| {
                let counted = if CHECKSUM.contains(&index) {
                    b' '
                } else {
                    byte
                };
                u32::from(counted)
            })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(ArchiveError::Header(at));
        }
        // Go's archive/tar ends the prefix of such a name after 131 bytes, others after 155.
        if header.as_bytes().ends_with(STAR) {
            return Err(ArchiveError::Star(at));
        }
        Ok(Some(header))
    }

    /// How far it is from the archive's start.
    fn offset(&self) -> u64 {
        self.position - self.start
    }

    /// Two blocks of zeros are the end, and so is one if it is the last: after one of two,
    /// some programs read on.
    fn check_end(&self, at: u64) -> Result<(), ArchiveError> {
        let left = self.end.saturating_sub(self.position).min(BLOCK);
        let mut next = vec![0; usize::try_from(left).expect("at most a block")];
        self.file.read_exact_at(&mut next, self.position)?;
        if next.iter().any(|&byte| byte != 0) {
            return Err(ArchiveError::Header(at));
        }
        Ok(())
    }

    /// Steps over contents of this size.
    fn take(&mut self, size: u64) -> Result<Content, ArchiveError> {
        let offset = self.position;
        let end = offset.checked_add(size);
        if end.is_none_or(|end| end > self.end) {
            return Err(ArchiveError::Truncated);
        }
        self.position = offset.saturating_add(size.next_multiple_of(BLOCK));
        Ok(Content { offset, size })
    }

    fn read(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > limit {
            return Err(ArchiveError::TooLong(size));
        }
        let Content { offset, .. } = self.take(size)?;
        let mut bytes = vec![0; usize::try_from(size).expect("usize has 64 bits")];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn read_extended(&mut self, size: u64, at: u64) -> Result<Extended, ArchiveError> {
        let bytes = self.read(size, MAX_EXTENDED)?;
        let records = Records(&bytes).collect::<Option<Vec<_>>>();
        let records = records.ok_or(ArchiveError::Extended(at))?;
        let mut extended = Extended::default();
        let mut values = BTreeMap::new();
        for (key, value) in records {
            // Programs differ on an empty value after another, too.
            if *values.entry(key).or_insert(value) != value {
                let key = String::from_utf8_lossy(key).into_owned();
                return Err(ArchiveError::TwoValues(at, key));
            }
            extended.set(key, value).ok_or(ArchiveError::Extended(at))?;
        }
        Ok(extended)
    }

    fn read_long_name(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.read(size, MAX_LONG_NAME)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_entry().transpose();
        if matches!(next, Some(Err(_))) {
            self.position = self.end;
        }
        next
    }
}

/// The records of an extended header, of the form `LENGTH KEY=VALUE\n`, where the length
/// counts all of it; `None` for what is no record.
struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().position(|&byte| byte == b' ')?;
        let (digits, _) = self.0.split_at_checked(space)?;
        let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let (record, rest) = self.0.split_at_checked(length)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = record.split_at_checked(equals)?;
        self.0 = rest;
        Some((key, value.get(1..)?))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.record())
    }
}

impl Extended {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match key {
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse = true;
                // Its path is another, which says nothing to people.
                if key == b"GNU.sparse.name" {
                    self.sparse_name = Some(value.to_vec());
                }
            }
            // An empty value takes back one that was set for all entries.
            _ if value.is_empty() => {}
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            // Times and names of owners.
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.is_attribute_too_long |= self.attributes.set(name, value).is_none();
                }
            }
        }
        Some(())
    }
}

/// Keeps what may be there once before an entry.
fn only<T>(place: &mut Option<T>, value: T, at: u64) -> Result<(), ArchiveError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ArchiveError::Second(at)),
    }
}

/// Whether both are there and not the same.
fn differ(one: Option<&Vec<u8>>, other: Option<&Vec<u8>>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// A header's number; some programs leave the field blank for zero.
fn number(field: &[u8], value: io::Result<u64>, at: u64) -> Result<u64, ArchiveError> {
    if field.iter().all(|&byte| byte == 0 || byte == b' ') {
        return Ok(0);
    }
    value.map_err(|_| ArchiveError::Header(at))
}
