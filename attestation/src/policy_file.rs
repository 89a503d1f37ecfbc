//! Policies and measurements in files: the one place where this crate reads any.

use std::io::Read;
use std::path::Path;

use measurements::Measurements;

use crate::demand::PolicyError;
use crate::policy::Policy;
use crate::policy_text::{from_json, from_toml, one_line};

/// Largest policy file and largest measurements file, in bytes.
pub const MAX_POLICY_FILE: u64 = 256 * 1024;

impl Policy {
    /// The policy in a file, JSON if its name ends in `.json`, TOML otherwise.
    /// Files that it names are looked for beside it. Every file has at most
    /// [`MAX_POLICY_FILE`] bytes.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let in_file = |error: PolicyError| match error {
            PolicyError::File { .. } => error,
            error => PolicyError::File {
                file: path.display().to_string(),
                reason: error.to_string(),
            },
        };
        let text = read_text(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            from_json(&text)
        } else {
            from_toml(&text)
        };
        file.and_then(|file| file.build(Some(&|file| read_measurements(&folder.join(file)))))
            .map_err(in_file)
    }
}

/// The measurements in a file that image-builder or nitro-cli wrote, of at most
/// [`MAX_POLICY_FILE`] bytes.
pub fn read_measurements(path: &Path) -> Result<Measurements, PolicyError> {
    serde_json::from_str(&read_text(path)?).map_err(|error| PolicyError::File {
        file: path.display().to_string(),
        reason: format!(
            "{}: give the JSON that image-builder or nitro-cli wrote",
            one_line(&error.to_string())
        ),
    })
}

fn read_text(path: &Path) -> Result<String, PolicyError> {
    let failed = |reason: String| PolicyError::File {
        file: path.display().to_string(),
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
