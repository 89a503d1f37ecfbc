//! Every image that is not exactly one is refused, with the error that says why.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::Cursor;

use common::{build, fix_crc, metadata, signer, small};
use eif::{
    Eif, Error, HEADER_BYTES, MAX_COMMAND_LINE, MAX_METADATA, MAX_SIGNATURE, SECTION_HEADER_BYTES,
    SectionKind, SigningError, describe,
};
use proptest::prelude::*;

const OFFSETS: usize = 28;
const SIZES: usize = 284;
const COUNT: usize = 26;

/// An image made byte by byte: sections of any type and contents, and a header
/// that agrees with them.
fn raw(version: u16, sections: &[(u16, &[u8])]) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    header[..4].copy_from_slice(b".eif");
    header[4..6].copy_from_slice(&version.to_be_bytes());
    header[COUNT..COUNT + 2].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_be_bytes());
    let mut image = header;
    for (index, (kind, contents)) in sections.iter().enumerate() {
        if index < 32 {
            let offset = image.len() as u64;
            put(&mut image, OFFSETS + 8 * index, offset);
            put(&mut image, SIZES + 8 * index, contents.len() as u64);
        }
        image.extend(kind.to_be_bytes());
        image.extend([0; 2]);
        image.extend((contents.len() as u64).to_be_bytes());
        image.extend(*contents);
    }
    fix_crc(&mut image);
    image
}

fn put(image: &mut [u8], offset: usize, value: u64) {
    image[offset..offset + 8].copy_from_slice(&value.to_be_bytes());
}

fn open(image: &[u8]) -> Result<Eif<Cursor<&[u8]>>, Error> {
    Eif::open(Cursor::new(image))
}

fn refused(image: &[u8]) -> Error {
    let error = open(image).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 300, "{text}");
    error
}

/// The image of [`small`], changed, with a CRC that fits.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Error {
    let (mut image, _) = build(&small(), None);
    change(&mut image);
    fix_crc(&mut image);
    refused(&image)
}

/// Where the header of a section of the image of [`small`] is.
fn section_header(index: usize) -> usize {
    let (image, _) = build(&small(), None);
    let sections = describe(Cursor::new(image)).unwrap().sections;
    usize::try_from(sections[index].offset).unwrap() - SECTION_HEADER_BYTES
}

#[test]
fn every_truncation() {
    let (image, _) = build(&small(), Some(&signer()));
    for length in 0..image.len() {
        let error = refused(&image[..length]);
        match length {
            0..HEADER_BYTES => assert!(
                matches!(error, Error::HeaderTruncated(found) if found == length as u64),
                "{error}"
            ),
            _ => assert!(matches!(error, Error::Truncated { .. }), "{error}"),
        }
    }
}

#[test]
fn every_flipped_bit_of_a_header() {
    let (image, _) = build(&small(), Some(&signer()));
    let sections = describe(Cursor::new(&image)).unwrap().sections;
    let section_headers = sections.iter().flat_map(|section| {
        let end = usize::try_from(section.offset).unwrap();
        end - SECTION_HEADER_BYTES..end
    });
    for offset in (0..HEADER_BYTES).chain(section_headers) {
        for bit in 0..8 {
            let mut changed = image.clone();
            changed[offset] ^= 1 << bit;
            let stale_crc = refused(&changed);
            fix_crc(&mut changed);
            let fitting_crc = open(&changed).map(|_| ());
            match offset {
                // Flags bit 0 (the other architecture), default memory and
                // CPUs, the CRC: every value has a meaning.
                8..24 | 544..HEADER_BYTES => {
                    assert!(matches!(stale_crc, Error::Crc { .. }), "{offset}.{bit}");
                    assert!(fitting_crc.is_ok(), "{offset}.{bit}");
                }
                7 if bit == 0 => assert!(fitting_crc.is_ok()),
                _ => assert!(
                    !matches!(fitting_crc.unwrap_err(), Error::Crc { .. }),
                    "{offset}.{bit}"
                ),
            }
        }
    }
}

