//! How commands name an enclave.

use std::fmt;
use std::path::PathBuf;

use manifest::EnclaveName;

/// An enclave by the arguments that name it: its name, and the state folder where that
/// is not the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) name: EnclaveName,
    pub(super) state_dir: Option<PathBuf>,
}

impl Target {
    /// The enclave's name.
    pub fn name(&self) -> &EnclaveName {
        &self.name
    }
}

/// `--name NAME --state-dir DIR`, for a shell.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--name {}", self.name)?;
        let Some(state_dir) = &self.state_dir else {
            return Ok(());
        };
        let text = state_dir.display().to_string();
        let is_plain =
            |letter: char| letter.is_ascii_alphanumeric() || "/._-+,:=@%".contains(letter);
        if text.chars().all(is_plain) {
            write!(f, " --state-dir {text}")
        } else {
            // POSIX, Shell Command Language, section 2.2.2.
            write!(f, " --state-dir '{}'", text.replace('\'', r"'\''"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StateDir, default_path};
    use super::*;

    #[test]
    fn target_has_the_state_folder_where_it_is_not_the_default() {
        let shown = |folder: Option<&str>| {
            let state = StateDir::new(folder.map(PathBuf::from)).unwrap();
            state.target(&"one".parse().unwrap()).to_string()
        };
        assert_eq!(shown(None), "--name one");
        assert_eq!(shown(default_path().to_str()), "--name one");
        assert_eq!(shown(Some("/a/b.c")), "--name one --state-dir /a/b.c");
        assert_eq!(shown(Some("/a b'c")), r"--name one --state-dir '/a b'\''c'");
    }
}
