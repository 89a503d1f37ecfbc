//! The dynamic section of an ELF program or library: what it asks of the loader (System V
//! ABI, chapter 5, "Dynamic Section").

use std::io;

use crate::elf::{HEADER_BYTES, MAGIC, TABLE_ENTRIES, TABLE_ENTRY_SIZE, TABLE_OFFSET, half, long};

/// Most program headers that are looked at, and most bytes of a dynamic section: many times
/// what linkers write.
const MAX_HEADERS: usize = 512;
const MAX_DYNAMIC: u64 = 128 * 1024;
/// Most strings of a dynamic section that are read: nearly all name a library that is needed.
const MAX_STRINGS: usize = 256;
/// Longest name of a library (Linux's `PATH_MAX`), and longest list of folders, in bytes.
const MAX_NAME: u64 = 4096;
const MAX_LIST: u64 = 16 * 1024;
/// Bytes of a program header, and of an entry of the section.
const SEGMENT_BYTES: usize = 56;
const ENTRY_BYTES: usize = 16;
/// Program headers, `PT_LOAD` and `PT_DYNAMIC`.
const LOADED: u32 = 1;
const DYNAMIC: u32 = 2;
/// Entries, `DT_NEEDED`, `DT_STRTAB`, `DT_SONAME`, `DT_RPATH` and `DT_RUNPATH`.
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;
const OWN_NAME: u64 = 14;
const RPATH: u64 = 15;
const RUNPATH: u64 = 29;

/// What a program or library asks of the loader, in its dynamic section.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dynamic {
    /// The libraries that it needs (`DT_NEEDED`).
    pub(crate) needed: Vec<String>,
    /// What a library calls itself (`DT_SONAME`).
    pub(crate) own_name: Option<String>,
    /// Where its libraries, and theirs, are looked for (`DT_RPATH`).
    pub(crate) rpath: Option<String>,
    /// Where its libraries alone are looked for (`DT_RUNPATH`).
    pub(crate) runpath: Option<String>,
}

impl Dynamic {
    /// Reads it with a function that gives at most so many bytes from an offset. `None` if
    /// it is not as linkers write it.
    pub(crate) fn read(read: &dyn Fn(u64, u64) -> io::Result<Vec<u8>>) -> io::Result<Option<Self>> {
        let header = read(0, HEADER_BYTES)?;
        let Some((offset, size)) = table(&header) else {
            return Ok(None);
        };
        let segments = segments(&read(offset, size)?);
        let Some(section) = segments.iter().find(|segment| segment.kind == DYNAMIC) else {
            return Ok(Some(Self::default()));
        };
        if section.size > MAX_DYNAMIC {
            return Ok(None);
        }
        let bytes = read(section.offset, section.size)?;
        let entries: Vec<_> = bytes
            .chunks_exact(ENTRY_BYTES)
            .filter_map(|entry| Some((long(entry, 0)?, long(entry, 8)?)))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let strings = entries.iter().find(|(tag, _)| *tag == STRINGS);
        let Some(strings) = strings.and_then(|(_, address)| place(&segments, *address)) else {
            return Ok(None);
        };
        let named: Vec<_> = entries
            .iter()
            .filter(|(tag, _)| matches!(*tag, NEEDED | OWN_NAME | RPATH | RUNPATH))
            .collect();
        if named.len() > MAX_STRINGS {
            return Ok(None);
        }
        let mut dynamic = Self::default();
        for &(tag, at) in named {
            let Some(offset) = strings.checked_add(at) else {
                return Ok(None);
            };
            let limit = match tag {
                NEEDED | OWN_NAME => MAX_NAME,
                _ => MAX_LIST,
            };
            let Some(text) = string(&read(offset, limit)?) else {
                return Ok(None);
            };
            match tag {
                NEEDED => dynamic.needed.push(text),
                OWN_NAME => dynamic.own_name = Some(text),
                RPATH => dynamic.rpath = Some(text),
                _ => dynamic.runpath = Some(text),
            }
        }
        Ok(Some(dynamic))
    }
}

/// The string that ends with the first zero byte.
fn string(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    String::from_utf8(bytes.get(..end)?.to_vec()).ok()
}

/// Where the program headers are.
fn table(header: &[u8]) -> Option<(u64, u64)> {
    if !header.starts_with(MAGIC) {
        return None;
    }
    let size = usize::from(half(header, TABLE_ENTRY_SIZE)?);
    let count = usize::from(half(header, TABLE_ENTRIES)?);
    let offset = long(header, TABLE_OFFSET)?;
    // Neither Linux nor a loader takes headers of another size.
    (size == SEGMENT_BYTES && count <= MAX_HEADERS).then(|| (offset, (size * count) as u64))
}

