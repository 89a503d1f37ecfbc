//! Writing an image in one pass over its parts.

use std::io::{Read, Seek, SeekFrom, Write};

use crc32fast::Hasher;

use crate::header::{
    Architecture, HEADER_BYTES, Header, MAX_COMMAND_LINE, MAX_METADATA, MAX_SECTIONS,
    SECTION_HEADER_BYTES, SectionKind,
};
use crate::measure::Measurer;
use crate::signature::Signer;
use crate::{Error, Measurements, Metadata};

/// Bytes copied at a time.
pub(crate) const COPY_BYTES: usize = 64 * 1024;
/// Sections that are not ramdisks: kernel, command line, metadata, signature.
const OTHER_SECTIONS: usize = 4;

/// The parts of an image. Kernel and ramdisks are read once, from where the
/// readers stand to their ends.
pub struct Image<'a> {
    /// The processor that the image is for.
    pub architecture: Architecture,
    /// Memory to start with unless told otherwise, in bytes.
    pub default_memory: u64,
    /// CPUs to start with unless told otherwise.
    pub default_cpus: u64,
    /// The kernel.
    pub kernel: &'a mut dyn Read,
    /// The kernel's command line, at most [`MAX_COMMAND_LINE`] bytes.
    pub command_line: &'a str,
    /// The build's description, at most [`MAX_METADATA`] bytes as JSON.
    pub metadata: &'a Metadata,
    /// The boot ramdisk, then the application's.
    pub ramdisks: Vec<&'a mut dyn Read>,
    /// Signs PCR0, if given.
    pub signer: Option<&'a Signer>,
}

/// Writes `image` to `output`, which must be empty and stand at its start, and
/// gives the measurements of what was written.
pub fn write<W: Write + Seek>(image: Image<'_>, output: &mut W) -> Result<Measurements, Error> {
    if image.ramdisks.is_empty() {
        return Err(Error::NoRamdisk);
    }
    if image.ramdisks.len() > MAX_SECTIONS - OTHER_SECTIONS {
        return Err(Error::TooManyRamdisks(image.ramdisks.len()));
    }
    if image.command_line.contains('\0') {
        return Err(Error::CommandLine);
    }
    let metadata = serde_json::to_vec(image.metadata).map_err(Error::Metadata)?;
    check_limit(
        SectionKind::CommandLine,
        image.command_line.len(),
        MAX_COMMAND_LINE,
    )?;
    check_limit(SectionKind::Metadata, metadata.len(), MAX_METADATA)?;

    let header = Header::new(image.architecture, image.default_memory, image.default_cpus);
    output.write_all(&header.encode())?;
    let mut writer = Writer {
        output,
        header,
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
    let measurer = std::mem::replace(&mut writer.measurer, Measurer::new());
    let mut measurements = measurer.finish();
    if let Some(signer) = image.signer {
        let section = signer.sign(measurements.pcr0)?;
        writer.section(SectionKind::Signature, &mut section.as_slice())?;
        measurements.pcr8 = Some(signer.pcr8());
    }
    writer.finish()?;
    Ok(measurements)
}

fn check_limit(kind: SectionKind, size: usize, limit: u64) -> Result<(), Error> {
    match u64::try_from(size) {
        Ok(size) if size <= limit => Ok(()),
        _ => Err(Error::SectionLimit {
            kind,
            size: u64::try_from(size).unwrap_or(u64::MAX),
        }),
    }
}

struct Writer<'a, W> {
    output: &'a mut W,
    header: Header,
    measurer: Measurer,
    /// Over everything behind the image's header.
    crc: Hasher,
    position: u64,
}

impl<W: Write + Seek> Writer<'_, W> {
    /// Copies one section; its size is known, and written, once it has ended.
    fn section(&mut self, kind: SectionKind, contents: &mut dyn Read) -> Result<(), Error> {
        let start = self.position;
        self.output.write_all(&section_header(kind, 0))?;
        self.measurer.section(kind);
        let mut crc = Hasher::new();
        let mut size: u64 = 0;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match contents.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            self.output.write_all(bytes)?;
            self.measurer.update(bytes);
            crc.update(bytes);
            size = size.checked_add(count as u64).ok_or(Error::TooLarge)?;
        }
        let header = section_header(kind, size);
        self.output.seek(SeekFrom::Start(start))?;
        self.output.write_all(&header)?;
        self.crc.update(&header);
        self.crc.combine(&crc);
        self.position = start
            .checked_add(SECTION_HEADER_BYTES as u64)
            .and_then(|position| position.checked_add(size))
            .ok_or(Error::TooLarge)?;
        self.output.seek(SeekFrom::Start(self.position))?;
        self.header.sections.push((start, size));
        Ok(())
    }

    /// Writes the header, now that everything in it is known.
    fn finish(mut self) -> Result<(), Error> {
        let mut crc = Hasher::new();
        let bytes = self.header.encode();
        crc.update(bytes.get(..crate::header::CRC_OFFSET).unwrap_or_default());
        crc.combine(&self.crc);
        self.header.crc32 = crc.finalize();
        self.output.seek(SeekFrom::Start(0))?;
        self.output.write_all(&self.header.encode())?;
        self.output.seek(SeekFrom::Start(self.position))?;
        self.output.flush()?;
        Ok(())
    }
}

fn section_header(kind: SectionKind, size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SECTION_HEADER_BYTES);
    bytes.extend(kind.code().to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(size.to_be_bytes());
    bytes
}
