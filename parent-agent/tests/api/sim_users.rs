//! Whom a simulated enclave's files and processes belong to, as its init sees it. Where
//! the caller is not root, it becomes root of its subordinate ids for what needs more
//! than one user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use command_output::errln;
use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::process::Command;

use crate::agent::{Agent, command};
use crate::image::{Builder, Owned};

/// Says what it finds, then waits.
const INIT: &str = "#!/bin/sh
cd \"$3\"
echo \"users ${11}\"
echo \"id $(id -u):$(id -g)\"
stat -c '%n %u:%g %a %F %Y' theirs theirs/program theirs/pipe
chown 7:8 init 2>/dev/null && stat -c 'given %u:%g' init
echo \"tree $(stat -f -c '%T %b %c' .)\"
mkfifo \"$5/end.tmp\"
mv \"$5/end.tmp\" \"$5/end\"
read code < \"$5/end\"
exit \"$code\"
";
/// A command as root of a namespace that has as few ids as a container's.
const IN_A_CONTAINER: &str = r#"
mkfifo "$GO"
unshare --user sh -c 'read go < "$GO"; exec "$@"' sh "$@" &
until echo "0 0 65536" > "/proc/$!/uid_map"; do sleep 0.01; done 2> /dev/null
echo "0 0 65536" > "/proc/$!/gid_map"
echo go > "$GO"
wait $!
"#;
/// The user that root becomes.
const USER: u32 = 4242;

fn image() -> Builder {
    let owned = |name, kind, permissions| Owned {
        name,
        kind,
        permissions,
        uid: 33,
        gid: 65_534,
    };
    Builder::new(&[], &[]).init(Some(INIT)).owned(vec![
        owned("theirs", eif::cpio::Kind::Directory, 0o2750),
        owned("theirs/program", eif::cpio::Kind::File, 0o4711),
        owned("theirs/pipe", eif::cpio::Kind::Fifo, 0o620),
    ])
}

/// How the caller, if it is not root, gets a command to be root of its subordinate ids.
const AS_ROOT: [&str; 3] = ["unshare", "--map-root-user", "--map-auto"];

/// Whether the caller can be more than one user. What needs that is not tested without.
async fn has_users() -> bool {
    if geteuid().is_root() {
        return true;
    }
    let status = Command::new(AS_ROOT[0])
        .args(&AS_ROOT[1..])
        .arg("true")
        .status();
    let has_users = status.await.is_ok_and(|status| status.success());
    if !has_users {
        errln!(
            "not tested: install `uidmap`, and give this user ids in /etc/subuid and /etc/subgid"
        );
    }
    has_users
}

/// The agent, by a command that executes what follows it, if any.
fn run_by(command: &[&str], folder: &TempDir) -> Command {
    let agent = env!("CARGO_BIN_EXE_parent-agent");
    let mut words = command.iter().copied().chain([agent, "run", "--state-dir"]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .arg(folder.path().join("s"))
        .env("GO", folder.path().join("go"))
        .env("TMPDIR", folder.path())
        .env("XDG_STATE_HOME", folder.path().join("logs"))
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    command
}

/// What the init has said, up to the file system of its tree.
async fn said(agent: &mut Agent) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let event = agent.event("console").await;
        let line = event["text"].as_str().unwrap().to_owned();
        lines.push(line);
        if lines.last().unwrap().starts_with("tree ") {
            return lines;
        }
    }
}

/// Ends it, and gives what went to standard error.
async fn end(agent: Agent) -> String {
    agent.until_init_waits().await;
    agent.end_init(1).await;
    agent.ended().await.2
}

/// The file system's pages and inodes: of 64 MiB the kernel has a twelfth and 32 MiB.
const TREE: &str = "tree tmpfs 6827 1048576";
const OF_THE_IMAGE: [&str; 7] = [
    "users image",
    "id 0:0",
    "theirs 33:65534 2750 directory 0",
    "theirs/program 33:65534 4711 regular empty file 0",
    "theirs/pipe 33:65534 620 fifo 0",
    "given 7:8",
    TREE,
];
const OF_ONE: [&str; 6] = [
    "users one",
    "id 0:0",
    "theirs 0:0 750 directory 0",
    "theirs/program 0:0 711 regular empty file 0",
    "theirs/pipe 0:0 620 fifo 0",
    TREE,
];

