//! Files of an image as a program in it opens them, within a budget: their bytes are
//! foreign, and may be made to take long.

use std::cell::Cell;
use std::io;

use crate::node::{Content, Kind};
use crate::path::{components, is_possible};
use crate::tree::Tree;

/// Most names in paths that one check looks up, links followed: more than a program with
/// hundreds of libraries takes.
const MAX_NAMES: u64 = 1_000_000;
/// Most bytes that one check reads from files, or writes into paths.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The budget is spent, or something is not as it usually is: nothing can be said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Undecided;

/// A file of the image.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The path that was asked for, and the one without links.
    pub(crate) path: String,
    pub(crate) real: String,
    pub(crate) content: Content,
}

/// The files of an image, and what is left of the budget.
pub(crate) struct Files<'a> {
    tree: &'a Tree,
    working_directory: &'a str,
    read: &'a dyn Fn(Content, u64) -> io::Result<Vec<u8>>,
    names_left: Cell<u64>,
    bytes_left: Cell<u64>,
}

impl<'a> Files<'a> {
    /// `read` reads the beginning of a file.
    pub(crate) fn new(
        tree: &'a Tree,
        working_directory: &'a str,
        read: &'a dyn Fn(Content, u64) -> io::Result<Vec<u8>>,
    ) -> Self {
        Self {
            tree,
            working_directory,
            read,
            names_left: Cell::new(MAX_NAMES),
            bytes_left: Cell::new(MAX_BYTES),
        }
    }

    pub(crate) fn working_directory(&self) -> &str {
        self.working_directory
    }

    /// The path without links of what is at a path.
    pub(crate) fn real_path(&self, path: &str) -> Result<Option<String>, Undecided> {
        let found = self.walk(path)?;
        Ok(found.map(|(real, _)| real))
    }

    /// The file at a path.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Found>, Undecided> {
        let Some((real, Kind::File { content, .. })) = self.walk(path)? else {
            return Ok(None);
        };
        Ok(Some(Found {
            path: path.to_owned(),
            real,
            content: *content,
        }))
    }

    /// The paths of what is in a folder, by its path without links, whose names begin and
    /// end so.
    pub(crate) fn matching(
        &self,
        folder: &str,
        before: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<String>, Undecided> {
        let mut paths = Vec::new();
        let folder = folder.trim_matches('/');
        for path in self.tree.below(folder.as_bytes()) {
            spend(&self.names_left, 1)?;
            let name = path.get(folder.len()..).ok_or(Undecided)?;
            let name = name.strip_prefix(b"/").unwrap_or(name);
            let fits = name.len() >= before.len().saturating_add(after.len())
                && !name.contains(&b'/')
                && name.starts_with(before.as_bytes())
                && name.ends_with(after.as_bytes());
            if !fits {
                continue;
            }
            if paths.len() >= most {
                return Err(Undecided);
            }
            let path = String::from_utf8(path.to_vec()).map_err(|_| Undecided)?;
            self.spend_bytes(path.len())?;
            paths.push(format!("/{path}"));
        }
        Ok(paths)
    }

    /// At most so many bytes from the beginning of a file.
    pub(crate) fn read(&self, content: Content, limit: u64) -> Result<Vec<u8>, Undecided> {
        spend(&self.bytes_left, content.size.min(limit))?;
        (self.read)(content, limit).map_err(|_| Undecided)
    }

    /// Takes bytes that are written or compared off the budget.
    pub(crate) fn spend_bytes(&self, count: usize) -> Result<(), Undecided> {
        spend(&self.bytes_left, count as u64)
    }

    /// What is at a path, which is below the working directory unless it is absolute, with
    /// its path without links.
    fn walk(&self, path: &str) -> Result<Option<(String, &Kind)>, Undecided> {
        let absolute = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.working_directory.trim_end_matches('/'))
        };
        // Linux's own limits are a little wider than a ramdisk's.
        if !is_possible(absolute.as_bytes()) {
            return Err(Undecided);
        }
        let mut names = components(absolute.as_bytes()).count() as u64;
        let found = self.tree.walk(absolute.as_bytes(), &mut |_, _| names += 1);
        spend(&self.names_left, names)?;
        let Some((real, node)) = found else {
            return Ok(None);
        };
        let real = String::from_utf8(real).map_err(|_| Undecided)?;
        Ok(Some((format!("/{real}"), &node.kind)))
    }
}

fn spend(left: &Cell<u64>, count: u64) -> Result<(), Undecided> {
    left.set(left.get().checked_sub(count).ok_or(Undecided)?);
    Ok(())
}

/// The last part of a path.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The folder that something with an absolute path is in.
pub(crate) fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        None | Some(("", _)) => "/",
        Some((folder, _)) => folder,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::node::Metadata;
    use crate::path::MAX_PATH;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            let content = Content { offset: 0, size: 8 };
            tree.file(path.as_bytes(), Metadata::DIRECTORY, content)
                .unwrap();
        }
        tree
    }

    fn read(content: Content, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let size = content.size.min(limit);
        io::repeat(0).take(size).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn files_are_found_from_the_working_directory() {
        let tree = tree(&["srv/a", "b"]);
        let files = Files::new(&tree, "/srv", &read);
        let real = |path: &str| files.find(path).unwrap().map(|found| found.real);
        assert_eq!(real("a").as_deref(), Some("/srv/a"));
        assert_eq!(real("../b").as_deref(), Some("/b"));
        assert_eq!(real("b"), None);
        assert_eq!(real("/srv"), None);
        let long = "/x".repeat(MAX_PATH);
        assert_eq!(files.find(&long).unwrap_err(), Undecided);
    }

    #[test]
    fn files_of_a_folder_match_by_their_own_names() {
        let tree = tree(&["etc/a.conf", "etc/b.txt", "etc/c/d.conf", "etc-e.conf"]);
        let files = Files::new(&tree, "/", &read);
        let matching = |most| files.matching("/etc", "", ".conf", most);
        assert_eq!(matching(1).unwrap(), ["/etc/a.conf"]);
        assert_eq!(matching(0), Err(Undecided));
        assert_eq!(files.matching("/", "etc-", "", 1).unwrap(), ["/etc-e.conf"]);
        // What is below other folders is not looked at.
        let files = Files::new(&tree, "/", &read);
        files.matching("/etc", "", ".conf", 1).unwrap();
        assert_eq!(files.names_left.get(), MAX_NAMES - 4);
    }

    #[test]
    fn files_are_read_until_the_budget_is_spent() {
        let tree = tree(&["a/b"]);
        let files = Files::new(&tree, "/", &read);
        files.names_left.set(5);
        files.bytes_left.set(15);
        let found = files.find("/a/b").unwrap().unwrap();
        assert_eq!(files.find("/a/b").unwrap_err(), Undecided);
        assert_eq!(files.read(found.content, 64).unwrap().len(), 8);
        assert_eq!(files.read(found.content, 64), Err(Undecided));
        assert_eq!(files.read(found.content, 7).unwrap().len(), 7);
    }
}
