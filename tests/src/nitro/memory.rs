//! The memory of a parent instance, which its emulator shares as files.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};

/// A range of physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) size: u64,
}

impl Range {
    fn end(self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Whether an address is in both.
    pub(super) fn meets(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    fn holds(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }
}

/// The memory of each NUMA node, one after the other from the address 0.
#[derive(Debug)]
pub(super) struct Memory {
    nodes: Vec<(Range, File)>,
}

impl Memory {
    /// Where everything lies below 2 GiB, no hole is between.
    pub(super) const MOST: u64 = 2 << 30;

    pub(super) fn new(files: Vec<File>) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let mut start = 0;
        for file in files {
            let size = file.metadata()?.len();
            nodes.push((Range { start, size }, file));
            start += size;
        }
        ensure!(start <= Self::MOST, "the instance has too much memory");
        Ok(Self { nodes })
    }

    /// The node that has all of a range.
    pub(super) fn node(&self, range: Range) -> Option<usize> {
        self.nodes.iter().position(|(node, _)| node.holds(range))
    }

    /// The bytes of a range.
    pub(super) fn read(&self, range: Range) -> anyhow::Result<Vec<u8>> {
        let node = self.node(range).context("no memory is there")?;
        let (start, file) = self.nodes.get(node).context("no such node")?;
        let mut bytes = vec![0; usize::try_from(range.size)?];
        file.read_exact_at(&mut bytes, range.start - start.start)?;
        Ok(bytes)
    }
}
