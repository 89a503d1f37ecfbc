//! Running a command beside the workload, in its container: as its user, confined as it is.
//!
//! A fork of the init must never be in the workload's PID namespace while the workload runs
//! there: a workload that is root could stop and read it, and with it the init's memory,
//! before it has executed anything. So the init executes its own program anew, outside, with
//! nothing but an errand: the command, and what the workload's processes are. That process
//! enters the workload's namespaces and gives up its privileges, and only then forks into
//! the PID namespace. Whatever reads the child's memory finds what the workload knows.
//!
//! The namespaces are those that the main process is in at the time, as with `docker exec`.
//! None but its own user namespaces could be others than the init has made, and in these the
//! command has no more than the workload has itself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use manifest::{Confinement as Settings, Groups, User, Workload};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, pipe2, setsid};
use serde::{Deserialize, Serialize};

use super::standing::{Standing, close_others};
use super::{Confinement, Side};
use crate::args::COMPANION;
use crate::error::{Doing, InitError};

/// What is entered, beside the control group's and under `sim` the user's: a namespace that
/// is the init's own may be among them.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNET);
/// The largest errand, in bytes: more than the measured configuration and every secret that
/// is a variable come to.
const MAX_ERRAND: u64 = 16 * 1024 * 1024;
/// Exit codes for a command that did not come to run, as Docker's and shells' are.
const EXIT_NOT_ENTERED: u8 = 125;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// What the exit code of a command that a signal has ended begins at.
const EXIT_SIGNAL: i32 = 128;

/// What is to be run beside the workload.
pub(crate) struct Errand<'a> {
    pub(crate) command: &'a [String],
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) settings: &'a Settings,
    /// What it is run beside.
    pub(crate) beside: &'a Workload,
    /// The workload's main process.
    pub(crate) workload: BorrowedFd<'a>,
}

/// The errand as it travels, before its variables.
#[derive(Serialize, Deserialize)]
struct Order {
    command: Vec<String>,
    working_directory: String,
    user: User,
    groups: Groups,
    settings: Settings,
    has_user_namespace: bool,
    has_one_user: bool,
    /// Descriptors that are inherited for it.
    workload: RawFd,
    group: Option<RawFd>,
}

impl Confinement {
    /// Has the errand run. What the command writes comes through the descriptor.
    pub(crate) fn send(
        &self,
        side: Side,
        errand: &Errand<'_>,
    ) -> Result<(Pid, OwnedFd), InitError> {
        let group = match self.cgroup() {
            Some(cgroup) => Some(cgroup.side(side)?),
            None => None,
        };
        let workload = errand.beside;
        let order = Order {
            command: errand.command.to_vec(),
            working_directory: workload.working_directory.as_str().to_owned(),
            user: workload.user,
            groups: workload.groups.clone(),
            settings: errand.settings.clone(),
            has_user_namespace: self.has_user_namespace(),
            has_one_user: self.has_one_user,
            workload: errand.workload.as_raw_fd(),
            group: group.as_ref().map(AsRawFd::as_raw_fd),
        };
        let sending = || "starting a command beside the workload".to_owned();
        let input = written(&order, &errand.variables).doing(sending)?;
        let (output, writing) = pipe2(OFlag::O_CLOEXEC).doing(sending)?;
        let mut command = self.processes.own_program(COMPANION);
        command
            .stdin(input)
            .stdout(writing.try_clone().doing(sending)?)
            .stderr(writing);
        let inherited = [Some(order.workload), order.group];
        // SAFETY: between fork and exec only system calls are made, on descriptors that stay
        // open until the process has been started: both are borrowed here.
        unsafe {
            command.pre_exec(move || {
                close_others()?;
                for descriptor in inherited.into_iter().flatten() {
                    let descriptor = BorrowedFd::borrow_raw(descriptor);
                    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                Ok(())
            });
        }
        let child = command.spawn().doing(sending)?;
        Ok((Pid::from_raw(child.id().cast_signed()), output))
    }
}

/// A file in memory, and not a pipe, which would have to be read while it is written.
fn written(order: &Order, variables: &[(OsString, OsString)]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"errand", MFdFlags::MFD_CLOEXEC)?);
    let mut bytes = serde_json::to_vec(order)?;
    for (name, value) in variables {
        // Neither has a zero byte, and JSON has none.
        bytes.push(0);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
    }
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(file)
}

