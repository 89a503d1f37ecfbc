//! How large the image's files are, and the memory that they take.

use std::collections::BTreeSet;

use manifest::{MemoryMib, needed_mib};

use crate::large_file::LargeFile;
use crate::node::Kind;
use crate::path::parent;
use crate::tree::Tree;

const MIB: u64 = 1024 * 1024;
/// The kernel's page, in bytes.
const PAGE: u64 = 4096;
/// An inode in a tmpfs, with a short name (`shmem_inode_cache`), in bytes, rounded up.
const INODE: u64 = 1024;
/// One more name of a file (`dentry`), in bytes, rounded up.
const NAME: u64 = 256;
/// Longest name or target of a link that these have room for.
const MAX_SHORT: usize = 39;
/// Bytes that the kernel puts before a longer name.
const LONG_NAME_HEADER: usize = 17;
/// Longest target of a link that is kept without a page of its own (`SHORT_SYMLINK_LEN`).
const MAX_LINK: usize = 127;
/// The index of a file with more than one page (`radix_tree_node`): bytes for each node, and
/// the pages that one has, those of the nodes above included.
const INDEX_NODE: u64 = 600;
const INDEX_PAGES: u64 = 63;

/// What the init copies into a file system of its own, with the names of one file kept.
const COPIED: &[u8] = b"run/";

/// What the image's files come to, in bytes. A file counts once, whatever its names are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Their contents.
    pub(crate) contents: u64,
    /// The memory that they take when the kernel has unpacked them, and the init has copied
    /// what is in `/run`.
    pub(crate) unpacked: u64,
    /// The largest of them.
    pub(crate) largest: Option<LargeFile>,
}

impl Files {
    /// Those of a tree. A file in a ramdisk has less than 4 GiB.
    pub(crate) fn of(tree: &Tree) -> Result<Self, String> {
        let mut counted = BTreeSet::new();
        let mut copied = BTreeSet::new();
        let mut files = Self::default();
        for (path, node) in tree.iter() {
            let name = path.len() - parent(path).len();
            files.unpacked = files.unpacked.saturating_add(of_text(name));
            if path.starts_with(COPIED) {
                let copy = match &node.kind {
                    Kind::File { inode, .. } if !copied.insert(*inode) => NAME,
                    Kind::File { content, .. } => of_file(content.size),
                    Kind::Symlink(target) => INODE + of_target(target.len()),
                    Kind::Directory => INODE,
                    Kind::Fifo => 0,
                };
                let copy = copy.saturating_add(of_text(name));
                files.unpacked = files.unpacked.saturating_add(copy);
            }
            let size = match &node.kind {
                Kind::File { inode, .. } if !counted.insert(*inode) => {
                    files.unpacked = files.unpacked.saturating_add(NAME);
                    continue;
                }
                Kind::File { content, .. } => content.size,
                Kind::Symlink(target) => {
                    files.unpacked = files.unpacked.saturating_add(of_target(target.len()));
                    0
                }
                Kind::Directory | Kind::Fifo => 0,
            };
            if size > eif::cpio::MAX_CONTENTS {
                let file = LargeFile::new(path, size);
                return Err(format!(
                    "it has the file {file}, but a file in an enclave image has less than 4096: split it"
                ));
            }
            if matches!(node.kind, Kind::File { .. }) {
                let largest = LargeFile::or_larger(files.largest.take(), path, size);
                files.largest = Some(largest);
            }
            files.contents = files.contents.saturating_add(size);
            files.unpacked = files.unpacked.saturating_add(of_file(size));
        }
        Ok(files)
    }
}

/// What a file of this size takes of the memory: whole pages, their index, and an inode.
pub(crate) const fn of_file(size: u64) -> u64 {
    let pages = size.div_ceil(PAGE);
    let nodes = match pages {
        0 | 1 => 0,
        pages => pages.div_ceil(INDEX_PAGES),
    };
    pages
        .saturating_mul(PAGE)
        .saturating_add(nodes * INDEX_NODE)
        .saturating_add(INODE)
}

/// What a name takes beside its inode: nothing, or a power of two.
fn of_text(bytes: usize) -> u64 {
    match bytes {
        0..=MAX_SHORT => 0,
        bytes => (bytes + LONG_NAME_HEADER).next_power_of_two() as u64,
    }
}

/// The same, of the target of a link.
fn of_target(bytes: usize) -> u64 {
    if bytes > MAX_LINK {
        PAGE
    } else {
        of_text(bytes)
    }
}

