//! What the workload's user may do with the image's files, as Linux decides it
//! (`generic_permission` in `fs/namei.c`).

use std::fmt;

use manifest::{Confinement, Groups, User};

use crate::node::{Kind, Metadata, Node};

const EXECUTE: u32 = 0o1;
/// Capabilities that pass over modes (`linux/capability.h`).
const DAC_OVERRIDE: u8 = 1;
const DAC_READ_SEARCH: u8 = 2;

/// The workload's credentials, as far as files are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    user: User,
    groups: &'a Groups,
    /// Any file that somebody may execute, and any folder.
    overrides: bool,
    /// Any folder.
    searches_all: bool,
}

impl<'a> Access<'a> {
    pub(crate) fn new(user: User, groups: &'a Groups, confinement: &Confinement) -> Self {
        let capabilities = confinement.capabilities_of(user.uid == 0);
        let has = |number| capabilities.iter().any(|own| own.number() == number);
        Self {
            user,
            groups,
            overrides: has(DAC_OVERRIDE),
            searches_all: has(DAC_OVERRIDE) || has(DAC_READ_SEARCH),
        }
    }

    /// Whether it may execute this, which has to be a file.
    pub(crate) fn executes(&self, node: &Node) -> bool {
        let Metadata { permissions, .. } = node.metadata;
        let is_file = matches!(node.kind, Kind::File { .. });
        let somebody_may = permissions & 0o111 != 0;
        is_file && somebody_may && (self.overrides || self.bits(node.metadata) & EXECUTE != 0)
    }

    /// Whether it may pass through a folder.
    pub(crate) fn searches(&self, folder: &Node) -> bool {
        self.searches_all || self.bits(folder.metadata) & EXECUTE != 0
    }

    /// The bits of the mode that are for this user: the first that fits counts, even where
    /// it allows less than those after it.
    fn bits(&self, metadata: Metadata) -> u32 {
        let Metadata {
            permissions,
            uid,
            gid,
        } = metadata;
        let shift = if uid == self.user.uid {
            6
        } else if gid == self.user.gid || self.groups.contains(&gid) {
            3
        } else {
            0
        };
        (permissions >> shift) & 0o7
    }
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.user)?;
        if !self.groups.is_empty() {
            let groups: Vec<_> = self.groups.iter().map(u32::to_string).collect();
            write!(f, " (groups {})", groups.join(", "))?;
        }
        if self.user.uid == 0 && !self.overrides {
            write!(f, ", who is root without root's capabilities,")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Content;

    fn node(kind: Kind, permissions: u32, uid: u32, gid: u32) -> Node {
        Node {
            kind,
            metadata: Metadata {
                permissions,
                uid,
                gid,
            },
        }
    }

    fn file(permissions: u32, uid: u32, gid: u32) -> Node {
        let content = Content { offset: 0, size: 0 };
        node(Kind::File { content, inode: 0 }, permissions, uid, gid)
    }

    #[test]
    fn access_is_that_of_the_first_class_that_fits() {
        let groups = Groups::try_from(vec![101]).unwrap();
        let user = User { uid: 5, gid: 7 };
        let access = Access::new(user, &groups, &Confinement::default());
        for (permissions, uid, gid, may) in [
            (0o100, 5, 0, true),
            (0o011, 5, 7, false),
            (0o010, 0, 7, true),
            (0o010, 0, 101, true),
            (0o101, 0, 101, false),
            (0o001, 0, 0, true),
            (0o110, 0, 0, false),
        ] {
            let executes = access.executes(&file(permissions, uid, gid));
            assert_eq!(executes, may, "{permissions:o} {uid}:{gid}");
            let folder = node(Kind::Directory, permissions, uid, gid);
            assert_eq!(access.searches(&folder), may);
            assert!(!access.executes(&folder));
        }
    }

    #[test]
    fn access_of_root_depends_on_its_capabilities() {
        let root = User { uid: 0, gid: 0 };
        let groups = Groups::default();
        let theirs = file(0o700, 5, 5);
        let folder = node(Kind::Directory, 0o700, 5, 5);
        for (confinement, executes, searches) in [
            ("{}", false, false),
            (r#"{"profile": "container"}"#, true, true),
            (r#"{"capabilities": ["DAC_READ_SEARCH"]}"#, false, true),
            (r#"{"capabilities": ["DAC_OVERRIDE"]}"#, true, true),
        ] {
            let confinement = serde_json::from_str(confinement).unwrap();
            let access = Access::new(root, &groups, &confinement);
            assert_eq!(access.executes(&theirs), executes, "{confinement:?}");
            assert_eq!(access.searches(&folder), searches, "{confinement:?}");
            assert!(!access.executes(&file(0o644, 0, 0)), "nobody may");
        }
    }
}
