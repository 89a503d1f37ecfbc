//! The processes below this one.

use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(2);

/// Kills every process below this one and reaps it. This process must be a
/// child subreaper: then children of children become its own as their parents
/// die, and none escapes.
pub(super) async fn kill_all(limit: Duration) -> io::Result<()> {
    let start = Instant::now();
    loop {
        let children = children()?;
        if children.is_empty() {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(io::Error::other(format!(
                "processes {children:?} do not end; kill them by hand"
            )));
        }
        for &child in &children {
            // It may have been reaped since; its number cannot have been given
            // to another, because only this process reaps its children.
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        while reap_one() {}
        sleep(POLL).await;
    }
}

/// Reaps a child that has ended; `false` if there is none.
fn reap_one() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => return status.pid().is_some(),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// The numbers of this process's children.
fn children() -> io::Result<Vec<i32>> {
    let own = std::process::id();
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // A process may end while the list is read.
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if parent(&stat) == Some(own) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// The parent's number in a `/proc/PID/stat`: the second field behind the
/// program's name, which stands in parentheses and may contain any.
fn parent(stat: &[u8]) -> Option<u32> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent(b"7 (sh) S 42 7 7 0 -1"), Some(42));
        assert_eq!(parent(b"7 (a) R 1 (x) Z) S 42 7 7 0 -1"), Some(42));
        assert_eq!(parent(b"7 (sh"), None);
        assert_eq!(parent(b""), None);
    }

    #[test]
    fn children_are_listed() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(children().unwrap().contains(&child.id().cast_signed()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().unwrap().contains(&child.id().cast_signed()));
    }
}
