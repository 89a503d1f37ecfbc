//! What an ELF program needs to be executed (System V ABI, chapters 4 and 5).

use eif::Architecture;

/// Bytes of a program that are looked at.
pub(crate) const HEAD_BYTES: u64 = 64 * 1024;
/// Bytes of an ELF header, which says what processor it is for.
pub(crate) const HEADER_BYTES: u64 = 64;

/// 64 bits, little-endian.
pub(crate) const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const MACHINE: usize = 18;
pub(crate) const TABLE_OFFSET: usize = 32;
pub(crate) const TABLE_ENTRY_SIZE: usize = 54;
pub(crate) const TABLE_ENTRIES: usize = 56;
/// The program header that names the loader, `PT_INTERP`.
const INTERPRETER: u32 = 3;
const INTERPRETER_OFFSET: usize = 8;

/// What is known of a 64-bit program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elf<'a> {
    /// The processor, if it is one that enclaves have.
    pub(crate) architecture: Option<Architecture>,
    /// The loader of a program that is not static.
    pub(crate) interpreter: Option<&'a [u8]>,
}

impl<'a> Elf<'a> {
    /// Reads the beginning of a program; `None` if it is not a 64-bit one.
    pub(crate) fn parse(head: &'a [u8]) -> Option<Self> {
        if !head.starts_with(MAGIC) {
            return None;
        }
        let architecture = match half(head, MACHINE)? {
            62 => Some(Architecture::X86_64),
            183 => Some(Architecture::Aarch64),
            _ => None,
        };
        Some(Self {
            architecture,
            interpreter: interpreter(head),
        })
    }
}

fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let table = usize::try_from(long(head, TABLE_OFFSET)?).ok()?;
    let size = usize::from(half(head, TABLE_ENTRY_SIZE)?);
    let count = usize::from(half(head, TABLE_ENTRIES)?);
    let header = (0..count)
        .map_while(|index| head.get(index.checked_mul(size)?.checked_add(table)?..))
        .find(|header| {
            header.first_chunk().map(|kind| u32::from_le_bytes(*kind)) == Some(INTERPRETER)
        })?;
    let offset = usize::try_from(long(header, INTERPRETER_OFFSET)?).ok()?;
    let path = head.get(offset..)?;
    path.split(|&byte| byte == 0).next()
}

pub(crate) fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

pub(crate) fn long(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with one program header that names a loader.
    fn program(machine: u8, offset: u64) -> Vec<u8> {
        let mut head = vec![0; 64 + 56];
        head[..6].copy_from_slice(MAGIC);
        head[MACHINE] = machine;
        head[TABLE_OFFSET] = 64;
        head[TABLE_ENTRY_SIZE] = 56;
        head[TABLE_ENTRIES] = 1;
        head[64] = 3;
        head[72..80].copy_from_slice(&offset.to_le_bytes());
        head.extend(b"/lib/ld.so\0rest");
        head
    }

    #[test]
    fn the_loader_is_found() {
        let head = program(62, 120);
        let elf = Elf::parse(&head).unwrap();
        assert_eq!(elf.architecture, Some(Architecture::X86_64));
        assert_eq!(elf.interpreter, Some(&b"/lib/ld.so"[..]));
        let arm = program(183, 120);
        let arm = Elf::parse(&arm).unwrap();
        assert_eq!(arm.architecture, Some(Architecture::Aarch64));
        assert_eq!(Elf::parse(&program(3, 120)).unwrap().architecture, None);
    }

    #[test]
    fn lies_are_harmless() {
        for offset in [1 << 20, u64::MAX] {
            let head = program(62, offset);
            assert_eq!(Elf::parse(&head).unwrap().interpreter, None);
        }
        let mut head = program(62, 120);
        head[TABLE_OFFSET..TABLE_OFFSET + 8].fill(0xff);
        head[TABLE_ENTRY_SIZE..TABLE_ENTRIES + 2].fill(0xff);
        assert_eq!(Elf::parse(&head).unwrap().interpreter, None);
        let head = program(62, 120);
        for length in 0..head.len() {
            let _ = Elf::parse(&head[..length]);
        }
        assert_eq!(Elf::parse(b"\x7fELF\x01\x01"), None);
        assert_eq!(Elf::parse(b"#!/bin/sh"), None);
    }
}