/// Checks that an enclave with this memory starts. The image's size is 0 while it is not
/// known yet.
pub(crate) fn check(
    image: u64,
    unpacked: u64,
    largest: Option<&LargeFile>,
    memory: MemoryMib,
) -> Result<(), String> {
    let needed = needed_mib(image, unpacked);
    if needed <= u64::from(memory.get()) {
        return Ok(());
    }
    let unpacked = unpacked.div_ceil(MIB);
    let size = match image.div_ceil(MIB) {
        0 => format!("the image's files take {unpacked} MiB of memory when they are unpacked"),
        image => format!(
            "the enclave image has {image} MiB and its files take {unpacked} MiB of memory when they are unpacked, both at once"
        ),
    };
    let largest = largest.map_or_else(String::new, |file| format!("; the largest is {file}"));
    Err(format!(
        "{size}{largest}: set enclave.memory_mib to at least {needed} (it is {memory}), and to more for what the workload needs"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Content, Metadata};

    #[test]
    fn files_are_counted_once_and_fit_into_a_ramdisk() {
        let mut tree = Tree::default();
        let mut file = |name: &[u8], size| {
            let content = Content { offset: 0, size };
            tree.file(name, Metadata::DIRECTORY, content).unwrap();
        };
        file(b"a", 7);
        file(b"large", u64::from(u32::MAX));
        tree.hard_link(b"b", b"a").unwrap();
        let files = Files::of(&tree).unwrap();
        let largest = files.largest.as_ref().unwrap().to_string();
        assert_eq!(largest, "/large with 4096 MiB");
        assert_eq!(files.contents, 7 + u64::from(u32::MAX));
        let index = (1_u64 << 20).div_ceil(INDEX_PAGES) * INDEX_NODE;
        assert_eq!(files.unpacked, PAGE + (1 << 32) + index + 2 * INODE + NAME);
        let content = Content {
            offset: 0,
            size: 1 << 32,
        };
        tree.file(b"d/larger", Metadata::DIRECTORY, content)
            .unwrap();
        let reason = Files::of(&tree).unwrap_err();
        assert!(
            reason.starts_with("it has the file /d/larger with 4096 MiB, but"),
            "{reason}"
        );
    }

    #[test]
    fn memory_of_what_is_copied_from_run_is_counted_twice() {
        let mut tree = Tree::default();
        let content = Content {
            offset: 0,
            size: 1 << 20,
        };
        tree.file(b"a", Metadata::DIRECTORY, content).unwrap();
        let before = Files::of(&tree).unwrap().unpacked;
        tree.hard_link(b"run/deep/first", b"a").unwrap();
        tree.hard_link(b"run/second", b"a").unwrap();
        tree.hard_link(b"running", b"a").unwrap();
        let files = Files::of(&tree).unwrap();
        // Two folders, of which one is in `/run`, and four names.
        let names = 2 * INODE + 3 * NAME;
        let copy = INODE + of_file(1 << 20) + NAME;
        assert_eq!(files.unpacked, before + names + copy);
        assert_eq!(files.contents, 1 << 20);
    }

    #[test]
    fn memory_of_names_links_and_pages_is_counted() {
        let of = |path: &str, target: Option<usize>| {
            let mut tree = Tree::default();
            let target = target.map(|bytes| vec![b't'; bytes]);
            match target {
                Some(target) => tree.symlink(path.as_bytes(), Metadata::DIRECTORY, target),
                None => tree.fifo(path.as_bytes(), Metadata::DIRECTORY),
            }
            .unwrap();
            Files::of(&tree).unwrap().unpacked
        };
        let long = "n".repeat(255);
        assert_eq!(of("short", None), INODE);
        assert_eq!(of(&long, None), INODE + 512);
        assert_eq!(of(&format!("{long}/short"), None), 2 * INODE + 512);
        assert_eq!(of("l", Some(39)), INODE);
        assert_eq!(of("l", Some(100)), INODE + 128);
        assert_eq!(of("l", Some(128)), INODE + PAGE);
        assert_eq!(of_file(0), INODE);
        assert_eq!(of_file(PAGE), INODE + PAGE);
        assert_eq!(of_file(PAGE + 1), INODE + 2 * PAGE + INDEX_NODE);
    }

    #[test]
    fn memory_that_an_error_names_is_enough() {
        let memory = |mib| MemoryMib::holding(mib * MIB).unwrap();
        let check = |image, files, mib| check(image * MIB, files * MIB, None, memory(mib));
        assert_eq!(check(4, 18, 64), Ok(()));
        for (image, files) in [(18, 38), (1, 700), (100, 700), (0, 300)] {
            let error = check(image, files, 64).unwrap_err();
            let named = error.split_once("at least ").unwrap().1;
            let needed = named.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(check(image, files, needed), Ok(()), "{error}");
            assert!(check(image, files, needed - 1).is_err(), "{error}");
        }
    }
}
