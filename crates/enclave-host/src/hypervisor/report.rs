//! What a process of the enclave's tells the agent, once: that it has done what it was
//! started for, or why not. It is a file, since what the process prints is the console.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{HypervisorError, LISTEN_POLL};
use crate::guard::{Guard, ProcessExit};

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It has.
    Done {
        /// What the user should know beside that.
        notice: Option<String>,
    },
    /// It has failed.
    Failed {
        reason: String,
        /// Whether another image would do.
        is_about_the_image: bool,
    },
}

impl Report {
    /// Whole or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, path)
    }

    /// None if there is none yet.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => {
                fs::remove_file(path)?;
                Ok(Some(serde_json::from_slice(&bytes)?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Waits for the report of the process with this name, however long it takes, and gives
/// its notice. Cancellation safe.
pub(super) async fn wait(
    name: &'static str,
    path: &Path,
    guard: &mut Guard,
) -> Result<Option<String>, HypervisorError> {
    let mut exit = None::<ProcessExit>;
    loop {
        match Report::take(path).map_err(HypervisorError::io(path))? {
            Some(Report::Done { notice }) => {
                // It has ended already: whoever follows the enclave is to see that.
                if let Some(exit) = exit {
                    guard.put_back(exit);
                }
                return Ok(notice);
            }
            Some(Report::Failed {
                reason,
                is_about_the_image,
            }) => {
                return Err(HypervisorError::Failed {
                    reason,
                    is_about_the_image,
                });
            }
            None => {}
        }
        // What it has reported before its end has been looked for.
        if let Some(exit) = exit {
            return Err(HypervisorError::Helper {
                name,
                reason: exit.to_string(),
            });
        }
        tokio::select! {
            ended = guard.exited() => exit = Some(ended?),
            () = sleep(LISTEN_POLL) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_whole_and_are_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree.json");
        assert!(Report::take(&path).unwrap().is_none());
        Report::Failed {
            reason: "so".to_owned(),
            is_about_the_image: true,
        }
        .write(&path)
        .unwrap();
        let taken = Report::take(&path).unwrap();
        assert!(matches!(
            taken,
            Some(Report::Failed { reason, is_about_the_image: true }) if reason == "so"
        ));
        assert!(Report::take(&path).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
