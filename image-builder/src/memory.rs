//! How large the image's files are, and the memory that they take.

use std::collections::BTreeSet;

use manifest::{MemoryMib, needed_mib};

use crate::large_file::LargeFile;
use crate::node::Kind;
use crate::tree::Tree;

const MIB: u64 = 1024 * 1024;
/// The kernel's page, in bytes.
const PAGE: u64 = 4096;
/// An inode and its name in a tmpfs, in bytes, rounded up.
const INODE: u64 = 1024;

/// What the image's files come to, in bytes. A file counts once, whatever its names are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Their contents.
    pub(crate) contents: u64,
    /// The memory that they take when the kernel has unpacked them.
    pub(crate) unpacked: u64,
    /// The largest of them.
    pub(crate) largest: Option<LargeFile>,
}

impl Files {
    /// Those of a tree. A file in a ramdisk has less than 4 GiB.
    pub(crate) fn of(tree: &Tree) -> Result<Self, String> {
        let mut counted = BTreeSet::new();
        let mut files = Self::default();
        for (path, node) in tree.iter() {
            let size = match &node.kind {
                Kind::File { inode, .. } if !counted.insert(*inode) => continue,
                Kind::File { content, .. } => content.size,
                Kind::Directory | Kind::Fifo | Kind::Symlink(_) => 0,
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

/// What a file of this size takes of the memory: whole pages, and an inode.
pub(crate) const fn of_file(size: u64) -> u64 {
    size.div_ceil(PAGE)
        .saturating_mul(PAGE)
        .saturating_add(INODE)
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
        assert_eq!(files.unpacked, PAGE + (1 << 32) + 2 * INODE);
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
