//! What is written is read, and described.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{self, Cursor, Read};

use common::{Parts, build, metadata, signer, small};
use eif::{Architecture, Eif, Error, Image, Measurements, SectionKind, describe};
use proptest::prelude::*;
use serde_json::{Value, json};

fn arbitrary_parts() -> impl Strategy<Value = Parts> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    (
        bytes(),
        "\\PC{0,100}",
        prop::collection::vec(bytes(), 1..=eif::MAX_RAMDISKS),
        any::<bool>(),
    )
        .prop_map(|(kernel, command_line, ramdisks, arm)| Parts {
            architecture: if arm {
                Architecture::Aarch64
            } else {
                Architecture::X86_64
            },
            kernel,
            command_line,
            ramdisks,
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read(parts in arbitrary_parts(), signed in any::<bool>()) {
        let signer = signed.then(signer);
        let (bytes, measurements) = build(&parts, signer.as_ref());
        let mut image = Eif::open(Cursor::new(&bytes)).unwrap();
        prop_assert_eq!(image.measurements(), measurements);
        prop_assert_eq!(image.header().version, 4);
        prop_assert_eq!(image.header().architecture, parts.architecture);
        prop_assert_eq!(image.header().default_memory, 1 << 30);
        prop_assert_eq!(image.header().default_cpus, 2);
        prop_assert_eq!(image.command_line(), &parts.command_line);
        prop_assert_eq!(image.metadata(), Some(&metadata()));
        prop_assert_eq!(
            image.signature().map(|signature| signature.certificate().clone()),
            signer.as_ref().map(|signer| signer.certificate().clone())
        );
        let mut expected = vec![(SectionKind::Kernel, parts.kernel)];
        expected.push((SectionKind::CommandLine, parts.command_line.into()));
        expected.push((SectionKind::Metadata, serde_json::to_vec(&metadata()).unwrap()));
        expected.extend(parts.ramdisks.into_iter().map(|ramdisk| (SectionKind::Ramdisk, ramdisk)));
        let sections = image.sections().to_vec();
        prop_assert_eq!(sections.len(), expected.len() + usize::from(signed));
        // Backwards: the order of reading does not matter.
        for (section, (kind, contents)) in sections.into_iter().zip(expected).rev() {
            let mut read = Vec::new();
            image.contents(section).unwrap().read_to_end(&mut read).unwrap();
            prop_assert_eq!((section.kind, read), (kind, contents));
        }
    }

    #[test]
    fn the_same_parts_give_the_same_bytes(parts in arbitrary_parts()) {
        prop_assert_eq!(build(&parts, None), build(&parts, None));
    }
}

#[test]
fn signatures_differ_and_nothing_else() {
    let signer = signer();
    let ((first, measurements), (second, same)) = (
        build(&small(), Some(&signer)),
        build(&small(), Some(&signer)),
    );
    assert_eq!(measurements, same);
    let signature = Eif::open(Cursor::new(&first)).unwrap().sections()[5];
    let start = usize::try_from(signature.offset).unwrap() - eif::SECTION_HEADER_BYTES;
    assert_eq!(first[..284], second[..284]);
    assert_eq!(
        first[eif::HEADER_BYTES..start],
        second[eif::HEADER_BYTES..start]
    );
    assert_ne!(first[start..], second[start..]);
}

/// Gives its bytes one at a time, with interruptions.
struct Trickle<'a> {
    bytes: &'a [u8],
    interrupt: bool,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let end = buffer.len().min(1);
        self.bytes.read(&mut buffer[..end])
    }
}

#[test]
fn slow_readers_give_the_same_image() {
    let parts = small();
    let trickle = |bytes| Trickle {
        bytes,
        interrupt: false,
    };
    let mut ramdisks: Vec<_> = parts
        .ramdisks
        .iter()
        .map(|ramdisk| trickle(ramdisk))
        .collect();
    let mut file = Cursor::new(Vec::new());
    eif::write(
        Image {
            architecture: parts.architecture,
            default_memory: 1 << 30,
            default_cpus: 2,
            kernel: &mut trickle(&parts.kernel),
            command_line: &parts.command_line,
            metadata: &metadata(),
            ramdisks: ramdisks
                .iter_mut()
                .map(|ramdisk| ramdisk as &mut dyn Read)
                .collect(),
            signer: None,
        },
        &mut file,
    )
    .unwrap();
    assert_eq!(file.into_inner(), build(&parts, None).0);
}

