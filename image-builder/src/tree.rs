//! The merged file system, in memory. Nothing of it ever touches the building
//! machine's file system, so neither privileges nor hostile paths matter.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::left_out::{Attributes, LeftOut};
use crate::node::{Content, Kind, Metadata, Node};
use crate::path::{
    MAX_LINKED, MAX_LOOKED_UP, MAX_PATH, PathError, below, components, parent, push, refuse_escape,
    resolve,
};

/// Most entries of all layers together; an agent unpacks no more than a million.
pub(crate) const MAX_ENTRIES: usize = 999_000;
/// Most bytes of all their paths, link targets and names of attributes together: they are
/// in memory.
const MAX_NAMES: usize = 256 * 1024 * 1024;

/// Why an entry cannot be in the tree.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum TreeError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("its path goes through a file that is not a directory")]
    NotADirectory,
    #[error("it would replace the root directory")]
    Root,
    #[error("something is there already")]
    Taken,
    #[error("it is a hard link to something that is not a file in the image")]
    HardLink,
    #[error("it hides a file in a directory that is a symbolic link")]
    WhiteoutThroughLink,
    #[error("the layers have more than {MAX_ENTRIES} entries: make the image smaller")]
    Entries,
    #[error(
        "the layers have paths and names of attributes of more than {MAX_NAMES} bytes: make the image smaller"
    )]
    Names,
}

/// Paths without leading slash, in byte order.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Node,
    nodes: BTreeMap<Vec<u8>, Node>,
    left_out: LeftOut,
    next_inode: u32,
    entries_left: usize,
    names_left: usize,
    linked_left: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            root: Node {
                kind: Kind::Directory,
                metadata: Metadata::DIRECTORY,
            },
            nodes: BTreeMap::new(),
            left_out: LeftOut::default(),
            next_inode: 0,
            entries_left: MAX_ENTRIES,
            names_left: MAX_NAMES,
            linked_left: MAX_LINKED,
        }
    }
}