#[test]
fn every_flipped_byte_of_the_contents() {
    let (image, _) = build(&small(), None);
    for offset in section_header(0)..image.len() {
        let mut changed = image.clone();
        changed[offset] ^= 0xff;
        refused(&changed);
    }
}

#[test]
fn something_else() {
    assert!(matches!(refused(b""), Error::HeaderTruncated(0)));
    assert!(matches!(refused(b".ei"), Error::HeaderTruncated(3)));
    assert!(matches!(
        refused(b"\x7fELF"),
        Error::Magic([0x7f, b'E', b'L', b'F'])
    ));
    assert!(matches!(refused(&[b'x'; 1000]), Error::Magic(_)));
}

#[test]
fn lying_sizes() {
    for size in [9, 1 << 40, 1 << 63, u64::MAX - 559, u64::MAX] {
        // In the image's header, in the section's, in both.
        assert!(matches!(
            changed(|image| put(image, SIZES, size)),
            Error::Truncated { index: 0, .. } | Error::SectionSize { index: 0, .. }
        ));
        assert!(matches!(
            changed(|image| put(image, section_header(0) + 4, size)),
            Error::SectionSize { index: 0, offset: 548, header: 8, section } if section == size
        ));
        let error = changed(|image| {
            for index in 0..5 {
                put(image, SIZES + 8 * index, size);
                put(image, section_header(index) + 4, size);
            }
        });
        match size {
            9 => assert!(
                matches!(error, Error::SectionOffset { index: 1, .. }),
                "{error}"
            ),
            _ => assert!(
                matches!(error, Error::Truncated { index: 0, .. }),
                "{error}"
            ),
        }
    }
    assert!(matches!(
        changed(|image| put(image, SIZES, 7)),
        Error::SectionSize {
            index: 0,
            header: 7,
            section: 8,
            ..
        }
    ));
}

#[test]
fn sections_that_overlap_or_leave_gaps() {
    let second = section_header(1) as u64;
    for offset in [0, 548, second - 1, second + 1, u64::MAX] {
        let error = changed(|image| put(image, OFFSETS + 8, offset));
        assert!(
            matches!(error, Error::SectionOffset { index: 1, offset: found, expected }
                if found == offset && expected == second),
            "{error}"
        );
    }
    let error = changed(|image| put(image, OFFSETS, 549));
    assert!(matches!(
        error,
        Error::SectionOffset {
            index: 0,
            expected: 548,
            ..
        }
    ));
    let error = changed(|image| {
        let (first, second) = (image[OFFSETS..OFFSETS + 8].to_vec(), OFFSETS + 8);
        image.copy_within(second..second + 8, OFFSETS);
        image[second..second + 8].copy_from_slice(&first);
    });
    assert!(matches!(error, Error::SectionOffset { index: 0, .. }));
}

#[test]
fn bytes_behind_the_last_section() {
    let end = build(&small(), None).0.len() as u64;
    let error = changed(|image| image.push(0));
    assert!(matches!(error, Error::Trailing { end: found, count: 1 } if found == end));
    // A section that the header does not count.
    let error = changed(|image| {
        image[COUNT + 1] = 4;
        put(image, OFFSETS + 32, 0);
        put(image, SIZES + 32, 0);
    });
    assert!(
        matches!(error, Error::Trailing { count: 23, .. }),
        "{error}"
    );
}

#[test]
fn a_wrong_crc() {
    let (mut image, _) = build(&small(), None);
    let stored = u32::from_be_bytes(image[544..548].try_into().unwrap());
    image[547] ^= 1;
    let error = refused(&image);
    assert!(
        matches!(error, Error::Crc { stored: found, computed } if found == stored ^ 1 && computed == stored)
    );
}

