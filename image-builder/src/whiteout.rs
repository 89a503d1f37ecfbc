//! Whiteouts: what a layer hides of those below it (OCI image specification, "layer.md").

use crate::node::Kind;
use crate::path::{PathError, checked, components, push, refuse_escape};
use crate::tree::{Tree, TreeError};

impl Tree {
    /// Applies a whiteout: removes its sibling `hidden`. Directories on the way
    /// are taken as the layers have them, symbolic links are not followed: what
    /// is after one is not in the whiteout's directory.
    pub(crate) fn remove(&mut self, whiteout: &[u8], hidden: &[u8]) -> Result<(), TreeError> {
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(PathError::Impossible.into());
        }
        if let Some(mut path) = self.whiteout_directory(whiteout)? {
            push(&mut path, hidden);
            self.remove_at(&path);
        }
        Ok(())
    }

    /// Applies an opaque whiteout: removes everything in its directory.
    pub(crate) fn clear(&mut self, whiteout: &[u8]) -> Result<(), TreeError> {
        if let Some(path) = self.whiteout_directory(whiteout)? {
            self.remove_children(&path);
        }
        Ok(())
    }

    /// Refuses a whiteout whose directory, now that its layer has been applied,
    /// is reached through a symbolic link: programs differ on what it hides.
    pub(crate) fn check_whiteout(&self, whiteout: &[u8]) -> Result<(), TreeError> {
        let mut path = Vec::new();
        let mut names = components(whiteout);
        names.next_back();
        for name in names {
            push(&mut path, name);
            if let Some(Kind::Symlink(_)) = self.get(&path).map(|node| &node.kind) {
                return Err(TreeError::WhiteoutThroughLink);
            }
        }
        Ok(())
    }

    /// The directory that a whiteout is in, if it is one.
    fn whiteout_directory(&self, whiteout: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        refuse_escape(whiteout)?;
        checked(whiteout)?;
        let mut path = Vec::new();
        let mut names = components(whiteout);
        names.next_back();
        for name in names {
            push(&mut path, name);
        }
        let is_directory = self
            .get(&path)
            .is_some_and(|node| node.kind == Kind::Directory);
        Ok(is_directory.then_some(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{CONTENT, META, paths, tree};

    #[test]
    fn whiteouts_hide_what_is_in_their_directory() {
        let mut tree = tree(&["d/a", "d/b/c", "e"]);
        tree.remove(b"d/.wh.b", b"b").unwrap();
        tree.remove(b"none/.wh.b", b"b").unwrap();
        assert_eq!(paths(&tree), ["d", "d/a", "e"]);
        tree.remove(b"./d//.wh.a//", b"a").unwrap();
        assert_eq!(paths(&tree), ["d", "e"]);
        for hidden in [&b""[..], b".", b".."] {
            assert_eq!(
                tree.remove(b"d/.wh.", hidden),
                Err(TreeError::Path(PathError::Impossible))
            );
        }
        tree.file(b"d/f", META, CONTENT).unwrap();
        tree.clear(b"d/.wh..wh..opq/").unwrap();
        assert_eq!(paths(&tree), ["d", "e"]);
        tree.clear(b".wh..wh..opq").unwrap();
        assert!(paths(&tree).is_empty());
    }

    #[test]
    fn whiteouts_do_not_reach_through_links() {
        let mut tree = tree(&["e/a"]);
        tree.symlink(b"d", META, b"e".to_vec()).unwrap();
        tree.clear(b"d/.wh..wh..opq").unwrap();
        tree.remove(b"d/.wh.a", b"a").unwrap();
        assert_eq!(paths(&tree), ["d", "e", "e/a"]);
        let refused = Err(TreeError::WhiteoutThroughLink);
        assert_eq!(tree.check_whiteout(b"d/.wh.a"), refused);
        tree.directory(b"d", META).unwrap();
        assert_eq!(tree.check_whiteout(b"d/.wh.a"), Ok(()));
    }
}
