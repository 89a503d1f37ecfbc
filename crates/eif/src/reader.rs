//! Reading an image and checking all of it.

use std::io::{self, Read, Seek};

use crate::describe::{Description, describe};
use crate::header::Header;
use crate::section::{Contents, Section};
use crate::signature::Signature;
use crate::{Error, Measurements, Metadata};

/// An image whose structure, checksum and signature (if it has one) have been
/// found sound.
///
/// The file may change after that: whatever is read from it later is only what
/// was measured if nobody else can write to it. (On Nitro it is the hypervisor
/// that measures what it starts, so a change shows in the attestation.)
#[derive(Debug)]
pub struct Eif<R> {
    reader: R,
    header: Header,
    sections: Vec<Section>,
    measurements: Measurements,
    command_line: String,
    metadata: Option<Metadata>,
    signature: Option<Signature>,
}

impl<R: Read + Seek> Eif<R> {
    /// Reads the whole image once: structure, CRC, measurements, signature.
    /// The first problem that [`describe`] finds is the error.
    pub fn open(mut reader: R) -> Result<Self, Error> {
        let Description {
            header,
            sections,
            measurements,
            command_line,
            metadata,
            signature,
            problems,
            ..
        } = describe(&mut reader)?;
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem);
        }
        Ok(Self {
            reader,
            header,
            sections,
            measurements,
            // Every image has one, and that it cannot be read would be a problem.
            command_line: command_line.unwrap_or_default(),
            metadata,
            signature,
        })
    }

    /// The image's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every section in file order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The measurements that an enclave started from the image reports.
    pub fn measurements(&self) -> Measurements {
        self.measurements
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// The build's description; version 3 has none. Not measured.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The signature, if the image has one.
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    /// A section's contents, to be read once from its start.
    pub fn contents(&mut self, section: Section) -> io::Result<Contents<'_, R>> {
        section.contents(&mut self.reader)
    }
}
