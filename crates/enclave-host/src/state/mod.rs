//! Where running enclaves keep their sockets, and how one knows who runs.
//!
//! Each enclave has a folder of its own, `STATE-DIR/NAME`, readable by nobody
//! else. Two files in it are held (flock) by those to whom the enclave belongs:
//!
//! | `agent.lock` | `lock` | |
//! |---|---|---|
//! | held | held | an agent serves the enclave, and the guard owns it |
//! | free | held | the guard keeps the enclave for the next agent, or is ending it |
//! | held | free | the guard was killed, and the agent cleans up |
//! | free | free | the folder belongs to nobody: the next `run` removes it |
//!
//! The agent that starts a guard shares `lock` with it; one that attaches later
//! holds `agent.lock` alone. A symbolic link `tree` leads to an unpacked image,
//! if there is one; it is removed with the folder.

mod args;
mod claim;
mod target;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifest::EnclaveName;
use nix::unistd::geteuid;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use claim::{AGENT_LOCK, LOCK, is_locked};

pub use args::StateArgs;
pub use claim::{Claim, remove};
pub use target::Target;

/// The local API's socket in an enclave's folder.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The guard's socket in an enclave's folder.
pub const GUARD_SOCKET: &str = "guard.sock";
/// The link to an unpacked image in an enclave's folder.
pub const TREE_LINK: &str = "tree";
/// The longest path of a Unix socket, in bytes: `sun_path` without its zero byte.
const MAX_SOCKET_PATH: usize = 107;
/// The longest path of a socket within an enclave's folder.
const LONGEST_SOCKET: &str = "/vsock/enclave_7001";
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;
/// How long a predecessor of the same name may take to be cleaned away.
pub const CLAIM_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait before another attempt.
pub const CLAIM_RETRY: Duration = Duration::from_millis(20);

/// Why an enclave's folder could not be had.
#[derive(Debug, Error)]
pub enum StateError {
    /// An enclave of this name is there already.
    #[error(
        "an enclave named `{name}` is running already: stop it with `parent-agent stop {0}`, or choose another --name", name = .0.name()
    )]
    Running(Target),
    /// Sockets could not be bound in the folder.
    #[error(
        "the state folder {} leaves no room for sockets, whose paths have at most {MAX_SOCKET_PATH} bytes: choose a shorter --state-dir", .0.display()
    )]
    PathTooLong(PathBuf),
    /// Somebody else could reach into the folder.
    #[error(
        "the state folder {} belongs to another user or is open to others: remove it, or choose another --state-dir", .0.display()
    )]
    NotPrivate(PathBuf),
    /// The file system refused.
    #[error("the state folder {} cannot be used: {source}; choose another --state-dir", path.display())]
    Io {
        /// What was tried on.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl StateError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// The folder that holds the folders of all enclaves.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The folder at `path`, or the default: `$XDG_RUNTIME_DIR/enclaves`; for
    /// root without that, `/run/enclaves`; for anybody else `/tmp/enclaves-UID`.
    pub fn new(path: Option<PathBuf>) -> Result<Self, StateError> {
        let Some(path) = path else {
            return Ok(Self(default_path()));
        };
        std::path::absolute(&path)
            .map(Self)
            .map_err(StateError::io(&path))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// How a command names the enclave `name`.
    pub fn target(&self, name: &EnclaveName) -> Target {
        Target {
            name: name.clone(),
            state_dir: (self.0 != default_path()).then(|| self.0.clone()),
        }
    }

    /// The folder of the enclave `name`.
    pub fn enclave(&self, name: &EnclaveName) -> PathBuf {
        self.0.join(name.as_str())
    }

    /// The names of the enclaves that run.
    pub fn running(&self) -> Result<Vec<EnclaveName>, StateError> {
        let mut names: Vec<_> = self
            .names()?
            .into_iter()
            .filter(|name| is_held(&self.enclave(name)))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Whether the enclave `name` runs, or is still being cleaned away.
    pub fn is_running(&self, name: &EnclaveName) -> bool {
        is_held(&self.enclave(name))
    }

    /// Whether the enclave `name` has an agent.
    pub fn has_agent(&self, name: &EnclaveName) -> bool {
        is_locked(&self.enclave(name), AGENT_LOCK)
    }

    /// Makes the folder of a new enclave, empty and locked, or takes the place
    /// of the agent of one that has none but a guard. Removes the folders that
    /// crashed processes have left.
    pub async fn claim(&self, name: &EnclaveName) -> Result<Claim, StateError> {
        let directory = self.enclave(name);
        if directory.as_os_str().len() + LONGEST_SOCKET.len() > MAX_SOCKET_PATH {
            return Err(StateError::PathTooLong(directory));
        }
        create_private(&self.0, true)?;
        if self.0 == shared_default() {
            check_private(&self.0)?;
        }
        self.sweep();
        let start = Instant::now();
        loop {
            create_private(&directory, false)?;
            match check_private(&directory) {
                Ok(()) => {}
                // Another `run` has taken it for a crashed one's.
                Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                Err(error) => return Err(error),
            }
            let claim = Claim::take(&directory).map_err(StateError::io(&directory))?;
            if let Some(claim) = claim {
                return Ok(claim);
            }
            // An agent that is ending answers no API.
            let answers = tokio::net::UnixStream::connect(directory.join(CONTROL_SOCKET))
                .await
                .is_ok();
            if answers || start.elapsed() > CLAIM_TIMEOUT {
                return Err(StateError::Running(self.target(name)));
            }
            sleep(CLAIM_RETRY).await;
        }
    }

    /// Removes the folders that belong to nobody.
    fn sweep(&self) {
        for name in self.names().unwrap_or_default() {
            let directory = self.enclave(&name);
            if check_private(&directory).is_err() {
                continue;
            }
            let removed = match Claim::take(&directory) {
                Ok(Some(claim)) if claim.guard_lock().is_some() => claim.remove(),
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            match removed {
                Ok(()) => tracing::info!(%name, "removed what a crashed agent left behind"),
                Err(error) => {
                    tracing::warn!(%name, %error, "cannot remove what a crashed agent left behind");
                }
            }
        }
    }

    fn names(&self) -> Result<Vec<EnclaveName>, StateError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StateError::io(&self.0)(source)),
        };
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect())
    }
}

