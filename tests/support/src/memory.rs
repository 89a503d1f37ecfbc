//! What a process's memory holds (proc(5), `/proc/ID/mem`).

use std::fmt::Display;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::Context;
use memchr::memmem;

/// Bytes that are read at a time.
const CHUNK: usize = 1024 * 1024;

/// Where a text is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// In memory that has no name or a file's: the process's own.
    pub own: bool,
    /// In memory that several processes share by a `memfd`: a virtual machine's.
    pub shared: bool,
}

/// Looks for a text, whole or from some byte on: any piece of it of this length at a
/// multiple of the length.
pub fn find(id: impl Display, text: &[u8], piece: usize) -> anyhow::Result<Found> {
    let memory = File::open(format!("/proc/{id}/mem")).with_context(|| format!("process {id}"))?;
    let maps = fs::read_to_string(format!("/proc/{id}/maps"))?;
    let finders: Vec<_> = text.chunks_exact(piece).map(memmem::Finder::new).collect();
    let mut found = Found::default();
    let mut buffer = vec![0; CHUNK + piece];
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').context("no range")?;
        // Nobody reads the kernel's own pages.
        if !rest.starts_with('r') || rest.contains("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').context("no range")?;
        let (mut at, end) = (
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        );
        let place = if rest.contains("/memfd:") {
            &mut found.shared
        } else {
            &mut found.own
        };
        while at < end {
            let length = usize::try_from(end - at)?.min(buffer.len());
            let read = buffer.get_mut(..length).context("a buffer")?;
            // It may have been given back meanwhile.
            if memory.read_exact_at(read, at).is_ok() {
                *place |= finders.iter().any(|finder| finder.find(read).is_some());
            }
            at = at.saturating_add(u64::try_from(CHUNK)?);
        }
    }
    Ok(found)
}
