//! The folder that Terraform works in: a copy of the stack, for this run alone.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use crate::Settings;
use crate::assignment::Assignment;
use crate::failure::Failure;
use crate::variables::{Backend, Variables};

/// The name of the backend's settings in the folder.
pub(super) const BACKEND: &str = "backend.tfbackend.json";
/// Where Terraform leaves a state that it could not write to the backend.
const RESCUED_STATE: &str = "errored.tfstate";

/// Most files of a stack, and most folders in each other.
const MAX_FILES: usize = 1000;
const MAX_DEPTH: usize = 8;

/// A private folder; it goes with this.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// Copies the stack, and writes its variables and its backend.
    pub(super) async fn create(
        assignment: &Assignment,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let stack = settings.stack.clone();
        let variables = json(&Variables::new(assignment))?;
        let backend = json(&Backend::new(assignment))?;
        let created = tokio::task::spawn_blocking(move || {
            let folder = tempfile::Builder::new()
                .prefix("terraform-")
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir()?;
            let mut files = 0;
            copy(&stack, folder.path(), 0, &mut files)?;
            fs::write(folder.path().join("terraform.tfvars.json"), variables)?;
            fs::write(folder.path().join(BACKEND), backend)?;
            Ok::<_, io::Error>(folder)
        })
        .await;
        match created {
            Ok(Ok(folder)) => Ok(Self { folder }),
            Ok(Err(error)) => Err(Failure::Host(format!(
                "the stack {} cannot be copied into a work folder: {error}; is STACK_DIR right, and is there space in TMPDIR?",
                settings.stack.display()
            ))),
            Err(error) => Err(Failure::Host(format!(
                "the work folder cannot be made: {error}"
            ))),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A state that Terraform could not write to the backend.
    pub(super) fn rescued_state(&self) -> Option<PathBuf> {
        let path = self.path().join(RESCUED_STATE);
        path.exists().then_some(path)
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| Failure::Host(format!("a file for Terraform cannot be written: {error}")))
}

/// Copies a stack's files; what Terraform itself left in the folder stays.
fn copy(from: &Path, to: &Path, depth: usize, files: &mut usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!(
            "more than {MAX_DEPTH} folders in each other"
        )));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = name.to_string_lossy();
        if own == ".terraform" || own.contains(".tfstate") || own.ends_with(".tftest.hcl") {
            continue;
        }
        *files += 1;
        if *files > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
        let target = to.join(&name);
        if fs::metadata(entry.path())?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target, depth + 1, files)?;
        } else {
            // Not fs::copy: a read-only original would make a read-only copy.
            fs::write(&target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_copied_without_what_terraform_left_in_it() {
        let stack = tempfile::tempdir().unwrap();
        let copied = tempfile::tempdir().unwrap();
        fs::create_dir_all(stack.path().join("templates")).unwrap();
        fs::create_dir_all(stack.path().join(".terraform/providers")).unwrap();
        for name in [
            "main.tf",
            "templates/user-data",
            "terraform.tfstate.backup",
            ".terraform.lock.hcl",
        ] {
            fs::write(stack.path().join(name), name).unwrap();
        }
        fs::set_permissions(
            stack.path().join("main.tf"),
            fs::Permissions::from_mode(0o400),
        )
        .unwrap();
        copy(stack.path(), copied.path(), 0, &mut 0).unwrap();
        for name in ["main.tf", "templates/user-data", ".terraform.lock.hcl"] {
            assert_eq!(fs::read_to_string(copied.path().join(name)).unwrap(), name);
        }
        assert!(!copied.path().join(".terraform").exists());
        assert!(!copied.path().join("terraform.tfstate.backup").exists());
        fs::write(copied.path().join("main.tf"), "writable").unwrap();
    }

    #[test]
    fn a_stack_that_contains_itself_is_refused() {
        let stack = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(stack.path(), stack.path().join("again")).unwrap();
        let copied = tempfile::tempdir().unwrap();
        assert!(copy(stack.path(), copied.path(), 0, &mut 0).is_err());
    }
}
