//! Files of bounded size that hold text: the one place where this crate reads any.

use std::io::Read;
use std::path::Path;

use crate::policy_error::PolicyError;

/// Largest policy file, and largest file that a policy names, in bytes.
pub const MAX_POLICY_FILE: u64 = 256 * 1024;

/// Characters of a path that are shown; no file system has longer ones.
const MAX_SHOWN: usize = 4096;

/// Where the files are that a policy names: beside it, or nowhere if it is no file itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder<'a>(pub(crate) Option<&'a Path>);

impl Folder<'_> {
    /// Uses the text of a file that a policy names: a regular file, because whoever reads
    /// the policy would wait for a pipe or a terminal. What is wrong in it is said with the
    /// file's name.
    pub(crate) fn read<T>(
        self,
        file: &Path,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, PolicyError> {
        let folder = self.0.ok_or_else(|| {
            PolicyError::Text(format!(
                "{}: a policy that is not a file itself cannot name one: write its content",
                shown(file)
            ))
        })?;
        let file = folder.join(file);
        if std::fs::metadata(&file).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(PolicyError::File {
                file: shown(&file),
                reason: "it is not a regular file".to_owned(),
            });
        }
        read_as(&file, parse)
    }
}

/// Uses the text of a file. What is wrong in it is said with the file's name.
pub(crate) fn read_as<T>(
    file: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, PolicyError> {
    parse(&read_text(file)?).map_err(|reason| PolicyError::File {
        file: shown(file),
        reason,
    })
}

/// A path for people: the policy that names it may be a stranger's.
fn shown(path: &Path) -> String {
    plain_text::plain_start(&path.display().to_string(), MAX_SHOWN)
}

pub(crate) fn read_text(path: &Path) -> Result<String, PolicyError> {
    let failed = |reason: String| PolicyError::File {
        file: shown(path),
        reason,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_POLICY_FILE + 1).read_to_string(&mut text))
        .map_err(|error| failed(format!("it cannot be read: {error}")))?;
    if text.len() as u64 > MAX_POLICY_FILE {
        return Err(failed(format!(
            "it has more than {MAX_POLICY_FILE} bytes: is this the right file?"
        )));
    }
    Ok(text)
}