impl Tree {
    /// The root directory.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// What the layers have and this has not.
    pub(crate) fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Every entry but the root, parents first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes
            .iter()
            .map(|(path, node)| (path.as_slice(), node))
    }

    /// The paths of all that is below a folder, by its path without links.
    pub(crate) fn below<'a>(&'a self, folder: &[u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        below(&self.nodes, folder)
    }

    /// The entry at `path`, every symbolic link on the way followed. As on
    /// Linux, nothing is above the root directory.
    pub(crate) fn lookup(&self, path: &[u8]) -> Option<&Node> {
        self.get(&self.find(path)?)
    }

    /// The same, with the entry's own path. `through` is told the path of every directory
    /// that is passed through on the way.
    pub(crate) fn walk(
        &self,
        path: &[u8],
        through: &mut dyn FnMut(&[u8], &Node),
    ) -> Option<(Vec<u8>, &Node)> {
        let through = &mut |folder: &[u8]| {
            if let Some(node) = self.get(folder) {
                through(folder, node);
            }
        };
        let link = |path: &[u8]| self.link(path);
        let path = resolve(path, true, &link, through, &mut { MAX_LOOKED_UP }).ok()?;
        let node = self.get(&path)?;
        Some((path, node))
    }

    pub(crate) fn directory(&mut self, name: &[u8], metadata: Metadata) -> Result<(), TreeError> {
        let path = self.place(name)?;
        self.count(path.len().max(name.len()))?;
        self.left_out.forget(&path);
        let existing = if path.is_empty() {
            Some(&mut self.root)
        } else {
            self.nodes.get_mut(&path)
        };
        match existing {
            // A directory of a lower layer keeps its entries.
            Some(node) if node.kind == Kind::Directory => {
                node.metadata = metadata;
                Ok(())
            }
            _ => self.replace(path, Kind::Directory, metadata),
        }
    }

    /// A directory, where there is none: every link on the way is followed, and missing
    /// directories are made.
    pub(crate) fn ensure_directory(&mut self, name: &[u8]) -> Result<(), TreeError> {
        let path = self.resolve(name, true)?;
        match self.get(&path).map(|node| &node.kind) {
            Some(Kind::Directory) => Ok(()),
            Some(_) => Err(TreeError::NotADirectory),
            None => self.directory(&path, Metadata::DIRECTORY),
        }
    }

    pub(crate) fn file(
        &mut self,
        name: &[u8],
        metadata: Metadata,
        content: Content,
    ) -> Result<(), TreeError> {
        let path = self.place(name)?;
        self.count(path.len().max(name.len()))?;
        let inode = self.next_inode;
        self.next_inode = inode.checked_add(1).ok_or(TreeError::Entries)?;
        self.replace(path, Kind::File { content, inode }, metadata)
    }

    /// A file where there is none yet, and no link.
    pub(crate) fn new_file(
        &mut self,
        name: &[u8],
        metadata: Metadata,
        content: Content,
    ) -> Result<(), TreeError> {
        let path = self.resolve(name, false)?;
        if self.get(&path).is_some() {
            return Err(TreeError::Taken);
        }
        self.file(name, metadata, content)
    }

    pub(crate) fn symlink(
        &mut self,
        name: &[u8],
        metadata: Metadata,
        target: Vec<u8>,
    ) -> Result<(), TreeError> {
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            return Err(PathError::Impossible.into());
        }
        let path = self.place(name)?;
        self.count(path.len().max(name.len()) + target.len())?;
        self.replace(path, Kind::Symlink(target), metadata)
    }

    pub(crate) fn fifo(&mut self, name: &[u8], metadata: Metadata) -> Result<(), TreeError> {
        let path = self.place(name)?;
        self.count(path.len().max(name.len()))?;
        self.replace(path, Kind::Fifo, metadata)
    }

    /// A device node, which takes the place of what was there, without being put there.
    pub(crate) fn device(&mut self, name: &[u8]) -> Result<(), TreeError> {
        let path = self.place(name)?;
        self.count(path.len().max(name.len()))?;
        self.remove_at(&path);
        self.left_out.device(path);
        Ok(())
    }

    /// A socket, which only the server that made it can have.
    pub(crate) fn socket(&mut self, name: &[u8]) -> Result<(), TreeError> {
        let path = self.place(name)?;
        self.count(path.len().max(name.len()))?;
        self.left_out.socket(path);
        Ok(())
    }

    /// The extended attributes of the entry that has just been put there.
    pub(crate) fn attributes(
        &mut self,
        name: &[u8],
        attributes: &Attributes,
    ) -> Result<(), TreeError> {
        if attributes.is_empty() {
            return Ok(());
        }
        let path = self.resolve(name, false)?;
        self.count_names(path.len().saturating_add(attributes.name_bytes()))?;
        self.left_out.attributes(path, attributes.clone());
        Ok(())
    }

    pub(crate) fn hard_link(&mut self, name: &[u8], target: &[u8]) -> Result<(), TreeError> {
        refuse_escape(target)?;
        let target = self.resolve(target, false)?;
        let Node { kind, metadata } = self.get(&target).ok_or(TreeError::HardLink)?.clone();
        let target_bytes = match &kind {
            Kind::Directory => return Err(TreeError::HardLink),
            Kind::Symlink(target) => target.len(),
            Kind::File { .. } | Kind::Fifo => 0,
        };
        let path = self.place(name)?;
        self.count(path.len().max(name.len()) + target_bytes)?;
        if path == target {
            return Ok(());
        }
        self.replace(path, kind, metadata)
    }

    /// What is at a path without links.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Node> {
        if path.is_empty() {
            return Some(&self.root);
        }
        self.nodes.get(path)
    }

    /// Removes what is at a path without links, and all below it.
    pub(crate) fn remove_at(&mut self, path: &[u8]) {
        self.nodes.remove(path);
        self.left_out.forget(path);
        self.remove_children(path);
    }

    /// Removes all that is below a path without links.
    pub(crate) fn remove_children(&mut self, path: &[u8]) {
        let removed: Vec<_> = self.below(path).map(<[u8]>::to_vec).collect();
        for path in removed {
            self.nodes.remove(&path);
        }
        self.left_out.forget_below(path);
    }

    /// The place of an entry: links in its parents are followed, missing
    /// parents made, its own name is taken as it is.
    fn place(&mut self, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        let path = self.entry_path(name)?;
        let mut made = Vec::new();
        for component in components(parent(&path)) {
            push(&mut made, component);
            match self.nodes.get(&made) {
                Some(node) if node.kind == Kind::Directory => {}
                Some(_) => return Err(TreeError::NotADirectory),
                None => {
                    self.count(made.len())?;
                    let node = Node {
                        kind: Kind::Directory,
                        metadata: Metadata::DIRECTORY,
                    };
                    self.nodes.insert(made.clone(), node);
                }
            }
        }
        Ok(path)
    }

    fn replace(&mut self, path: Vec<u8>, kind: Kind, metadata: Metadata) -> Result<(), TreeError> {
        if path.is_empty() {
            return Err(TreeError::Root);
        }
        self.remove_at(&path);
        self.nodes.insert(path, Node { kind, metadata });
        Ok(())
    }

    /// Takes an entry off what is left of the limits.
    fn count(&mut self, name_bytes: usize) -> Result<(), TreeError> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or(TreeError::Entries)?;
        self.count_names(name_bytes)
    }

    fn count_names(&mut self, bytes: usize) -> Result<(), TreeError> {
        let left = self.names_left.checked_sub(bytes);
        self.names_left = left.ok_or(TreeError::Names)?;
        Ok(())
    }

    /// The path of an entry with this name, without links.
    pub(crate) fn entry_path(&mut self, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        refuse_escape(name)?;
        Ok(self.resolve(name, false)?)
    }

    /// The path without links of what is looked up, which the limit on entries is not for.
    fn find(&self, path: &[u8]) -> Option<Vec<u8>> {
        let link = |path: &[u8]| self.link(path);
        resolve(path, true, &link, &mut |_| {}, &mut { MAX_LOOKED_UP }).ok()
    }

    /// See [`resolve`].
    fn resolve(&mut self, name: &[u8], follow_last: bool) -> Result<Vec<u8>, PathError> {
        let mut left = self.linked_left;
        let link = |path: &[u8]| self.link(path);
        let resolved = resolve(name, follow_last, &link, &mut |_| {}, &mut left);
        self.linked_left = left;
        resolved
    }

    /// The target of a symbolic link.
    fn link(&self, path: &[u8]) -> Option<&[u8]> {
        match self.nodes.get(path).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => Some(target.as_slice()),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const META: Metadata = Metadata {
        permissions: 0o644,
        uid: 1,
        gid: 2,
    };
    pub(crate) const CONTENT: Content = Content { offset: 7, size: 1 };

    pub(crate) fn paths(tree: &Tree) -> Vec<String> {
        tree.iter()
            .map(|(path, _)| String::from_utf8(path.to_vec()).unwrap())
            .collect()
    }

    pub(crate) fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for name in files {
            tree.file(name.as_bytes(), META, CONTENT).unwrap();
        }
        tree
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let mut tree = tree(&["/abs/./x"]);
        for name in ["../a", "a/../../b", "a/.."] {
            let name = name.as_bytes();
            assert_eq!(
                tree.file(name, META, CONTENT),
                Err(TreeError::Path(PathError::Escape))
            );
            assert_eq!(
                tree.hard_link(b"b", name),
                Err(TreeError::Path(PathError::Escape))
            );
            assert_eq!(tree.clear(name), Err(TreeError::Path(PathError::Escape)));
        }
        assert_eq!(paths(&tree), ["abs", "abs/x"]);
    }

    #[test]
    fn names_that_linux_cannot_have_are_refused() {
        let mut tree = Tree::default();
        let mut file = |name: &[u8]| tree.file(name, META, CONTENT);
        assert_eq!(
            file(&[b'x'; 256]),
            Err(TreeError::Path(PathError::Impossible))
        );
        assert_eq!(file(&[b'x'; 255]), Ok(()));
        assert_eq!(file(b"a\0b"), Err(TreeError::Path(PathError::Impossible)));
        assert_eq!(
            file(&b"d/".repeat(257)),
            Err(TreeError::Path(PathError::Impossible))
        );
        assert_eq!(
            file(&b"dd-ee-ff/".repeat(500)),
            Err(TreeError::Path(PathError::Impossible))
        );
        assert_eq!(file(b"/"), Err(TreeError::Root));
        assert_eq!(file(b"./"), Err(TreeError::Root));
        assert_eq!(
            tree.symlink(b"l", META, vec![]),
            Err(TreeError::Path(PathError::Impossible))
        );
        let long = vec![b'x'; MAX_PATH + 1];
        assert_eq!(
            tree.symlink(b"l", META, long),
            Err(TreeError::Path(PathError::Impossible))
        );
    }

    #[test]
    fn links_in_parents_stay_inside() {
        let mut tree = Tree::default();
        tree.directory(b"usr/lib", META).unwrap();
        tree.symlink(b"lib", META, b"usr/lib".to_vec()).unwrap();
        tree.symlink(b"up", META, b"../../../..".to_vec()).unwrap();
        tree.file(b"lib/x", META, CONTENT).unwrap();
        tree.file(b"up/y", META, CONTENT).unwrap();
        let expected = ["lib", "up", "usr", "usr/lib", "usr/lib/x", "y"];
        assert_eq!(paths(&tree), expected);
        tree.symlink(b"loop", META, b"loop".to_vec()).unwrap();
        assert_eq!(
            tree.file(b"loop/x", META, CONTENT),
            Err(TreeError::Path(PathError::Links))
        );
        assert!(tree.lookup(b"loop").is_none());
    }

    #[test]
    fn paths_are_looked_up_as_linux_does() {
        let mut tree = tree(&["usr/bin/app"]);
        tree.symlink(b"bin", META, b"/usr/bin".to_vec()).unwrap();
        for path in ["/bin/app", "/usr/./bin/../../bin//app", "../../bin/app"] {
            assert!(tree.lookup(path.as_bytes()).is_some(), "{path}");
        }
        assert_eq!(tree.lookup(b"/").unwrap().kind, Kind::Directory);
        assert!(tree.lookup(b"/bin/none").is_none());
    }

    #[test]
    fn paths_that_are_looked_up_take_few_steps() {
        let mut tree = tree(&["d/app"]);
        for (name, steps, last) in [
            ("half", 500, "d"),
            ("near", 499, "half"),
            ("far", 500, "half"),
        ] {
            let target = format!("{}{last}", "d/../".repeat(steps));
            tree.symlink(name.as_bytes(), META, target.into_bytes())
                .unwrap();
        }
        assert!(tree.lookup(b"near/app").is_some());
        assert!(tree.lookup(b"far/app").is_none());
        assert!(tree.walk(b"far/app", &mut |_, _| {}).is_none());
    }

    #[test]
    fn a_file_replaces_a_directory_and_its_entries() {
        let mut tree = tree(&["d/a", "d-x"]);
        tree.file(b"d", META, CONTENT).unwrap();
        assert_eq!(paths(&tree), ["d", "d-x"]);
        assert_eq!(
            tree.file(b"d/a", META, CONTENT),
            Err(TreeError::NotADirectory)
        );
        tree.device(b"d").unwrap();
        assert_eq!(paths(&tree), ["d-x"]);
    }

    #[test]
    fn the_root_directory_has_an_owner_too() {
        let mut tree = Tree::default();
        assert_eq!(tree.root().metadata, Metadata::DIRECTORY);
        tree.directory(b"./", META).unwrap();
        assert_eq!(tree.root().metadata, META);
        assert!(paths(&tree).is_empty());
    }

    #[test]
    fn hard_links_share_an_inode() {
        let mut tree = tree(&["a"]);
        tree.hard_link(b"b", b"./a").unwrap();
        tree.hard_link(b"a", b"a").unwrap();
        let kind = |path: &[u8]| tree.lookup(path).unwrap().kind.clone();
        assert_eq!(kind(b"a"), kind(b"b"));
        for target in [&b"none"[..], b"/", b""] {
            assert_eq!(tree.hard_link(b"c", target), Err(TreeError::HardLink));
        }
    }

    #[test]
    fn entries_and_names_are_bounded_over_all_layers() {
        let mut tree = Tree {
            entries_left: 3,
            ..Tree::default()
        };
        // The same name again counts again, and so does a parent.
        tree.file(b"d/a", META, CONTENT).unwrap();
        tree.file(b"d/a", META, CONTENT).unwrap();
        assert_eq!(tree.file(b"a", META, CONTENT), Err(TreeError::Entries));
        let mut tree = Tree {
            names_left: 10,
            ..Tree::default()
        };
        assert_eq!(
            tree.symlink(b"link", META, b"target!".to_vec()),
            Err(TreeError::Names)
        );
        // A name of attributes is kept with the path once more.
        let mut tree = Tree {
            names_left: 10,
            ..Tree::default()
        };
        let mut attributes = Attributes::default();
        tree.file(b"abc", META, CONTENT).unwrap();
        tree.attributes(b"abc", &attributes).unwrap();
        attributes.set(b"user", b"1").unwrap();
        tree.attributes(b"abc", &attributes).unwrap();
        assert_eq!(tree.names_left, 0);
        assert_eq!(tree.attributes(b"abc", &attributes), Err(TreeError::Names));
    }
}
