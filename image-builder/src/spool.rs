//! One unnamed temporary file that holds every layer's archive, end to end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::archive::{ArchiveError, Entries};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::node::Content;

const COPY_BYTES: usize = 64 * 1024;

/// The file, and how much it may still take.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    end: u64,
    limit: u64,
}

/// Why something could not be put into the spool.
#[derive(Debug)]
pub(crate) enum SpoolError {
    /// The source could not be read.
    Source(io::Error),
    /// The temporary file could not be written.
    Temporary(io::Error),
    /// There is more than the spool's limit.
    Full,
}

impl Spool {
    /// An empty spool for at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            end: 0,
            limit,
        })
    }

    /// Copies everything from the source; says where it is.
    pub(crate) fn append(&mut self, source: impl Read) -> Result<Content, SpoolError> {
        let (place, _) = self.append_hashed(source, Algorithm::default())?;
        Ok(place)
    }

    /// The same, with its digest.
    pub(crate) fn append_hashed(
        &mut self,
        mut source: impl Read,
        algorithm: Algorithm,
    ) -> Result<(Content, Digest), SpoolError> {
        let start = self.end;
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SpoolError::Source(error)),
            };
            let bytes = buffer.get(..count).expect("it was read into the buffer");
            let end = self.end.saturating_add(count as u64);
            if end > self.limit {
                return Err(SpoolError::Full);
            }
            hasher.update(bytes);
            self.file.write_all(bytes).map_err(SpoolError::Temporary)?;
            self.end = end;
        }
        let place = Content {
            offset: start,
            size: self.end - start,
        };
        Ok((place, hasher.finish()))
    }

    /// How many bytes it may still take.
    pub(crate) fn left(&self) -> u64 {
        self.limit - self.end
    }

    /// The user whose file it is, who runs this.
    pub(crate) fn owner(&self) -> io::Result<u32> {
        Ok(self.file.metadata()?.uid())
    }

    /// The file itself.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Where what is appended next will begin.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The entries of an archive in it.
    pub(crate) fn entries(
        &self,
        archive: Content,
    ) -> impl Iterator<Item = Result<crate::archive::Entry, ArchiveError>> {
        Entries::new(&self.file, archive)
    }

    /// Reads a part of it.
    pub(crate) fn reader(&self, content: Content) -> Range<'_> {
        Range::new(&self.file, content)
    }
}

/// Reads a range of a file; any number may read at the same time.
#[derive(Debug)]
pub(crate) struct Range<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl<'a> Range<'a> {
    pub(crate) fn new(file: &'a File, Content { offset, size }: Content) -> Self {
        Self {
            file,
            offset,
            left: size,
        }
    }
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = buffer.get_mut(..most).expect("at most the buffer");
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