#[test]
fn counts_and_kinds_of_sections() {
    const KERNEL: (u16, &[u8]) = (1, b"kernel");
    const COMMAND_LINE: (u16, &[u8]) = (2, b"quiet");
    const RAMDISK: (u16, &[u8]) = (3, b"ramdisk");
    const SIGNATURE: (u16, &[u8]) = (4, b"signature");
    const METADATA: (u16, &[u8]) = (5, b"{}");

    let multiplicity = |sections: &[(u16, &[u8])], kind, found| {
        let error = refused(&raw(4, sections));
        assert!(
            matches!(error, Error::SectionMultiplicity { kind: k, found: n, .. }
                if k == kind && n == found),
            "{error}"
        );
    };
    multiplicity(&[COMMAND_LINE, RAMDISK, RAMDISK], SectionKind::Kernel, 0);
    multiplicity(
        &[KERNEL, KERNEL, COMMAND_LINE, RAMDISK],
        SectionKind::Kernel,
        2,
    );
    multiplicity(&[KERNEL, RAMDISK, RAMDISK], SectionKind::CommandLine, 0);
    multiplicity(
        &[KERNEL, COMMAND_LINE, COMMAND_LINE, RAMDISK],
        SectionKind::CommandLine,
        2,
    );
    multiplicity(&[KERNEL, COMMAND_LINE, METADATA], SectionKind::Ramdisk, 0);
    multiplicity(
        &[KERNEL, COMMAND_LINE, METADATA, METADATA, RAMDISK],
        SectionKind::Metadata,
        2,
    );
    multiplicity(
        &[KERNEL, COMMAND_LINE, RAMDISK, SIGNATURE, SIGNATURE],
        SectionKind::Signature,
        2,
    );

    let order = |sections: &[(u16, &[u8])], index, kind, previous| {
        let error = refused(&raw(4, sections));
        assert!(
            matches!(error, Error::SectionOrder { index: i, kind: k, previous: p, .. }
                if (i, k, p) == (index, kind, previous)),
            "{error}"
        );
    };
    let (kernel, command_line) = (SectionKind::Kernel, SectionKind::CommandLine);
    let (metadata, ramdisk) = (SectionKind::Metadata, SectionKind::Ramdisk);
    order(&[COMMAND_LINE, KERNEL, RAMDISK], 1, kernel, command_line);
    order(&[KERNEL, RAMDISK, COMMAND_LINE], 2, command_line, ramdisk);
    order(
        &[KERNEL, COMMAND_LINE, RAMDISK, METADATA],
        3,
        metadata,
        ramdisk,
    );
    order(
        &[KERNEL, COMMAND_LINE, SIGNATURE, RAMDISK],
        3,
        ramdisk,
        SectionKind::Signature,
    );

    for kind in [0, 6, u16::MAX] {
        let error = refused(&raw(4, &[KERNEL, COMMAND_LINE, RAMDISK, (kind, b"")]));
        assert!(
            matches!(error, Error::SectionType { index: 3, found, .. } if found == kind),
            "{error}"
        );
    }

    let mut many = vec![KERNEL, COMMAND_LINE];
    many.resize(32, RAMDISK);
    assert!(open(&raw(4, &many)).is_ok());
    many.push(RAMDISK);
    assert!(matches!(refused(&raw(4, &many)), Error::SectionCount(33)));
    for count in 0..3 {
        assert!(matches!(
            refused(&raw(4, &many[..count])),
            Error::SectionCount(_)
        ));
    }
}

#[test]
fn version_3_has_no_metadata() {
    let sections: [(u16, &[u8]); 3] = [(1, b"kernel"), (2, b"quiet"), (3, b"ramdisk")];
    let (three, four) = (raw(3, &sections), raw(4, &sections));
    let measurements = open(&three).unwrap().measurements();
    assert_eq!(measurements, open(&four).unwrap().measurements());
    assert_eq!(open(&three).unwrap().metadata(), None);

    let image = raw(3, &[sections[0], sections[1], (5, b"{}"), sections[2]]);
    assert!(matches!(
        refused(&image),
        Error::SectionMultiplicity {
            kind: SectionKind::Metadata,
            found: 1,
            ..
        }
    ));
}