fn read(input: impl Read) -> io::Result<(Order, Vec<(OsString, OsString)>)> {
    let mut bytes = Vec::new();
    input.take(MAX_ERRAND).read_to_end(&mut bytes)?;
    let mut parts = bytes.split(|byte| *byte == 0);
    let order = serde_json::from_slice(parts.next().unwrap_or_default())?;
    let variables = parts.map(|part| {
        let end = part.iter().position(|byte| *byte == b'=');
        let (name, value) = part.split_at(end.unwrap_or(part.len()));
        let value = value.strip_prefix(b"=").unwrap_or(value);
        (
            OsStr::from_bytes(name).to_owned(),
            OsStr::from_bytes(value).to_owned(),
        )
    });
    Ok((order, variables.collect()))
}

/// Is the process that the init sends: runs the errand on its input, and ends as the command
/// does.
pub(crate) fn accompany() -> ExitCode {
    let _ = prctl::set_dumpable(false);
    let _ = prctl::set_name(c"companion");
    run().unwrap_or_else(|(code, error)| {
        // Whoever reads it may have gone.
        let _ = writeln!(io::stderr(), "{error}");
        code.into()
    })
}

fn run() -> Result<ExitCode, (u8, String)> {
    let failed =
        |what: &'static str| move |error: io::Error| (EXIT_NOT_ENTERED, format!("{what}: {error}"));
    // The init's: what is there in the workload's view may be something else.
    let null = File::open("/dev/null").map_err(failed("opening /dev/null"))?;
    let (order, variables) = read(io::stdin()).map_err(failed("reading the errand"))?;
    let standing = Standing::new(
        &order.settings,
        &order.working_directory,
        order.user,
        &order.groups,
        order.has_one_user,
    )
    .map_err(|error| (EXIT_NOT_ENTERED, error.to_string()))?;
    // SAFETY: the init leaves these descriptors open for this process, which owns them.
    let owned = |descriptor: RawFd| unsafe { OwnedFd::from_raw_fd(descriptor) };
    let workload = owned(order.workload);
    enter(&order, &workload, order.group.map(owned).as_ref())
        .map_err(failed("entering the workload's namespaces"))?;
    drop(workload);
    standing
        .enter_working_directory()
        .map_err(failed("entering the working directory"))?;
    standing
        .become_user()
        .and_then(|()| standing.give_up_capabilities())
        // Another user's process can be looked into again.
        .and_then(|()| Ok(prctl::set_dumpable(false)?))
        .and_then(|()| standing.install_filter())
        .map_err(failed("giving up privileges"))?;
    let program = order.command.first().map_or("", String::as_str);
    let mut command = Command::new(program);
    command
        .args(order.command.iter().skip(1))
        .env_clear()
        .envs(variables)
        .stdin(null);
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            // It ends with this process. Where there is a control group the init kills all
            // that the command has started.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            close_others()
        });
    }
    let status = command.status().map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => EXIT_NOT_FOUND,
            _ => EXIT_NOT_EXECUTABLE,
        };
        (code, format!("{program}: {error}"))
    })?;
    let signal = || EXIT_SIGNAL + status.signal().unwrap_or_default();
    let code = status.code().unwrap_or_else(signal);
    Ok(u8::try_from(code).unwrap_or(u8::MAX).into())
}

/// The control group first: from then on memory counts there.
fn enter(order: &Order, workload: &OwnedFd, group: Option<&OwnedFd>) -> io::Result<()> {
    let mut namespaces = NAMESPACES;
    if let Some(group) = group {
        nix::unistd::write(group, b"0")?;
        namespaces |= CloneFlags::CLONE_NEWCGROUP;
    }
    setns(workload, namespaces)?;
    if order.has_user_namespace {
        // Last: what this process may do elsewhere ends with it.
        setns(workload, CloneFlags::CLONE_NEWUSER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companion_is_told_every_byte_of_its_errand() {
        let settings = serde_json::from_str("{\"profile\": \"container\"}").unwrap();
        let order = Order {
            command: vec!["/check".to_owned(), "a b\n\u{e4}".to_owned()],
            working_directory: "/srv".to_owned(),
            user: User { uid: 7, gid: 8 },
            groups: Groups::default(),
            settings,
            has_user_namespace: true,
            has_one_user: true,
            workload: 3,
            group: Some(4),
        };
        let variable =
            |name: &str, value: &[u8]| (OsString::from(name), OsStr::from_bytes(value).to_owned());
        let variables = [
            variable("A", b""),
            variable("B", b"x=y"),
            variable("C", b"\xff\n "),
        ];
        let (read_order, read_variables) = read(written(&order, &variables).unwrap()).unwrap();
        let json = |order: &Order| serde_json::to_value(order).unwrap();
        assert_eq!(json(&read_order), json(&order));
        assert_eq!(read_variables, variables);
        assert!(read(io::empty()).is_err());
    }
}
