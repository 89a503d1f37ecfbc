//! An enclave's folder while it is somebody's.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::TREE_LINK;

/// Held by the guard, and by the agent that started it.
pub(super) const LOCK: &str = "lock";
/// Held by the agent.
pub(super) const AGENT_LOCK: &str = "agent.lock";

/// An enclave's folder while it is ours; dropping it removes the folder, unless
/// a guard has it.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    agent_lock: File,
    guard_lock: Option<File>,
    is_released: bool,
}

impl Claim {
    /// Takes the folder if it has no agent: empty if it has no guard either.
    pub(super) fn take(directory: &Path) -> io::Result<Option<Self>> {
        let Some(agent_lock) = lock(directory, AGENT_LOCK)? else {
            return Ok(None);
        };
        let guard_lock = lock(directory, LOCK)?;
        // A guard that was just ending may have removed the first lock's file.
        if !is_same_file(&directory.join(AGENT_LOCK), &agent_lock) {
            return Ok(None);
        }
        if guard_lock.is_some() {
            clear(directory)?;
        }
        Ok(Some(Self {
            directory: directory.to_owned(),
            agent_lock,
            guard_lock,
            is_released: false,
        }))
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The lock that is to be shared with a guard; none if there is one already.
    /// It is held as long as a copy of the descriptor is open anywhere.
    pub fn guard_lock(&self) -> Option<&File> {
        self.guard_lock.as_ref()
    }

    /// Whether the folder has a guard that this process has not started.
    pub fn is_guarded(&self) -> bool {
        self.guard_lock.is_none() && is_locked(&self.directory, LOCK)
    }

    /// Leaves the folder as it is.
    pub fn release(mut self) {
        self.is_released = true;
    }

    /// Removes the folder, unless a guard has it.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.is_released = true;
        self.remove_unguarded()
    }

    fn remove_unguarded(&self) -> io::Result<()> {
        if let Some(lock) = &self.guard_lock {
            return remove(&self.directory, lock);
        }
        // The guard may have removed it, and somebody made it anew.
        if !is_same_file(&self.directory.join(AGENT_LOCK), &self.agent_lock) {
            return Ok(());
        }
        match lock(&self.directory, LOCK)? {
            Some(lock) => remove(&self.directory, &lock),
            None => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        if let Err(error) = self.remove_unguarded() {
            tracing::error!(
                "cannot remove {}: {error}; the next `run` tries again",
                self.directory.display()
            );
        }
    }
}

/// Removes an enclave's folder and all that belongs to it, unless it has been
/// removed already: `lock` must be the lock that the caller holds.
pub fn remove(directory: &Path, lock: &File) -> io::Result<()> {
    if !is_same_file(&directory.join(LOCK), lock) {
        return Ok(());
    }
    clear(directory)?;
    for name in [AGENT_LOCK, LOCK] {
        ignore_absent(fs::remove_file(directory.join(name)))?;
    }
    match fs::remove_dir(directory) {
        // Somebody who waited for the lock has made its file anew.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => ignore_absent(other),
    }
}

/// Removes everything but the locks.
fn clear(directory: &Path) -> io::Result<()> {
    let link = directory.join(TREE_LINK);
    if let Ok(tree) = fs::read_link(&link) {
        remove_tree(&tree)?;
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == LOCK || entry.file_name() == AGENT_LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else {
            ignore_absent(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// Removes a folder with all its contents, also where a workload has taken
/// away its own permissions.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(path)?;
            ignore_absent(fs::remove_dir_all(path))
        }
        other => ignore_absent(other),
    }
}

fn open_folders(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Takes one of a folder's locks: `None` when somebody else has it, or has just
/// removed it.
fn lock(directory: &Path, name: &str) -> io::Result<Option<File>> {
    let path = directory.join(name);
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The file may have been removed between opening and locking it.
    Ok(is_same_file(&path, &file).then_some(file))
}

fn is_same_file(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(path), Ok(file)) => (path.dev(), path.ino()) == (file.dev(), file.ino()),
        _ => false,
    }
}

pub(super) fn is_locked(directory: &Path, name: &str) -> bool {
    File::open(directory.join(name))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
impl Claim {
    /// What a crash does: it runs no destructors, but closes descriptors.
    pub(super) fn crash(self) {
        self.agent_lock.unlock().unwrap();
        if let Some(lock) = &self.guard_lock {
            lock.unlock().unwrap();
        }
        std::mem::forget(self);
    }
}