/// A program header, as far as it matters here.
#[derive(Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

fn segments(table: &[u8]) -> Vec<Segment> {
    let segment = |bytes: &[u8]| {
        Some(Segment {
            kind: u32::from_le_bytes(*bytes.first_chunk()?),
            offset: long(bytes, 8)?,
            address: long(bytes, 16)?,
            size: long(bytes, 32)?,
        })
    };
    table
        .chunks_exact(SEGMENT_BYTES)
        .filter_map(segment)
        .collect()
}

/// Where in the file the byte is that will be at an address.
fn place(segments: &[Segment], address: u64) -> Option<u64> {
    segments
        .iter()
        .filter(|segment| segment.kind == LOADED)
        .find_map(|segment| {
            let inside = address.checked_sub(segment.address)?;
            (inside < segment.size).then(|| segment.offset.checked_add(inside))?
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library at address 0x1000 whose dynamic section has these entries; strings follow.
    fn library(entries: &[(u64, u64)], strings: &[u8]) -> Vec<u8> {
        let segments = [(LOADED, 0_u64, 0x1000_u64), (DYNAMIC, 176, 0x10b0)];
        let size = 176 + ENTRY_BYTES * (entries.len() + 2);
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(MAGIC);
        bytes[TABLE_OFFSET] = 64;
        bytes[TABLE_ENTRY_SIZE] = 56;
        bytes[TABLE_ENTRIES] = 2;
        for (kind, offset, address) in segments {
            let mut segment = [0; SEGMENT_BYTES];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&offset.to_le_bytes());
            segment[16..24].copy_from_slice(&address.to_le_bytes());
            let length = if kind == LOADED {
                size + strings.len()
            } else {
                size - 176
            };
            segment[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            bytes.extend(segment);
        }
        let place = (STRINGS, 0x1000 + size as u64);
        for (tag, value) in entries.iter().chain([&place, &(0, 0)]) {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    /// At most so many bytes from an offset, which may be after the end.
    fn part(bytes: &[u8], offset: u64, limit: u64) -> Vec<u8> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(limit).unwrap());
        let size = bytes.len();
        bytes[start.min(size)..end.min(size)].to_vec()
    }

    fn read(bytes: &[u8]) -> Option<Dynamic> {
        Dynamic::read(&|offset, limit| Ok(part(bytes, offset, limit))).unwrap()
    }

    #[test]
    fn dynamic_section_names_libraries_and_folders() {
        let entries = [(NEEDED, 1), (NEEDED, 6), (OWN_NAME, 11), (RUNPATH, 14)];
        let library = library(&entries, b"\0a.so\0b.so\0me\0/x:/y\0");
        let expected = Dynamic {
            needed: vec!["a.so".into(), "b.so".into()],
            own_name: Some("me".into()),
            rpath: None,
            runpath: Some("/x:/y".into()),
        };
        assert_eq!(read(&library), Some(expected));
    }

    #[test]
    fn dynamic_section_that_lies_is_harmless() {
        let whole = library(&[(NEEDED, 1)], b"\0a.so\0");
        for length in 0..whole.len() {
            read(&whole[..length]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                read(&damaged);
            }
        }
        assert_eq!(read(b"#!/bin/sh\n"), None);
        assert_eq!(read(&library(&[(NEEDED, u64::MAX)], b"")), None);
        assert_eq!(read(&library(&[(NEEDED, 0)], b"endless")), None);
        // Not dynamic at all.
        let mut bytes = library(&[], b"");
        bytes[120] = 6;
        assert_eq!(read(&bytes), Some(Dynamic::default()));
    }

    #[test]
    fn dynamic_section_with_too_many_strings_is_not_read() {
        let count = |entries: usize, tag| {
            let library = library(&vec![(tag, 1); entries], b"\0a.so\0");
            let reads = std::cell::Cell::new(0);
            let dynamic = Dynamic::read(&|offset, limit| {
                reads.set(reads.get() + 1);
                Ok(part(&library, offset, limit))
            });
            (dynamic.unwrap().is_some(), reads.get())
        };
        // The header, the program headers and the section are read before.
        for tag in [NEEDED, OWN_NAME, RPATH, RUNPATH] {
            assert_eq!(count(MAX_STRINGS, tag), (true, 3 + MAX_STRINGS));
            assert_eq!(count(MAX_STRINGS + 1, tag), (false, 3));
        }
    }
}
