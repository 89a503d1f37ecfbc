//! What an enclave left behind: nothing, it is hoped.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The processes that have a path below `folder` on their command line, and the
/// files in `emptied`, each described in a few words.
///
/// The enclave's init has such paths on its command line, and everything else
/// in the enclave lives in a PID namespace that the kernel ends with it.
pub fn find(folder: &Path, emptied: &[&Path]) -> Vec<String> {
    let mut found = Vec::new();
    let marker = folder.as_os_str().as_bytes();
    let own = std::process::id().to_string();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let number = name
            .to_str()
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own);
        // A process that ends meanwhile has no command line.
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if let Some(number) = number
            && command.windows(marker.len()).any(|window| window == marker)
        {
            found.push(format!(
                "process {number} ({})",
                String::from_utf8_lossy(&command).replace('\0', " ").trim()
            ));
        }
    }
    for folder in emptied {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn finds_a_process_and_a_file_and_nothing_once_they_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("socket");
        fs::write(&file, "up").unwrap();
        let mut process = Command::new("cat")
            .arg(&file)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its command line is there once it has written something.
        let mut up = [0; 2];
        let stdout = process.stdout.as_mut().unwrap();
        stdout.read_exact(&mut up).unwrap();
        let found = find(folder.path(), &[folder.path()]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with(&format!("process {}", process.id())));
        assert_eq!(found[1], file.display().to_string());

        process.kill().unwrap();
        process.wait().unwrap();
        fs::remove_file(file).unwrap();
        assert_eq!(find(folder.path(), &[folder.path()]), Vec::<String>::new());
    }
}
