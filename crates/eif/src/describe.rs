//! Everything that can be said about an image, also about a broken one.

use std::io::{Read, Seek};

use crc32fast::Hasher;
use serde::{Serialize, Serializer};

use crate::certificate::Certificate;
use crate::format::SectionKind;
use crate::header::{Architecture, CRC_OFFSET, Header, SectionHeader};
use crate::measure::{COPY_BYTES, Measurer};
use crate::metadata::{BuildMetadata, Json, Metadata};
use crate::section::{Layout, Section};
use crate::signature::Signature;
use crate::{Error, Measurements};

/// An image's description.
///
/// Serialised with the names that `nitro-cli describe-eif` prints, among them
/// `Measurements`, and some of our own: `Architecture`, `DefaultMemory` in
/// bytes, `DefaultCpus`, `CommandLine`, `Sections`, `Problems`.
#[derive(Debug)]
pub struct Description {
    /// The image's header.
    pub header: Header,
    /// Every section in file order.
    pub sections: Vec<Section>,
    /// The CRC-32 of the bytes read; the header has the one that was stored.
    pub crc32: u32,
    /// The measurements of the contents as they are. PCR8 is there only if the
    /// signature holds.
    pub measurements: Measurements,
    /// The kernel's command line, if it is text.
    pub command_line: Option<String>,
    /// The build's description, if there is one that can be read. Not measured.
    pub metadata: Option<Metadata>,
    /// The signature, if there is one that holds.
    pub signature: Option<Signature>,
    /// What is wrong with the image; it is sound if this is empty.
    pub problems: Vec<Error>,
}

/// Reads the whole image once. Only an image without a sound structure is an
/// error here; every other finding is among the description's `problems`.
pub fn describe<R: Read + Seek>(mut reader: R) -> Result<Description, Error> {
    let layout = Layout::read(&mut reader)?;
    let (mut measurements, crc32) = scan(&mut reader, &layout)?;
    let mut problems = Vec::new();
    if crc32 != layout.header.crc32 {
        problems.push(Error::Crc {
            stored: layout.header.crc32,
            computed: crc32,
        });
    }
    let mut load = |kind| {
        let section = layout.find(kind);
        section.map(|section| section.load(&mut reader)).transpose()
    };
    let mut keep = |problem| problems.push(problem);
    let command_line = load(SectionKind::CommandLine)?
        .and_then(|bytes| parse_command_line(bytes).map_err(&mut keep).ok());
    let metadata = load(SectionKind::Metadata)?.and_then(|bytes| {
        serde_json::from_slice(&bytes)
            .map_err(|error| keep(Error::Metadata(error)))
            .ok()
    });
    let signature = load(SectionKind::Signature)?.and_then(|bytes| {
        Signature::verify(&bytes, measurements.pcr0)
            .map_err(|error| keep(error.into()))
            .ok()
    });
    measurements.pcr8 = signature.as_ref().map(Signature::pcr8);
    Ok(Description {
        header: layout.header,
        sections: layout.sections,
        crc32,
        measurements,
        command_line,
        metadata,
        signature,
        problems,
    })
}

/// Reads all sections once, for their measurements and the file's CRC.
fn scan<R: Read + Seek>(reader: &mut R, layout: &Layout) -> Result<(Measurements, u32), Error> {
    let mut measurer = Measurer::new();
    let mut crc = Hasher::new();
    // Headers are canonical: written anew, they are the bytes of the file.
    let header = layout.header_bytes();
    crc.update(header.get(..CRC_OFFSET).expect("a header is longer"));
    let mut buffer = vec![0; COPY_BYTES];
    for section in &layout.sections {
        let Section { kind, size, .. } = *section;
        crc.update(&SectionHeader { kind, size }.encode());
        measurer.section(kind);
        let unreadable = |source| section.unreadable(source);
        let mut contents = section.contents(reader).map_err(unreadable)?;
        let mut left = size;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let bytes = buffer
                .get_mut(..step)
                .expect("a step is at most the buffer");
            contents.read_exact(bytes).map_err(unreadable)?;
            crc.update(bytes);
            measurer.update(bytes);
            left -= step as u64;
        }
    }
    Ok((measurer.finish(), crc.finalize()))
}

fn parse_command_line(bytes: Vec<u8>) -> Result<String, Error> {
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::CommandLine(error.utf8_error().valid_up_to()))?;
    match text.find('\0') {
        None => Ok(text),
        Some(at) => Err(Error::CommandLine(at)),
    }
}

impl Description {
    /// Whether the image has a signature section, sound or not.
    pub fn is_signed(&self) -> bool {
        let mut sections = self.sections.iter();
        sections.any(|section| section.kind == SectionKind::Signature)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct View<'a> {
    eif_version: u16,
    architecture: Architecture,
    default_memory: u64,
    default_cpus: u64,
    #[serde(flatten)]
    measurements: Measurements,
    is_signed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_certificate: Option<&'a Certificate>,
    #[serde(rename = "CheckCRC")]
    check_crc: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_check: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<MetadataView<'a>>,
    command_line: Option<&'a str>,
    sections: &'a [Section],
    problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataView<'a> {
    #[serde(flatten)]
    build_metadata: &'a BuildMetadata,
    docker_info: &'a Json,
    custom_metadata: &'a Json,
}

impl Serialize for Description {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = self.metadata.as_ref();
        let is_signed = self.is_signed();
        View {
            eif_version: self.header.version,
            architecture: self.header.architecture,
            default_memory: self.header.default_memory,
            default_cpus: self.header.default_cpus,
            measurements: self.measurements,
            is_signed,
            signing_certificate: self.signature.as_ref().map(Signature::certificate),
            check_crc: self.crc32 == self.header.crc32,
            signature_check: is_signed.then_some(self.signature.is_some()),
            image_name: metadata.map(|metadata| metadata.image_name.as_str()),
            image_version: metadata.map(|metadata| metadata.image_version.as_str()),
            metadata: metadata.map(|metadata| MetadataView {
                build_metadata: &metadata.build_metadata,
                docker_info: &metadata.docker_info,
                custom_metadata: &metadata.custom_metadata,
            }),
            command_line: self.command_line.as_deref(),
            sections: &self.sections,
            problems: self.problems.iter().map(ToString::to_string).collect(),
        }
        .serialize(serializer)
    }
}
