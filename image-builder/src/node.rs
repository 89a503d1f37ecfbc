//! What is at a path of an image.

/// Owner and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Metadata {
    /// What a directory has that no layer describes.
    pub(crate) const DIRECTORY: Self = Self {
        permissions: 0o755,
        uid: 0,
        gid: 0,
    };
}

/// Where a file's bytes are: a range of the file that holds the archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Files with the same inode are hard links to each other.
    File {
        content: Content,
        inode: u32,
    },
    Symlink(Vec<u8>),
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
}
