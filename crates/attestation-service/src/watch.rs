//! Files of a folder, and whether they have changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most files of a folder that are watched.
pub(crate) const MAX_FILES: usize = 4000;
/// Folders below the folder that are watched.
const MAX_DEPTH: usize = 3;
/// Looks in a row that may see a change before somebody is told: half a minute's.
const MAX_CHANGES: u32 = 15;

/// What tells that files have changed, without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<FileState>);

/// A file as it is found. A file that was written to has other times, one that was
/// renamed into its place another number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Of the files in a folder, and in folders below it. What cannot be read is
    /// absent.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut files = Vec::new();
        walk(folder, MAX_DEPTH, &mut files);
        files.sort();
        Self(files)
    }

    /// Whether there are more files than are looked at, so that a change could go unnoticed.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.len() > MAX_FILES
    }
}

/// Looks at the folder of policies, and when they are to be read.
pub(crate) struct Looks {
    /// When they were last read.
    taken: Fingerprint,
    /// At the last look.
    seen: Fingerprint,
    /// Whether they are to be read though they have not changed.
    demanded: bool,
    /// How many of the last looks saw a change.
    changes: u32,
}

impl Looks {
    /// Looks at a folder that was read when it was like this.
    pub(crate) fn new(taken: Fingerprint) -> Self {
        Self {
            seen: taken.clone(),
            taken,
            demanded: false,
            changes: 0,
        }
    }

    /// Somebody wants them read again.
    pub(crate) fn demand(&mut self) {
        self.demanded = true;
    }

    /// Whether they are to be read, as they are found now: if they have changed, and
    /// two looks see the same. A file that is being written to may be a policy that
    /// demands less.
    pub(crate) fn are_to_be_read(&mut self, found: &Fingerprint) -> bool {
        let settled = *found == self.seen;
        if settled {
            self.changes = 0;
        } else {
            self.seen = found.clone();
            self.changes = self.changes.saturating_add(1);
        }
        settled && (self.demanded || *found != self.taken)
    }

    /// Whether it is time to say that they are not read because something in the folder
    /// changes all the time.
    pub(crate) fn never_settle(&self) -> bool {
        self.changes > 0 && self.changes.is_multiple_of(MAX_CHANGES)
    }

    /// They have been read when the folder was like this, and are in force, or wrong.
    pub(crate) fn read(&mut self, taken: Fingerprint) {
        self.taken = taken;
        self.demanded = false;
    }
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<FileState>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        // Links are followed, so that one that is changed shows.
        let path = entry.path();
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if files.len() > MAX_FILES {
            return;
        }
        if metadata.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, files);
            }
        } else {
            files.push(FileState {
                path,
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.toml"), "a = 1\n").unwrap();
        folder
    }

    #[test]
    fn a_change_below_the_folder_shows() {
        let folder = folder();
        let images = folder.path().join("images");
        fs::create_dir(&images).unwrap();
        let before = Fingerprint::of(folder.path());
        assert_eq!(before, Fingerprint::of(folder.path()));
        fs::write(images.join("one.json"), "{}").unwrap();
        let after = Fingerprint::of(folder.path());
        assert_ne!(before, after);
        fs::write(images.join("one.json"), "{ }").unwrap();
        let larger = Fingerprint::of(folder.path());
        assert_ne!(after, larger);
        // Renamed into place, with the size and the time that the old one had.
        let one = images.join("one.json");
        let modified = fs::metadata(&one).unwrap().modified().unwrap();
        let new = folder.path().join("new");
        fs::write(&new, "{}\n").unwrap();
        fs::File::open(&new)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        fs::rename(&new, &one).unwrap();
        assert_ne!(larger, Fingerprint::of(folder.path()));
    }

    #[test]
    fn a_file_is_taken_when_two_looks_see_the_same() {
        let folder = folder();
        let look = || Fingerprint::of(folder.path());
        let write = |text: &str| fs::write(folder.path().join("a.toml"), text).unwrap();
        let mut looks = Looks::new(look());
        assert!(!looks.are_to_be_read(&look()));
        // Half of it may be a whole too, as of a policy that demands less.
        write("a = 1\nb = 2\n");
        assert!(!looks.are_to_be_read(&look()));
        write("a = 1\nb = 2\nc = 3\n");
        assert!(!looks.are_to_be_read(&look()));
        assert!(looks.are_to_be_read(&look()));
        // Until it has been read.
        assert!(looks.are_to_be_read(&look()));
        looks.read(look());
        assert!(!looks.are_to_be_read(&look()));

        looks.demand();
        assert!(looks.are_to_be_read(&look()));
        looks.read(look());
        write("a = 1\n");
        looks.demand();
        assert!(!looks.are_to_be_read(&look()));
        assert!(looks.are_to_be_read(&look()));
    }

    #[test]
    fn a_folder_in_which_something_changes_all_the_time_is_told_of() {
        let folder = folder();
        let look = || Fingerprint::of(folder.path());
        let mut looks = Looks::new(look());
        for number in 1..=2 * MAX_CHANGES {
            let log = "x".repeat(number.try_into().unwrap());
            fs::write(folder.path().join("log"), log).unwrap();
            assert!(!looks.are_to_be_read(&look()));
            assert_eq!(looks.never_settle(), number % MAX_CHANGES == 0, "{number}");
        }
        assert!(looks.are_to_be_read(&look()));
        assert!(!looks.never_settle());
    }
}