/// The agent as another user, whose the folder is, with this search path and with these
/// files in place of others, which no other process sees.
fn as_user(folder: &TempDir, search_path: &str, replaced: &[(&str, &str)]) -> Command {
    let path = |name: &str| folder.path().join(name);
    let agent = path("parent-agent");
    fs::copy(env!("CARGO_BIN_EXE_parent-agent"), &agent).unwrap();
    let mut script = Vec::new();
    for (number, (file, text)) in replaced.iter().enumerate() {
        let ours = path(&format!("etc-{number}"));
        fs::write(&ours, text).unwrap();
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o644)).unwrap();
        script.push(format!(
            "mount --bind {} {file} || exit 9\n",
            ours.display()
        ));
    }
    script.push(
        "exec setpriv --reuid \"$USER_ID\" --regid \"$USER_ID\" --clear-groups \
         env \"PATH=$SEARCH_PATH\" \"$@\""
            .to_owned(),
    );
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(folder.path(), Some(USER), Some(USER)).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script.concat(), "sh"])
        .arg(agent)
        .arg("run")
        .arg("--state-dir")
        .arg(path("s"))
        .env("USER_ID", USER.to_string())
        .env("SEARCH_PATH", search_path)
        .env("TMPDIR", folder.path())
        .env("XDG_STATE_HOME", path("logs"))
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn sim_users_are_the_images_where_the_caller_is_root() {
    if !has_users().await {
        return;
    }
    let by: &[_] = if geteuid().is_root() { &[] } else { &AS_ROOT };
    let folder = tempfile::tempdir().unwrap();
    let command = run_by(by, &folder);
    let mut agent = Agent::spawn_command(folder, image(), command, &["--console"]);
    assert_eq!(said(&mut agent).await, OF_THE_IMAGE);
    let stderr = end(agent).await;
    assert!(!stderr.contains("one user"), "{stderr}");
}

#[tokio::test]
async fn sim_users_are_the_images_where_the_caller_has_subordinate_ids() {
    let needed = ["/usr/bin/newuidmap", "/etc/subuid", "/etc/subgid"];
    let is_installed = needed.iter().all(|file| Path::new(file).exists());
    if !has_users().await || !is_installed {
        return;
    }
    let passwd = format!("root:x:0:0::/:/bin/sh\nalice:x:{USER}:{USER}::/:/bin/sh\n");
    let ids = "alice:500000:65536\n";
    let folder = tempfile::tempdir().unwrap();
    let command = if geteuid().is_root() {
        let replaced = [
            ("/etc/passwd", &*passwd),
            ("/etc/subuid", ids),
            ("/etc/subgid", ids),
        ];
        as_user(&folder, "/usr/bin:/bin", &replaced)
    } else {
        run_by(&[], &folder)
    };
    let mut agent = Agent::spawn_command(folder, image(), command, &["--console"]);
    assert_eq!(said(&mut agent).await, OF_THE_IMAGE);
    let stderr = end(agent).await;
    assert!(!stderr.contains("one user"), "{stderr}");
}

#[tokio::test]
async fn sim_users_are_one_where_there_are_no_others_and_the_log_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    // There is no `newuidmap`, whatever this machine has.
    let command = if geteuid().is_root() {
        as_user(&folder, "/absent", &[])
    } else {
        let mut command = command(folder.path(), "run");
        command.env("PATH", "/absent");
        command
    };
    let mut agent = Agent::spawn_command(folder, image(), command, &["--console"]);
    assert_eq!(said(&mut agent).await, OF_ONE);
    let stderr = end(agent).await;
    let notices: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains("all users of the image are one user"))
        .collect();
    assert_eq!(notices.len(), 1, "{stderr}");
    assert!(notices[0].contains("apt install uidmap"), "{stderr}");
}

#[tokio::test]
async fn sim_users_beyond_the_mapped_ones_are_named() {
    if !has_users().await {
        return;
    }
    let image = Builder::new(&[], &[]).owned(vec![Owned {
        name: "far",
        kind: eif::cpio::Kind::File,
        permissions: 0o644,
        uid: 70_000,
        gid: 0,
    }]);
    let folder = tempfile::tempdir().unwrap();
    // The subordinate ids of one user are as few.
    let container = ["sh", "-c", IN_A_CONTAINER, "sh"];
    let by: &[_] = if geteuid().is_root() {
        &container
    } else {
        &AS_ROOT
    };
    let command = run_by(by, &folder);
    let agent = Agent::spawn_command(folder, image, command, &[]);
    let (code, error) = agent.failed().await;
    assert_eq!(code, 4, "{error}");
    for part in ["\"far\"", "user 70000", "/etc/subuid"] {
        assert!(error.contains(part), "{error}");
    }
}