#[test]
fn a_description_has_the_names_of_nitro_cli() {
    let signer = signer();
    let (image, measurements) = build(&small(), Some(&signer));
    let description = describe(Cursor::new(&image)).unwrap();
    let json = serde_json::to_value(&description).unwrap();
    assert_eq!(
        json,
        json!({
            "EifVersion": 4,
            "Architecture": "x86_64",
            "DefaultMemory": 1 << 30,
            "DefaultCpus": 2,
            "Measurements": {
                "HashAlgorithm": "Sha384 { ... }",
                "PCR0": measurements.pcr0.to_string(),
                "PCR1": measurements.pcr1.to_string(),
                "PCR2": measurements.pcr2.to_string(),
                "PCR8": signer.pcr8().to_string(),
            },
            "IsSigned": true,
            "SigningCertificate": {
                "Subject": "CN=rcgen self signed cert",
                "Issuer": "CN=rcgen self signed cert",
                "NotBefore": "1975-01-01T00:00:00Z",
                "NotAfter": "4096-01-01T00:00:00Z",
            },
            "CheckCRC": true,
            "SignatureCheck": true,
            "ImageName": "payments",
            "ImageVersion": "1.2",
            "Metadata": {
                "BuildTime": "1970-01-01T00:00:00Z",
                "BuildTool": "a test",
                "BuildToolVersion": "0.1",
                "OperatingSystem": "Linux",
                "KernelVersion": "6.12",
                "DockerInfo": {"Architecture": "amd64"},
                "CustomMetadata": {"host": [1, 2, 3]},
            },
            "CommandLine": "console=ttyS0 reboot=k",
            "Sections": [
                {"Kind": "kernel", "Offset": 560, "Size": 8},
                {"Kind": "command-line", "Offset": 580, "Size": 22},
                {"Kind": "metadata", "Offset": 614, "Size": description.sections[2].size},
                {"Kind": "ramdisk", "Offset": description.sections[3].offset, "Size": 4},
                {"Kind": "ramdisk", "Offset": description.sections[4].offset, "Size": 11},
                {"Kind": "signature", "Offset": description.sections[5].offset,
                 "Size": description.sections[5].size},
            ],
            "Problems": [],
        })
    );
    assert_eq!(
        serde_json::from_value::<Measurements>(json).unwrap(),
        measurements
    );
}

#[test]
fn an_unsigned_image_is_described_without_signature() {
    let json =
        serde_json::to_value(describe(Cursor::new(build(&small(), None).0)).unwrap()).unwrap();
    assert_eq!(json["IsSigned"], false);
    for absent in ["SigningCertificate", "SignatureCheck"] {
        assert_eq!(json.get(absent), None);
    }
    assert_eq!(json["Measurements"].get("PCR8"), None);
}

#[test]
fn a_broken_image_is_described_with_all_its_problems() {
    let (mut image, measurements) = build(&small(), Some(&signer()));
    let description = describe(Cursor::new(&image)).unwrap();
    let at = |section: usize| usize::try_from(description.sections[section].offset).unwrap();
    image[at(0)] ^= 1;
    image[at(1)] = 0xff;
    image[at(2)] = b'?';
    let broken = describe(Cursor::new(&image)).unwrap();
    assert!(broken.is_signed());
    assert!(matches!(
        broken.problems.as_slice(),
        [
            Error::Crc { .. },
            Error::CommandLine(0),
            Error::Metadata(_),
            Error::Signature(_)
        ]
    ));
    assert_ne!(broken.measurements.pcr0, measurements.pcr0);
    assert_eq!(broken.measurements.pcr2, measurements.pcr2);
    assert_eq!(broken.measurements.pcr8, None);
    let json = serde_json::to_value(&broken).unwrap();
    assert_eq!(json["CheckCRC"], false);
    assert_eq!(json["SignatureCheck"], false);
    assert_eq!(json["CommandLine"], Value::Null);
    assert_eq!(json["Problems"].as_array().unwrap().len(), 4);
}
