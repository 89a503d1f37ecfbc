//! The users of a simulated enclave: a user namespace, and who of this host its ids are.
//!
//! A namespace's ids are mapped by a process outside of it, once. So a process of its own
//! holds the namespace until it is mapped, and then this one enters it; if the mapping is
//! refused, another namespace gets the caller's id alone.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid, setgroups};

use super::super::HypervisorError;
use super::subordinate::{ENOUGH, Owner, Range, Unmapped};
use crate::guard::SELF;
use crate::ramdisk::Owners;

/// How long a program that maps ids may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(1);
/// Longest answer of the process that holds a namespace, in bytes.
const MAX_ANSWER: u64 = 1024;

/// The programs that map an ordinary user's ids (newuidmap(1)), where they are installed.
#[derive(Debug)]
pub(super) struct Mappers<'a> {
    pub(super) users: Option<&'a Path>,
    pub(super) groups: Option<&'a Path>,
}

/// Enters a new user namespace, with all of the image's users if that is possible. Gives
/// whom its files can belong to, and what there is to say if that is the caller alone.
pub(super) fn enter(mappers: &Mappers<'_>) -> Result<(Owners, Option<String>), HypervisorError> {
    let namespace = Namespace::make()?;
    let mapped = if geteuid().is_root() {
        namespace.map_to_themselves()
    } else {
        namespace.map_to_subordinates(mappers)
    };
    match mapped {
        Ok(()) => {
            namespace.enter()?;
            // The caller's, which no file of the image means.
            setgroups(&[]).map_err(denied("the caller's groups cannot be left"))?;
            Ok((Owners::Image, None))
        }
        Err(reason) => {
            let namespace = Namespace::make()?;
            namespace.map_to_one()?;
            namespace.enter()?;
            let notice = format!(
                "all users of the image are one user, who owns every file: {reason} (docs/sim-and-qemu.md, Users)"
            );
            Ok((Owners::Caller, Some(notice)))
        }
    }
}

