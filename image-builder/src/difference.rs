//! What distinguishes two enclave images: which files, and which registers follow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use eif::cpio::Kind;
use eif::{Eif, SectionKind};
use measurements::{Measurements, Pcr};
use serde::Serialize;

use crate::contents::{self, Files, Item, Part};
use crate::description::open_image;
use crate::error::BuildError;

/// What distinguishes two images. Serialised with names like those of
/// `nitro-cli describe-eif`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Difference {
    /// Whether all that is measured is the same; metadata is not measured.
    pub same_measurements: bool,
    /// Every section that is not the same in both, the ramdisks with their files.
    pub sections: Vec<SectionDifference>,
    /// The registers that an image has in one value or the other.
    pub registers: Vec<RegisterDifference>,
}

/// A section that is not the same in both images.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectionDifference {
    /// What it holds.
    pub kind: SectionKind,
    /// Which of the ramdisks it is, from zero: the first has the init, the others the
    /// application. None of a section that is no ramdisk.
    pub ramdisk: Option<usize>,
    /// The SHA-256 digests of its contents; none where the image lacks it.
    pub sha256: (Option<String>, Option<String>),
    /// The files, if both images have the ramdisk and it can be read.
    pub files: Vec<FileDifference>,
    /// Why the files are unknown.
    pub unread: Option<String>,
}

/// A file that is not the same in both images.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileDifference {
    /// Its path in the enclave's ramdisk. The container's files are below `rootfs/`.
    pub path: String,
    /// What happened to it.
    pub change: Change,
    /// What distinguishes the two, in words.
    pub details: Vec<String>,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Change {
    /// It is in the second image only.
    Added,
    /// It is in the first image only.
    Removed,
    /// It is in both, and not the same.
    Changed,
}

/// A register that the two images give different values.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterDifference {
    /// Its number.
    pub register: u8,
    /// Its values; none for PCR8 of an unsigned image.
    pub values: (Option<Pcr>, Option<Pcr>),
}

impl Difference {
    /// Whether nothing distinguishes the images.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty() && self.registers.is_empty()
    }
}

/// Compares two sound images.
pub fn compare_images(first: &Path, second: &Path) -> Result<Difference, BuildError> {
    let (first, second) = (Read::open(first)?, Read::open(second)?);
    let registers = registers(&first.measurements, &second.measurements);
    Ok(Difference {
        same_measurements: registers.is_empty(),
        sections: sections(&first.parts, &second.parts),
        registers,
    })
}

/// An image that has been read.
struct Read {
    measurements: Measurements,
    parts: BTreeMap<(SectionKind, usize), Part>,
}

impl Read {
    fn open(path: &Path) -> Result<Self, BuildError> {
        let file = open_image(path)?;
        let mut image = Eif::open(file).map_err(BuildError::enclave_image(path))?;
        let parts = contents::read(&mut image).map_err(BuildError::read(
            path,
            "try again, or copy it to another disk",
        ))?;
        let mut numbers = BTreeMap::new();
        let parts = parts.into_iter().map(|part| {
            let number = numbers.entry(part.section.kind).or_insert(0);
            let place = (part.section.kind, *number);
            *number += 1;
            (place, part)
        });
        Ok(Self {
            parts: parts.collect(),
            measurements: image.measurements(),
        })
    }
}

fn registers(first: &Measurements, second: &Measurements) -> Vec<RegisterDifference> {
    let values = |image: &Measurements| {
        [
            (0, Some(image.pcr0)),
            (1, Some(image.pcr1)),
            (2, Some(image.pcr2)),
            (8, image.pcr8),
        ]
    };
    values(first)
        .into_iter()
        .zip(values(second))
        .filter(|(first, second)| first != second)
        .map(|((register, first), (_, second))| RegisterDifference {
            register,
            values: (first, second),
        })
        .collect()
}

fn sections(
    first: &BTreeMap<(SectionKind, usize), Part>,
    second: &BTreeMap<(SectionKind, usize), Part>,
) -> Vec<SectionDifference> {
    let places: BTreeSet<_> = first.keys().chain(second.keys()).collect();
    places
        .into_iter()
        .filter_map(|place| section(*place, first.get(place), second.get(place)))
        .collect()
}

fn section(
    (kind, number): (SectionKind, usize),
    first: Option<&Part>,
    second: Option<&Part>,
) -> Option<SectionDifference> {
    let digest = |part: Option<&Part>| part.map(|part| part.digest.hex().to_owned());
    let sha256 = (digest(first), digest(second));
    if sha256.0 == sha256.1 {
        return None;
    }
    let (files, unread) = match (
        first.and_then(|part| part.files.as_ref()),
        second.and_then(|part| part.files.as_ref()),
    ) {
        (Some(first), Some(second)) => files(first, second),
        _ => (Vec::new(), None),
    };
    Some(SectionDifference {
        kind,
        ramdisk: (kind == SectionKind::Ramdisk).then_some(number),
        sha256,
        files,
        unread,
    })
}

fn files(first: &Files, second: &Files) -> (Vec<FileDifference>, Option<String>) {
    let (first, second) = match (first, second) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(error), _) | (_, Err(error)) => return (Vec::new(), Some(error.to_string())),
    };
    let paths: BTreeSet<_> = first.keys().chain(second.keys()).collect();
    let changed = paths.into_iter().filter_map(|path| {
        let (change, details) = match (first.get(path), second.get(path)) {
            (Some(first), Some(second)) => (Change::Changed, details(first, second)),
            (Some(_), None) => (Change::Removed, Vec::new()),
            (None, Some(_)) => (Change::Added, Vec::new()),
            (None, None) => return None,
        };
        (change != Change::Changed || !details.is_empty()).then(|| FileDifference {
            path: String::from_utf8_lossy(path).into_owned(),
            change,
            details,
        })
    });
    (changed.collect(), None)
}

/// What distinguishes two files of one path.
fn details(first: &Item, second: &Item) -> Vec<String> {
    let mut details = Vec::new();
    if first.kind != second.kind {
        details.push(format!(
            "{} → {}",
            name_of(first.kind),
            name_of(second.kind)
        ));
    } else if first.digest != second.digest {
        details.push(match first.kind {
            Kind::Symlink => "target".to_owned(),
            _ => format!("contents, {} → {} bytes", first.size, second.size),
        });
    }
    if first.permissions != second.permissions {
        let (first, second) = (first.permissions, second.permissions);
        details.push(format!("mode {first:04o} → {second:04o}"));
    }
    let mut pair = |what: &str, first: (u32, u32), second: (u32, u32)| {
        if first != second {
            let (first, second) = (
                format!("{}:{}", first.0, first.1),
                format!("{}:{}", second.0, second.1),
            );
            details.push(format!("{what} {first} → {second}"));
        }
    };
    pair("owner", first.owner, second.owner);
    pair("device", first.device, second.device);
    details
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "folder",
        Kind::Symlink => "symbolic link",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    }
}
