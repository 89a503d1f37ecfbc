//! Layers: tar archives, entry by entry, so that tests can put them in any
//! order and break any of them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

/// A tar archive in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    pub(crate) entries: Vec<Entry>,
}

/// One entry, as it will be written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: EntryType,
    pub(crate) name: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) contents: Vec<u8>,
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        mode: u32,
        (uid, gid): (u64, u64),
    ) -> Self {
        self.entries.push(Entry {
            kind,
            name: name.into(),
            target: vec![],
            mode,
            uid,
            gid,
            mtime: 1_700_000_000,
            contents: vec![],
        });
        self
    }

    /// A change of the entry that was added last.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        change(self.entries.last_mut().unwrap());
        self
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, 0o755, (0, 0))
    }

    pub(crate) fn file(self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.entry(EntryType::Regular, name, 0o644, (0, 0))
            .with(|entry| entry.contents = contents.into())
    }

    pub(crate) fn program(self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.file(name, contents).with(|entry| entry.mode = 0o755)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, 0o777, (0, 0))
            .with(|entry| entry.target = target.into())
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, 0o644, (0, 0))
            .with(|entry| entry.target = target.into())
    }

    /// Without what later entries of the same name replace, which layers may not have.
    pub(crate) fn last_of_each(mut self) -> Self {
        let names: Vec<_> = self
            .entries
            .iter()
            .map(|entry| entry.name.clone())
            .collect();
        let mut index = 0;
        self.entries.retain(|entry| {
            index += 1;
            !names[index..].contains(&entry.name)
        });
        self
    }

    /// An extended header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut contents = Vec::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let length = (1..).map(|digits| rest + digits);
            let length = length
                .enumerate()
                .find(|(digits, length)| length.to_string().len() == digits + 1)
                .unwrap()
                .1;
            contents.extend(format!("{length} {key}=").bytes());
            contents.extend(*value);
            contents.push(b'\n');
        }
        self.file("pax", contents)
            .with(|entry| entry.kind = EntryType::XHeader)
    }

    pub(crate) fn tar(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.entries.iter().flat_map(Entry::tar).collect();
        bytes.extend([0; 1024]);
        bytes
    }
}

impl Entry {
    pub(crate) fn tar(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, name) in [(b'L', &self.name), (b'K', &self.target)] {
            if name.len() > 100 {
                let mut long = self.clone();
                long.kind = EntryType::new(kind);
                long.name = b"././@LongLink".to_vec();
                long.target.clear();
                long.contents = [name, &b"\0"[..]].concat();
                bytes.extend(long.tar());
            }
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(self.mtime);
        header.set_size(self.contents.len() as u64);
        // The crate's own setters refuse what hostile archives have.
        let old = header.as_old_mut();
        for (field, text) in [
            (&mut old.name, &self.name),
            (&mut old.linkname, &self.target),
        ] {
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text[..length]);
        }
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(&self.contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// A program for x86-64 that needs nothing: an ELF header without segments.
pub(crate) fn elf() -> Vec<u8> {
    elf_for(62)
}

pub(crate) fn elf_for(machine: u8) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16] = 2;
    header[18] = machine;
    header[54] = 56;
    header
}

/// A program that needs this loader.
pub(crate) fn dynamic_elf(loader: &str) -> Vec<u8> {
    let mut program = elf();
    program[32] = 64;
    program[56] = 1;
    let mut segment = [0; 56];
    segment[0] = 3;
    segment[8] = 120;
    program.extend(segment);
    program.extend(loader.bytes());
    program.push(0);
    program
}

/// What a program or library of these tests is linked with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Linked<'a> {
    pub(crate) loader: Option<&'a str>,
    pub(crate) needed: &'a [&'a str],
    pub(crate) own_name: Option<&'a str>,
    pub(crate) rpath: Option<&'a str>,
    pub(crate) runpath: Option<&'a str>,
}

impl Linked<'_> {
    /// The file: headers, the dynamic section, its strings, all at the address of their place
    /// in it.
    pub(crate) fn elf(&self) -> Vec<u8> {
        let mut strings = vec![0];
        let mut string = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.bytes());
            strings.push(0);
            at
        };
        let loader = self.loader.map(&mut string);
        let mut entries: Vec<(u64, u64)> = Vec::new();
        entries.extend(self.needed.iter().map(|name| (1, string(name))));
        for (tag, text) in [(14, self.own_name), (15, self.rpath), (29, self.runpath)] {
            entries.extend(text.map(|text| (tag, string(text))));
        }
        let dynamic = 64 + 3 * 56;
        let place = dynamic + 16 * (entries.len() as u64 + 2);
        let end = place + strings.len() as u64;
        let segments = [
            (1_u32, 0, end),
            (2, dynamic, place - dynamic),
            // No loader: a segment that nobody reads.
            loader.map_or((6, 0, 0), |at| (3, place + at, 0)),
        ];
        let mut bytes = elf();
        bytes[32] = 64;
        bytes[56] = 3;
        for (kind, offset, size) in segments {
            let mut segment = [0; 56];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&offset.to_le_bytes());
            segment[16..24].copy_from_slice(&offset.to_le_bytes());
            segment[32..40].copy_from_slice(&size.to_le_bytes());
            bytes.extend(segment);
        }
        for (tag, value) in entries.into_iter().chain([(5, place), (0, 0)]) {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(strings);
        bytes
    }
}

pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
