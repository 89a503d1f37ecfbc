//! Where spools are when nobody says so.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use manifest::EnclaveName;
use nix::unistd::geteuid;

/// The spool's folder in an enclave's own.
const LOGS: &str = "logs";

/// What `--log-dir` is without it, for `--help`.
pub const LOG_DIR_HELP: &str = "The folder of this enclave's log spool [default: \
$XDG_STATE_HOME/enclaves/NAME/logs; for root /var/lib/enclaves/NAME/logs; otherwise \
~/.local/state/enclaves/NAME/logs]";

/// The folder that holds what enclaves leave behind: `$XDG_STATE_HOME/enclaves`;
/// for root without that, `/var/lib/enclaves`; for anybody else
/// `~/.local/state/enclaves`.
pub fn base() -> PathBuf {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return state.join("enclaves");
    }
    match absolute("HOME") {
        Some(home) if !geteuid().is_root() => home.join(".local/state/enclaves"),
        _ => PathBuf::from("/var/lib/enclaves"),
    }
}

/// The spool of the enclave `name` in `base`.
pub fn spool(base: &Path, name: &EnclaveName) -> PathBuf {
    base.join(name.as_str()).join(LOGS)
}

/// The enclaves in `base` that have a spool.
pub fn names(base: &Path) -> io::Result<Vec<EnclaveName>> {
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<EnclaveName> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|name| spool(base, name).is_dir())
        .collect();
    names.sort();
    Ok(names)
}
