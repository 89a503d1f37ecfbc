//! The groups that a process is in beside its primary one.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most supplementary groups: more than any image's user is in, and few enough for the
/// measured configuration. Linux has room for 65,536 (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 1024;

/// A user is in more groups than a workload can be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the user is in {0} groups, and a workload can be in {MAX_GROUPS} at most: name the group that it needs, as in `app:staff`"
)]
pub struct GroupsError(usize);

/// Supplementary groups: in ascending order, none twice, at most 1024.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>")]
pub struct Groups(Vec<u32>);

impl TryFrom<Vec<u32>> for Groups {
    type Error = GroupsError;

    fn try_from(mut groups: Vec<u32>) -> Result<Self, GroupsError> {
        groups.sort_unstable();
        groups.dedup();
        if groups.len() > MAX_GROUPS {
            return Err(GroupsError(groups.len()));
        }
        Ok(Self(groups))
    }
}

impl Deref for Groups {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_sorted_each_once_and_not_too_many() {
        let groups: Groups = serde_json::from_str("[50, 7, 50]").unwrap();
        assert_eq!(*groups, [7, 50]);
        assert_eq!(serde_json::to_string(&groups).unwrap(), "[7,50]");
        let count = u32::try_from(MAX_GROUPS).unwrap();
        assert!(Groups::try_from((0..count).collect::<Vec<_>>()).is_ok());
        let error = Groups::try_from((0..=count).collect::<Vec<_>>()).unwrap_err();
        assert_eq!(error, GroupsError(MAX_GROUPS + 1));
    }
}