#[test]
fn sections_with_flags() {
    let at = section_header(2) + 2;
    let error = changed(|image| image[at] = 1);
    assert!(
        matches!(
            error,
            Error::SectionFlags {
                index: 2,
                flags: 0x100,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn sections_beyond_their_limits() {
    let with = |command_line: &[u8], metadata: &[u8], signature: &[u8]| {
        refused(&raw(
            4,
            &[
                (1, b"k"),
                (2, command_line),
                (5, metadata),
                (3, b"r"),
                (4, signature),
            ],
        ))
    };
    let spaces = |limit: u64| vec![b' '; usize::try_from(limit).unwrap()];
    for (error, kind, limit) in [
        (
            with(&spaces(MAX_COMMAND_LINE + 1), b"", b""),
            SectionKind::CommandLine,
            MAX_COMMAND_LINE,
        ),
        (
            with(b"", &spaces(MAX_METADATA + 1), b""),
            SectionKind::Metadata,
            MAX_METADATA,
        ),
        (
            with(b"", b"", &spaces(MAX_SIGNATURE + 1)),
            SectionKind::Signature,
            MAX_SIGNATURE,
        ),
    ] {
        assert!(
            matches!(error, Error::SectionLimit { kind: k, size, limit: l }
                if k == kind && size == limit + 1 && l == limit),
            "{error}"
        );
    }
    // At the limits it is the contents that are wrong.
    let error = with(
        &spaces(MAX_COMMAND_LINE),
        &spaces(MAX_METADATA),
        &spaces(MAX_SIGNATURE),
    );
    assert!(matches!(error, Error::Metadata(_)), "{error}");
}

#[test]
fn contents_that_are_not_what_they_should_be() {
    let with = |command_line: &[u8], metadata: &[u8], signature: &[u8]| {
        let mut sections = vec![(1, &b"k"[..]), (2, command_line), (5, metadata), (3, b"r")];
        if !signature.is_empty() {
            sections.push((4, signature));
        }
        refused(&raw(4, &sections))
    };
    let metadata = serde_json::to_vec(&metadata()).unwrap();
    assert!(matches!(
        with(b"quiet\0", &metadata, b""),
        Error::CommandLine(5)
    ));
    assert!(matches!(
        with(b"a\xff", &metadata, b""),
        Error::CommandLine(1)
    ));
    for json in ["", "null", "{}", "[1", "{\"ImageName\": 1}"] {
        assert!(
            matches!(with(b"", json.as_bytes(), b""), Error::Metadata(_)),
            "{json}"
        );
    }
    let nested = [b'['; 10_000];
    assert!(matches!(with(b"", &nested, b""), Error::Metadata(_)));
    for cbor in [
        &b"\xff"[..],
        b"\x80",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        &[0x81; 10_000],
    ] {
        assert!(matches!(with(b"", &metadata, cbor), Error::Signature(_)));
    }
}

#[test]
fn a_signature_of_another_image() {
    let signer = signer();
    let (image, _) = build(&small(), Some(&signer));
    let mut other = small();
    other.kernel = b"b kernel".to_vec();
    let (mut forged, _) = build(&other, Some(&signer));
    let signature = open(&image).unwrap().sections()[5];
    let start = usize::try_from(signature.offset).unwrap();
    // In CBOR a small integer is shorter than a large one, so that two
    // signatures may differ in size: the section is replaced as a whole.
    forged.truncate(start - SECTION_HEADER_BYTES);
    forged.extend(&image[start - SECTION_HEADER_BYTES..]);
    put(&mut forged, SIZES + 8 * 5, signature.size);
    fix_crc(&mut forged);
    assert!(matches!(
        refused(&forged),
        Error::Signature(SigningError::Invalid("it is for another image"))
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = describe(Cursor::new(bytes));
    }

    #[test]
    fn arbitrary_sections_do_not_panic(
        sections in prop::collection::vec((1u16..6, prop::collection::vec(any::<u8>(), 0..100)), 3..33)
    ) {
        let mut sections: Vec<_> = sections.iter()
            .map(|(kind, contents)| (*kind, contents.as_slice()))
            .collect();
        sections.sort_by_key(|(kind, _)| [0, 1, 2, 4, 5, 3][usize::from(*kind)]);
        let _ = describe(Cursor::new(raw(4, &sections)));
    }

    #[test]
    fn damage_does_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let (mut image, _) = build(&small(), None);
        for (index, byte) in changes {
            let length = image.len();
            image[index.index(length)] = byte;
        }
        fix_crc(&mut image);
        let _ = describe(Cursor::new(image));
    }
}