/// Holds a new user namespace until standard input ends: the hidden command `sim-users`.
/// Says on standard output what went wrong, or nothing.
pub fn hold() -> io::Result<()> {
    let wrong = match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    let mut stdout = io::stdout();
    writeln!(stdout, "{wrong}")?;
    stdout.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// A user namespace that a process holds.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn make() -> Result<Self, HypervisorError> {
        let made = || -> io::Result<(Self, String)> {
            let mut holder = Command::new(SELF)
                .arg0("parent-agent")
                .arg("sim-users")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let answer = holder.stdout.take();
            let namespace = Self { holder };
            let mut wrong = String::new();
            let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
            BufReader::new(answer.take(MAX_ANSWER)).read_line(&mut wrong)?;
            Ok((namespace, wrong))
        };
        let what = "this user may not make user namespaces";
        match made() {
            Ok((namespace, wrong)) if wrong == "\n" => Ok(namespace),
            Ok((_, wrong)) => Err(HypervisorError::Namespaces {
                what,
                source: io::Error::other(wrong.trim_end().to_owned()),
            }),
            Err(source) => Err(HypervisorError::Namespaces { what, source }),
        }
    }

    /// A file that the kernel has about it.
    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.holder.id()))
    }

    /// Every id is the same one outside.
    fn map_to_themselves(&self) -> Result<(), Unmapped> {
        for (own, name) in [
            ("/proc/self/uid_map", "uid_map"),
            ("/proc/self/gid_map", "gid_map"),
        ] {
            let text =
                fs::read_to_string(own).map_err(|source| Unmapped::Read { file: own, source })?;
            let map = to_themselves(&text).ok_or(Unmapped::FewIds { file: own })?;
            fs::write(self.file(name), map).map_err(|error| Unmapped::Refused {
                what: "the kernel refuses to map root's ids".to_owned(),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// 0 is the caller, and the others are the caller's subordinate ids.
    fn map_to_subordinates(&self, mappers: &Mappers<'_>) -> Result<(), Unmapped> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let owner = Owner::read(uid)?;
        let mappings = [
            (mappers.users, "newuidmap", uid, owner.range("/etc/subuid")),
            (mappers.groups, "newgidmap", gid, owner.range("/etc/subgid")),
        ];
        // Nothing is mapped before everything is known to be there.
        let mut commands = Vec::new();
        for (program, name, own, range) in mappings {
            let program = program.ok_or(Unmapped::Missing(name))?;
            let mut command = Command::new(program);
            command.args(mapping(self.holder.id(), own, range?));
            commands.push((name, command));
        }
        for (name, command) in commands {
            run(command).map_err(|reason| Unmapped::Refused {
                what: format!("`{name}` failed"),
                reason,
            })?;
        }
        Ok(())
    }

    /// 0 is the caller, and there is no other id.
    fn map_to_one(&self) -> Result<(), HypervisorError> {
        for (name, contents) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {} 1", geteuid())),
            ("gid_map", format!("0 {} 1", getegid())),
        ] {
            fs::write(self.file(name), contents).map_err(|source| HypervisorError::Namespaces {
                what: "this user's id cannot be mapped",
                source,
            })?;
        }
        Ok(())
    }

    /// Makes it this process's.
    fn enter(self) -> Result<(), HypervisorError> {
        let what = "the user namespace cannot be entered";
        let namespace = File::open(self.file("ns/user"))
            .map_err(|source| HypervisorError::Namespaces { what, source })?;
        setns(namespace, CloneFlags::CLONE_NEWUSER).map_err(denied(what))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It does nothing that could be lost.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn denied(what: &'static str) -> impl FnOnce(nix::Error) -> HypervisorError {
    move |error| HypervisorError::Namespaces {
        what,
        source: error.into(),
    }
}

/// The map that gives every id of this one (`user_namespaces(7)`) to itself; none if it has
/// fewer than images need. Those may be several ranges: root of a rootless container is
/// its user, and the others are subordinate ids.
fn to_themselves(map: &str) -> Option<String> {
    let mut ranges = Vec::new();
    for line in map.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (start, count) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
        ranges.push(Range { start, count });
    }
    ranges.sort_unstable_by_key(|range| range.start);
    let mut consecutive = 0;
    for range in &ranges {
        if range.start == consecutive {
            consecutive = consecutive.checked_add(range.count)?;
        }
    }
    let line = |Range { start, count }| format!("{start} {start} {count}\n");
    (consecutive >= ENOUGH).then(|| ranges.into_iter().map(line).collect())
}

/// The arguments that map 0 to `own` and the ids from 1 on to a range.
fn mapping(process: u32, own: u32, range: Range) -> Vec<String> {
    [process, 0, own, 1, 1, range.start, range.count]
        .map(|number| number.to_string())
        .to_vec()
}

/// Runs a program to its end, which must come in time. The error is what it says.
#[expect(
    clippy::disallowed_methods,
    reason = "this process has no runtime, and waits for nothing else"
)]
fn run(mut command: Command) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if start.elapsed() > TIMEOUT => {
                // It is killed for nothing else than being late.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it took longer than {} s", TIMEOUT.as_secs()));
            }
            None => thread::sleep(POLL),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Its words are only for people.
        let _ = stderr.take(MAX_ANSWER).read_to_string(&mut said);
    }
    let said = said.lines().next().unwrap_or_default().trim();
    Err(if said.is_empty() {
        status.to_string()
    } else {
        said.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_root_are_mapped_to_themselves() {
        let all = "         0          0 4294967295\n";
        assert_eq!(to_themselves(all).unwrap(), "0 0 4294967295\n");
        // Root of a container.
        let container = "0 100000 65536\n70000 400000 5\n";
        assert_eq!(
            to_themselves(container).unwrap(),
            "0 0 65536\n70000 70000 5\n"
        );
        // Root of a rootless container, whose ranges come in any order.
        let rootless = "0 0 1\n1 1 65535\n";
        for map in ["0 1000 1\n1 100000 65535\n", "1 100000 65535\n0 1000 1\n"] {
            assert_eq!(to_themselves(map).unwrap(), rootless, "{map:?}");
        }
        for few in [
            "0 1000 1\n",
            "0 1000 1\n1 100000 65534\n",
            "0 1000 1\n2 100000 65536\n",
            "1 1 65536\n",
            "0 0 -1\n",
            "",
        ] {
            assert_eq!(to_themselves(few), None, "{few:?}");
        }
    }

    #[test]
    fn users_of_anybody_else_are_mapped_to_the_range() {
        let range = Range {
            start: 100_000,
            count: 65_536,
        };
        let arguments = mapping(7, 1000, range).join(" ");
        assert_eq!(arguments, "7 0 1000 1 1 100000 65536");
    }

    #[test]
    fn users_mapper_that_fails_is_quoted() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            run(command)
        };
        assert_eq!(shell("true"), Ok(()));
        let refused = "newuidmap: uid range [1-65537) -> [100000-165536) not allowed";
        assert_eq!(
            shell(&format!("echo '{refused}' >&2; exit 1")),
            Err(refused.to_owned())
        );
        assert_eq!(shell("exit 3"), Err("exit status: 3".to_owned()));
        let absent = run(Command::new("/absent/newuidmap")).unwrap_err();
        assert!(absent.contains("No such file"), "{absent}");
    }
}