fn is_held(directory: &Path) -> bool {
    is_locked(directory, LOCK) || is_locked(directory, AGENT_LOCK)
}

fn create_private(path: &Path, recursive: bool) -> Result<(), StateError> {
    match DirBuilder::new()
        .mode(0o700)
        .recursive(recursive)
        .create(path)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(StateError::io(path)),
    }
}

/// Refuses a folder that another user owns, or can enter.
pub fn check_private(path: &Path) -> Result<(), StateError> {
    let metadata = fs::symlink_metadata(path).map_err(StateError::io(path))?;
    let private =
        metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & OTHERS == 0;
    if private {
        Ok(())
    } else {
        Err(StateError::NotPrivate(path.to_owned()))
    }
}

fn default_path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() => runtime.join("enclaves"),
        _ if geteuid().is_root() => PathBuf::from("/run/enclaves"),
        _ => shared_default(),
    }
}

/// The one default that lies where others may write.
fn shared_default() -> PathBuf {
    PathBuf::from(format!("/tmp/enclaves-{}", geteuid()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(text: &str) -> EnclaveName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_claim_is_exclusive_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(base.path().join("state"))).unwrap();
        let claim = state.claim(&name("one")).await.unwrap();
        assert_eq!(state.running().unwrap(), [name("one")]);
        assert!(Claim::take(claim.directory()).unwrap().is_none());
        assert!(claim.guard_lock().is_some());
        let directory = claim.directory().to_owned();
        drop(claim);
        assert!(!directory.exists());
        assert!(state.running().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_guarded_folder_is_taken_over_by_one_and_left_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(base.path().to_owned())).unwrap();
        let first = state.claim(&name("one")).await.unwrap();
        let directory = first.directory().to_owned();
        fs::write(directory.join("file"), "x").unwrap();
        // The guard's copy.
        let guard = first.guard_lock().unwrap().try_clone().unwrap();
        assert!(state.has_agent(&name("one")));
        first.release();
        assert!(!state.has_agent(&name("one")));
        assert!(state.is_running(&name("one")));

        let second = state.claim(&name("one")).await.unwrap();
        assert!(second.is_guarded() && second.guard_lock().is_none());
        assert!(Claim::take(&directory).unwrap().is_none());
        drop(second);
        // Claims of other enclaves, which sweep, leave it alone too.
        state.claim(&name("other")).await.unwrap().release();
        assert!(directory.join("file").exists());

        let third = state.claim(&name("one")).await.unwrap();
        drop(guard);
        assert!(!third.is_guarded());
        drop(third);
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_successors_folder_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(base.path().to_owned())).unwrap();
        let old = state.claim(&name("one")).await.unwrap();
        fs::remove_dir_all(old.directory()).unwrap();
        let new = state.claim(&name("one")).await.unwrap();
        drop(old);
        assert!(new.directory().join(LOCK).exists());
    }

    #[tokio::test]
    async fn a_running_enclave_is_named_at_once() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(base.path().to_owned())).unwrap();
        let claim = state.claim(&name("one")).await.unwrap();
        let _api = std::os::unix::net::UnixListener::bind(claim.directory().join(CONTROL_SOCKET));
        let error = state.claim(&name("one")).await.unwrap_err();
        assert!(matches!(error, StateError::Running(_)), "{error}");
    }

    #[tokio::test]
    async fn what_a_crash_left_is_removed_with_its_tree() {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        fs::create_dir_all(tree.join("rootfs/closed")).unwrap();
        fs::write(tree.join("rootfs/closed/file"), "x").unwrap();
        fs::set_permissions(
            tree.join("rootfs/closed"),
            fs::Permissions::from_mode(0o000),
        )
        .unwrap();
        let state = StateDir::new(Some(base.path().join("state"))).unwrap();
        let claim = state.claim(&name("crashed")).await.unwrap();
        std::os::unix::fs::symlink(&tree, claim.directory().join(TREE_LINK)).unwrap();
        fs::create_dir(claim.directory().join("vsock")).unwrap();
        let crashed = claim.directory().to_owned();
        claim.crash();
        let other = state.claim(&name("other")).await.unwrap();
        assert!(!crashed.exists());
        assert!(!tree.exists());
        assert!(other.directory().exists());
    }

    #[tokio::test]
    async fn folders_of_others_and_long_paths_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(base.path().to_owned())).unwrap();
        fs::create_dir(base.path().join("open")).unwrap();
        fs::set_permissions(base.path().join("open"), fs::Permissions::from_mode(0o755)).unwrap();
        let error = state.claim(&name("open")).await.unwrap_err();
        assert!(matches!(error, StateError::NotPrivate(_)), "{error}");
        let long = StateDir::new(Some(base.path().join("x".repeat(80)))).unwrap();
        let error = long.claim(&name("one")).await.unwrap_err();
        assert!(matches!(error, StateError::PathTooLong(_)), "{error}");
    }
}
