//! Writing an image in one pass over its parts.

use std::fmt;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};

use crc32fast::Hasher;

use crate::format::{HEADER_BYTES, MAX_RAMDISKS, SECTION_HEADER_BYTES, SectionKind};
use crate::header::{Architecture, CRC_OFFSET, Extent, Header, SectionHeader};
use crate::measure::{COPY_BYTES, Measurer};
use crate::signature::Signer;
use crate::{Error, Measurements, Metadata};

/// The parts of an image. Kernel and ramdisks are read once, from where the
/// readers stand to their ends; their sizes need not be known.
pub struct Image<'a> {
    /// The processor that the image is for.
    pub architecture: Architecture,
    /// Memory to start with unless told otherwise, in bytes.
    pub default_memory: u64,
    /// CPUs to start with unless told otherwise.
    pub default_cpus: u64,
    /// The kernel.
    pub kernel: &'a mut dyn Read,
    /// The kernel's command line, at most
    /// [`MAX_COMMAND_LINE`](crate::MAX_COMMAND_LINE) bytes without a zero byte.
    pub command_line: &'a str,
    /// The build's description, at most [`MAX_METADATA`](crate::MAX_METADATA)
    /// bytes as JSON.
    pub metadata: &'a Metadata,
    /// The boot ramdisk, then the application's: 1 to
    /// [`MAX_RAMDISKS`](crate::MAX_RAMDISKS).
    pub ramdisks: Vec<&'a mut dyn Read>,
    /// Signs PCR0, if given.
    pub signer: Option<&'a Signer>,
}

impl fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("architecture", &self.architecture)
            .field("default_memory", &self.default_memory)
            .field("default_cpus", &self.default_cpus)
            .field("command_line", &self.command_line)
            .field("metadata", &self.metadata)
            .field("ramdisks", &self.ramdisks.len())
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

/// Writes `image`, version 4, to `output`, which must be empty, and gives the
/// measurements of what was written. After an error the output is unusable.
///
/// The same parts give the same bytes, but for the signature (see [`Signer`]).
pub fn write<W: Write + Seek>(image: Image<'_>, output: &mut W) -> Result<Measurements, Error> {
    if !(1..=MAX_RAMDISKS).contains(&image.ramdisks.len()) {
        return Err(Error::Ramdisks(image.ramdisks.len()));
    }
    if let Some(at) = image.command_line.find('\0') {
        return Err(Error::CommandLine(at));
    }
    let metadata = serde_json::to_vec(image.metadata).map_err(Error::MetadataJson)?;
    SectionKind::CommandLine.check_size(image.command_line.len() as u64)?;
    SectionKind::Metadata.check_size(metadata.len() as u64)?;
    if output.seek(SeekFrom::End(0)).map_err(Error::Write)? != 0 {
        return Err(Error::OutputNotEmpty);
    }

    let header = Header::new(image.architecture, image.default_memory, image.default_cpus);
    output
        .write_all(&header.encode(&[]))
        .map_err(Error::Write)?;
    let mut writer = Writer {
        output,
        header,
        extents: Vec::new(),
        measurer: Measurer::new(),
        crc: Hasher::new(),
        position: HEADER_BYTES as u64,
    };
    writer.section(SectionKind::Kernel, image.kernel)?;
    writer.section(SectionKind::CommandLine, &mut image.command_line.as_bytes())?;
    writer.section(SectionKind::Metadata, &mut metadata.as_slice())?;
    for ramdisk in image.ramdisks {
        writer.section(SectionKind::Ramdisk, ramdisk)?;
    }
    let mut measurements = writer.measurer.clone().finish();
    if let Some(signer) = image.signer {
        let section = signer.sign(measurements.pcr0)?;
        SectionKind::Signature.check_size(section.len() as u64)?;
        writer.section(SectionKind::Signature, &mut section.as_slice())?;
        measurements.pcr8 = Some(signer.pcr8());
    }
    writer.finish()?;
    Ok(measurements)
}

struct Writer<'a, W> {
    output: &'a mut W,
    header: Header,
    extents: Vec<Extent>,
    measurer: Measurer,
    /// Over everything behind the image's header.
    crc: Hasher,
    position: u64,
}

impl<W: Write + Seek> Writer<'_, W> {
    /// Copies one section; its size is known, and written, once it has ended.
    fn section(&mut self, kind: SectionKind, contents: &mut dyn Read) -> Result<(), Error> {
        let offset = self.position;
        self.write(&SectionHeader { kind, size: 0 }.encode())?;
        self.measurer.section(kind);
        let mut crc = Hasher::new();
        let mut size: u64 = 0;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match contents.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Input { kind, source }),
            };
            let bytes = buffer.get(..count).expect("it was read into the buffer");
            self.write(bytes)?;
            self.measurer.update(bytes);
            crc.update(bytes);
            size = size.checked_add(count as u64).ok_or(Error::TooLarge)?;
        }
        let header = SectionHeader { kind, size }.encode();
        self.seek(offset)?;
        self.write(&header)?;
        self.crc.update(&header);
        self.crc.combine(&crc);
        self.position = offset
            .checked_add(SECTION_HEADER_BYTES as u64)
            .and_then(|contents| contents.checked_add(size))
            .ok_or(Error::TooLarge)?;
        self.seek(self.position)?;
        self.extents.push(Extent { offset, size });
        Ok(())
    }

    /// Writes the header, now that everything in it is known.
    fn finish(mut self) -> Result<(), Error> {
        let mut crc = Hasher::new();
        let bytes = self.header.encode(&self.extents);
        crc.update(bytes.get(..CRC_OFFSET).expect("a header is longer"));
        crc.combine(&self.crc);
        self.header.crc32 = crc.finalize();
        self.seek(0)?;
        self.write(&self.header.encode(&self.extents))?;
        self.seek(self.position)?;
        self.output.flush().map_err(Error::Write)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.write_all(bytes).map_err(Error::Write)
    }

    fn seek(&mut self, offset: u64) -> Result<(), Error> {
        let position = self.output.seek(SeekFrom::Start(offset));
        position.map(|_| ()).map_err(Error::Write)
    }
}
