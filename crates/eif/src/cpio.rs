//! cpio archives in the "new ASCII" (newc) format, which the kernel unpacks
//! into its initramfs (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! An entry is a header of 110 ASCII characters, its name with a zero byte,
//! padding to four bytes, its contents, padding again. An entry named
//! `TRAILER!!!` ends the archive.

use std::io::{self, Read, Take, Write};

use thiserror::Error;

/// Longest name of an entry in bytes (`PATH_MAX` without its zero byte).
pub const MAX_NAME: usize = 4095;
/// Largest contents of one entry: sizes are 32 bits wide.
pub const MAX_CONTENTS: u64 = u32::MAX as u64;

const MAGIC: &[u8; 6] = b"070701";
const HEADER_BYTES: usize = 110;
const FIELDS: usize = 13;
const TRAILER: &[u8] = b"TRAILER!!!";

/// Mode bits that hold an entry's type.
const TYPE_MASK: u32 = 0o170_000;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its contents are the target.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path without a leading slash, as raw bytes.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, including set-user-id, set-group-id and sticky.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number: entries that share it, and have more than one link, are one file.
    pub inode: u32,
    /// Number of names that the file has.
    pub links: u32,
    /// Modification time, seconds since 1970.
    pub mtime: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of the contents in bytes.
    pub size: u32,
}

impl Entry {
    /// An entry of root's, with one name, at the beginning of time.
    pub fn new(name: impl Into<Vec<u8>>, kind: Kind, permissions: u32, size: u32) -> Self {
        Self {
            name: name.into(),
            kind,
            permissions,
            uid: 0,
            gid: 0,
            inode: 0,
            links: 1,
            mtime: 0,
            device: (0, 0),
            size,
        }
    }
}

/// Why an archive could not be read.
#[derive(Debug, Error)]
pub enum CpioError {
    /// Reading failed, or the archive ended early.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
    /// An entry does not begin with the format's magic number.
    #[error("an entry begins with {0:?} instead of \"070701\": not a newc archive, or damaged")]
    Magic(String),
    /// A header's field is not eight hexadecimal digits.
    #[error("an entry's header has the field {0:?}, which is not a hexadecimal number")]
    Field(String),
    /// A name is empty, too long or not terminated.
    #[error(
        "an entry's name has {0} bytes or does not end in a zero byte; at most {MAX_NAME} are allowed"
    )]
    Name(u32),
    /// A mode's type bits have no meaning.
    #[error("an entry has the unknown mode {0:o}")]
    Mode(u32),
    /// Something other than zeros behind the last entry.
    #[error("data follow the end of the archive")]
    Trailing,
}

impl Kind {
    const fn bits(self) -> u32 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }

    const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & TYPE_MASK {
            0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    position: u64,
}

impl<W: Write> Writer<W> {
    /// A writer of a new archive.
    pub fn new(output: W) -> Self {
        Self {
            output,
            position: 0,
        }
    }

    /// Writes an entry and exactly `entry.size` bytes of `contents`; fails when
    /// there are fewer.
    pub fn append(&mut self, entry: &Entry, contents: impl Read) -> io::Result<()> {
        if entry.name.is_empty() || entry.name.len() > MAX_NAME || entry.name.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a name of {} bytes cannot be archived", entry.name.len()),
            ));
        }
        self.write_header(entry)?;
        let size = u64::from(entry.size);
        let copied = io::copy(&mut contents.take(size), &mut self.output)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} has {copied} bytes instead of {size}",
                    String::from_utf8_lossy(&entry.name)
                ),
            ));
        }
        self.position += size;
        self.pad()
    }

    /// Writes the archive's end and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_header(&Entry::new(TRAILER, Kind::File, 0, 0))?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn write_header(&mut self, entry: &Entry) -> io::Result<()> {
        let mode = match entry.name.as_slice() {
            TRAILER => 0,
            _ => entry.kind.bits() | (entry.permissions & !TYPE_MASK),
        };
        let name_size =
            u32::try_from(entry.name.len() + 1).expect("names have at most MAX_NAME bytes");
        let mut header = String::with_capacity(HEADER_BYTES);
        header.push_str("070701");
        for field in [
            entry.inode,
            mode,
            entry.uid,
            entry.gid,
            entry.links,
            entry.mtime,
            entry.size,
            0,
            0,
            entry.device.0,
            entry.device.1,
            name_size,
            0,
        ] {
            use std::fmt::Write as _;
            // Writing to a string cannot fail.
            let _ = write!(header, "{field:08x}");
        }
        self.output.write_all(header.as_bytes())?;
        self.output.write_all(&entry.name)?;
        self.output.write_all(&[0])?;
        self.position += (HEADER_BYTES + entry.name.len() + 1) as u64;
        self.pad()
    }

    fn pad(&mut self) -> io::Result<()> {
        let count = padding(self.position);
        self.output
            .write_all([0; 3].get(..count).expect("at most three bytes of padding"))?;
        self.position += count as u64;
        Ok(())
    }
}

