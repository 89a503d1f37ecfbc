//! The merged file system, in memory. Nothing of it ever touches the building
//! machine's file system, so neither privileges nor hostile paths matter.

use std::collections::BTreeMap;

use thiserror::Error;

/// Most links followed to resolve one path (as Linux, `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Longest path in bytes (`PATH_MAX` without its zero byte and the prefix that
/// the ramdisk adds).
const MAX_PATH: usize = 4000;
/// Most entries in the whole tree.
const MAX_ENTRIES: usize = 2_000_000;

/// Why an entry cannot be in the tree.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum TreeError {
    #[error("its path leads out of the image")]
    Escape,
    #[error("its path is longer than {MAX_PATH} bytes, or contains a zero byte")]
    Path,
    #[error("its path goes through too many symbolic links")]
    Links,
    #[error("a part of its path is not a directory")]
    NotADirectory,
    #[error("it is a hard link to something that is not a file in the image")]
    HardLink,
    #[error("the image has more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// Owner and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Where a file's bytes are: a range of a layer's archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) layer: usize,
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    /// The layer that put it here.
    layer: usize,
}

/// Paths without leading slash, in byte order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
    next_inode: u32,
}

impl Tree {
    /// Every entry but the root, parents first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes
            .iter()
            .map(|(path, node)| (path.as_slice(), node))
    }

    /// The entry at `path`, every symbolic link on the way followed.
    pub(crate) fn lookup(&self, path: &[u8]) -> Option<&Node> {
        let path = self.resolve(path, true).ok()?;
        self.nodes.get(&path)
    }

    pub(crate) fn directory(
        &mut self,
        layer: usize,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<(), TreeError> {
        let path = self.place(layer, name)?;
        if path.is_empty() {
            return Ok(());
        }
        if let Some(node) = self.nodes.get_mut(&path)
            && node.kind == Kind::Directory
        {
            // A directory of a lower layer keeps its entries.
            (node.metadata, node.layer) = (metadata, layer);
            return Ok(());
        }
        self.replace(
            path,
            Node {
                kind: Kind::Directory,
                metadata,
                layer,
            },
        )
    }

    pub(crate) fn file(
        &mut self,
        layer: usize,
        name: &[u8],
        metadata: Metadata,
        content: Content,
    ) -> Result<(), TreeError> {
        let path = self.place(layer, name)?;
        let inode = self.next_inode;
        self.next_inode = inode.checked_add(1).ok_or(TreeError::TooMany)?;
        self.replace(
            path,
            Node {
                kind: Kind::File { content, inode },
                metadata,
                layer,
            },
        )
    }

    pub(crate) fn symlink(
        &mut self,
        layer: usize,
        name: &[u8],
        metadata: Metadata,
        target: Vec<u8>,
    ) -> Result<(), TreeError> {
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            return Err(TreeError::Path);
        }
        let path = self.place(layer, name)?;
        self.replace(
            path,
            Node {
                kind: Kind::Symlink(target),
                metadata,
                layer,
            },
        )
    }

    pub(crate) fn hard_link(
        &mut self,
        layer: usize,
        name: &[u8],
        target: &[u8],
    ) -> Result<(), TreeError> {
        let target = self.resolve(target, false)?;
        let node = self.nodes.get(&target).ok_or(TreeError::HardLink)?.clone();
        if node.kind == Kind::Directory {
            return Err(TreeError::HardLink);
        }
        let path = self.place(layer, name)?;
        if path == target {
            return Ok(());
        }
        self.replace(path, Node { layer, ..node })
    }

    /// Applies a whiteout: removes what lower layers put at the whiteout's
    /// sibling `hidden`.
    pub(crate) fn remove_below(
        &mut self,
        layer: usize,
        whiteout: &[u8],
        hidden: &[u8],
    ) -> Result<(), TreeError> {
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(TreeError::Path);
        }
        let mut path = self.resolve(parent(whiteout), true)?;
        push(&mut path, hidden);
        if self.nodes.get(&path).is_some_and(|node| node.layer < layer) {
            self.nodes.remove(&path);
        }
        self.remove_children(&path, layer);
        Ok(())
    }

    /// Applies an opaque whiteout: removes what lower layers put into its directory.
    pub(crate) fn clear_below(&mut self, layer: usize, whiteout: &[u8]) -> Result<(), TreeError> {
        let path = self.resolve(parent(whiteout), true)?;
        self.remove_children(&path, layer);
        Ok(())
    }

    fn remove_children(&mut self, path: &[u8], below_layer: usize) {
        let removed: Vec<_> = self
            .children(path)
            .filter(|(_, node)| node.layer < below_layer)
            .map(|(path, _)| path.clone())
            .collect();
        for path in removed {
            self.nodes.remove(&path);
        }
    }

    /// Everything below a directory.
    fn children<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Node)> {
        let mut prefix = path.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// The place of an entry: links in its parents are followed, missing
    /// parents made, its own name is taken as it is.
    fn place(&mut self, layer: usize, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        let path = self.resolve(name, false)?;
        let mut made = Vec::new();
        for component in components(parent(&path)) {
            push(&mut made, component);
            match self.nodes.get(&made) {
                Some(node) if node.kind == Kind::Directory => {}
                Some(_) => return Err(TreeError::NotADirectory),
                None => {
                    let metadata = Metadata {
                        permissions: 0o755,
                        uid: 0,
                        gid: 0,
                    };
                    self.nodes.insert(
                        made.clone(),
                        Node {
                            kind: Kind::Directory,
                            metadata,
                            layer,
                        },
                    );
                }
            }
        }
        Ok(path)
    }

    fn replace(&mut self, path: Vec<u8>, node: Node) -> Result<(), TreeError> {
        if path.is_empty() {
            return Err(TreeError::NotADirectory);
        }
        if self.nodes.len() >= MAX_ENTRIES {
            return Err(TreeError::TooMany);
        }
        self.remove_children(&path, usize::MAX);
        self.nodes.insert(path, node);
        Ok(())
    }

    /// The path with every link in its parents followed, and in its last part
    /// if `follow_last`. `..` never leads above the root of the image in a
    /// link, and is an error in a name.
    fn resolve(&self, name: &[u8], follow_last: bool) -> Result<Vec<u8>, TreeError> {
        if name.len() > MAX_PATH || name.contains(&0) {
            return Err(TreeError::Path);
        }
        if components(name).any(|component| component == b"..") {
            return Err(TreeError::Escape);
        }
        let mut pending: Vec<Vec<u8>> = components(name).map(<[u8]>::to_vec).rev().collect();
        let mut path = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            if component == b".." {
                path = parent(&path).to_vec();
                continue;
            }
            let mut next = path.clone();
            push(&mut next, &component);
            let link = match self.nodes.get(&next) {
                Some(Node {
                    kind: Kind::Symlink(target),
                    ..
                }) if follow_last || !pending.is_empty() => target,
                _ => {
                    path = next;
                    continue;
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(TreeError::Links);
            }
            if link.first() == Some(&b'/') {
                path.clear();
            }
            pending.extend(components(link).map(<[u8]>::to_vec).rev());
        }
        if path.len() > MAX_PATH {
            return Err(TreeError::Path);
        }
        Ok(path)
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

fn parent(path: &[u8]) -> &[u8] {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    match trimmed.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => trimmed.get(..slash).unwrap_or_default(),
        None => &[],
    }
}

fn push(path: &mut Vec<u8>, component: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(component);
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Metadata = Metadata {
        permissions: 0o644,
        uid: 1,
        gid: 2,
    };

    fn content(offset: u64) -> Content {
        Content {
            layer: 0,
            offset,
            size: 1,
        }
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.iter()
            .map(|(path, _)| String::from_utf8(path.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let mut tree = Tree::default();
        for name in ["../a", "a/../../b", "a/.."] {
            assert_eq!(
                tree.file(0, name.as_bytes(), META, content(0)),
                Err(TreeError::Escape),
                "{name}"
            );
        }
        tree.file(0, b"/abs/./x", META, content(0)).unwrap();
        assert_eq!(paths(&tree), ["abs", "abs/x"]);
    }

    #[test]
    fn links_in_parents_stay_inside() {
        let mut tree = Tree::default();
        tree.directory(0, b"usr/lib", META).unwrap();
        tree.symlink(0, b"lib", META, b"usr/lib".to_vec()).unwrap();
        tree.symlink(0, b"up", META, b"../../../..".to_vec())
            .unwrap();
        tree.file(1, b"lib/x", META, content(1)).unwrap();
        tree.file(1, b"up/y", META, content(2)).unwrap();
        assert_eq!(
            paths(&tree),
            ["lib", "up", "usr", "usr/lib", "usr/lib/x", "y"]
        );
        tree.symlink(1, b"loop", META, b"loop".to_vec()).unwrap();
        assert_eq!(
            tree.file(1, b"loop/x", META, content(3)),
            Err(TreeError::Links)
        );
        assert!(tree.lookup(b"loop").is_none());
    }

    #[test]
    fn whiteouts_hide_lower_layers_only() {
        let mut tree = Tree::default();
        tree.file(0, b"d/a", META, content(0)).unwrap();
        tree.file(0, b"d/b/c", META, content(0)).unwrap();
        tree.file(1, b"d/new", META, content(1)).unwrap();
        tree.remove_below(1, b"d/.wh.b", b"b").unwrap();
        assert_eq!(paths(&tree), ["d", "d/a", "d/new"]);
        tree.clear_below(1, b"d/.wh..wh..opq").unwrap();
        assert_eq!(paths(&tree), ["d", "d/new"]);
    }

    #[test]
    fn a_file_replaces_a_directory_and_its_entries() {
        let mut tree = Tree::default();
        tree.file(0, b"d/a", META, content(0)).unwrap();
        tree.file(0, b"d-x", META, content(0)).unwrap();
        tree.file(1, b"d", META, content(1)).unwrap();
        assert_eq!(paths(&tree), ["d", "d-x"]);
    }

    #[test]
    fn hard_links_share_an_inode() {
        let mut tree = Tree::default();
        tree.file(0, b"a", META, content(7)).unwrap();
        tree.hard_link(1, b"b", b"a").unwrap();
        assert_eq!(
            tree.lookup(b"a").unwrap().kind,
            tree.lookup(b"b").unwrap().kind
        );
        assert_eq!(tree.hard_link(1, b"c", b"none"), Err(TreeError::HardLink));
    }
}