/// Reads an archive entry by entry.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    position: u64,
    /// Contents of the current entry that have not been read yet.
    left: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// A reader of the archive in `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            position: 0,
            left: 0,
            ended: false,
        }
    }

    /// The next entry, or `None` at the archive's end. What is left of the
    /// entry before is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, CpioError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_contents()?;
        let mut header = [0; HEADER_BYTES];
        self.read_exact(&mut header)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(CpioError::Magic(
                String::from_utf8_lossy(magic).into_owned(),
            ));
        }
        let mut fields = [0; FIELDS];
        for (field, digits) in fields.iter_mut().zip(rest.chunks_exact(8)) {
            *field = parse_field(digits)?;
        }
        let [
            inode,
            mode,
            uid,
            gid,
            links,
            mtime,
            size,
            _,
            _,
            major,
            minor,
            name_size,
            _,
        ] = fields;
        let name = self.read_name(name_size)?;
        self.align()?;
        if name == TRAILER {
            self.ended = true;
            return self.check_end().map(|()| None);
        }
        self.left = size.into();
        Ok(Some(Entry {
            name,
            kind: Kind::from_bits(mode).ok_or(CpioError::Mode(mode))?,
            permissions: mode & !TYPE_MASK,
            uid,
            gid,
            inode,
            links,
            mtime,
            device: (major, minor),
            size,
        }))
    }

    /// The contents of the entry that was read last.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents { reader: self }
    }

    fn read_name(&mut self, size: u32) -> Result<Vec<u8>, CpioError> {
        let length = usize::try_from(size).expect("usize has 64 bits");
        if !(2..=MAX_NAME + 1).contains(&length) {
            return Err(CpioError::Name(size));
        }
        let mut name = vec![0; length];
        self.read_exact(&mut name)?;
        match name.pop() {
            Some(0) if !name.contains(&0) => Ok(name),
            _ => Err(CpioError::Name(size)),
        }
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let mut zeros = [0; 3];
        let count = padding(self.position);
        self.read_exact(
            zeros
                .get_mut(..count)
                .expect("at most three bytes of padding"),
        )
    }

    fn skip_contents(&mut self) -> io::Result<()> {
        let left = self.left;
        let skipped = io::copy(&mut self.take_contents(), &mut io::sink())?;
        if skipped != left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += skipped;
        self.left = 0;
        self.align()
    }

    fn take_contents(&mut self) -> Take<&mut R> {
        self.input.by_ref().take(self.left)
    }

    /// Archives are padded with zeros to a block's end; nothing else may follow.
    fn check_end(&mut self) -> Result<(), CpioError> {
        let mut buffer = [0; 512];
        loop {
            match self.input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) if buffer.iter().take(count).all(|&byte| byte == 0) => {}
                Ok(_) => return Err(CpioError::Trailing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads the contents of one entry.
#[derive(Debug)]
pub struct Contents<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.reader.left;
        let count = self.reader.take_contents().read(buffer)?;
        if count == 0 && left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reader.left -= count as u64;
        self.reader.position += count as u64;
        Ok(count)
    }
}

fn parse_field(digits: &[u8]) -> Result<u32, CpioError> {
    let malformed = || CpioError::Field(String::from_utf8_lossy(digits).into_owned());
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(malformed());
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(malformed)
}

/// Bytes to the next multiple of four: 0 to 3.
fn padding(position: u64) -> usize {
    (4 - (position % 4) as usize) % 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, kind: Kind, size: u32) -> Entry {
        Entry {
            uid: 1000,
            gid: 100,
            inode: 7,
            ..Entry::new(name, kind, 0o644, size)
        }
    }

    fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, contents) in entries {
            writer.append(entry, contents.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, CpioError> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut contents = Vec::new();
            reader.contents().read_to_end(&mut contents)?;
            entries.push((entry, contents));
        }
        Ok(entries)
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = archive(&[
            (entry("a", Kind::File, 5), b"hello".to_vec()),
            (entry("dir", Kind::Directory, 0), vec![]),
        ]);
        for length in 0..bytes.len() {
            assert!(
                read_all(&bytes[..length]).is_err(),
                "{length} of {}",
                bytes.len()
            );
        }
        assert_eq!(read_all(&bytes).unwrap().len(), 2);
    }

    #[test]
    fn hostile_headers_are_refused() {
        let good = archive(&[(entry("a", Kind::File, 1), vec![1])]);
        let with = |range: std::ops::Range<usize>, bytes: &[u8]| {
            let mut archive = good.clone();
            archive[range].copy_from_slice(bytes);
            read_all(&archive).unwrap_err()
        };
        assert!(matches!(with(0..6, b"070707"), CpioError::Magic(_)));
        assert!(matches!(with(6..14, b"+0000001"), CpioError::Field(_)));
        assert!(matches!(with(14..22, b"00000000"), CpioError::Mode(0)));
        assert!(matches!(
            with(94..102, b"ffffffff"),
            CpioError::Name(u32::MAX)
        ));
        assert!(matches!(with(94..102, b"00000001"), CpioError::Name(1)));
        assert!(matches!(with(54..62, b"ffffffff"), CpioError::Io(_)));
        let mut trailing = good.clone();
        trailing.push(1);
        assert!(matches!(read_all(&trailing), Err(CpioError::Trailing)));
    }

    #[test]
    fn short_contents_are_not_written_silently() {
        let mut writer = Writer::new(Vec::new());
        assert!(
            writer
                .append(&entry("a", Kind::File, 2), &b"x"[..])
                .is_err()
        );
        assert!(writer.append(&entry("", Kind::File, 0), &b""[..]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(contents in proptest::collection::vec((
            "[a-z/]{1,40}", proptest::collection::vec(any::<u8>(), 0..300)), 0..8))
        {
            let entries: Vec<_> = contents.into_iter()
                .map(|(name, bytes)| (entry(&name, Kind::File, u32::try_from(bytes.len()).unwrap()), bytes))
                .collect();
            prop_assert_eq!(read_all(&archive(&entries)).unwrap(), entries);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_all(&bytes);
        }
    }
}
