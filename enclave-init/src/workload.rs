//! Starting the workload, signalling it, and counting its restarts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use link::control::ExitStatus;
use link::logs::Source;
use manifest::{ChangeSignal, HealthProbe, MeasuredConfig, Workload};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, c_int};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use crate::confinement::{Confinement, Confinements, Step};
use crate::credentials::AwsCredentials;
use crate::error::{Doing, InitError};
use crate::machine::Expedited;
use crate::secrets::Secrets;

/// Where the workload finds the runtime configuration.
pub(crate) const RUNTIME_CONFIG_PATH: &str = "/run/enclave/runtime-config";

/// The ends of the pipes that a workload writes its output to.
pub(crate) type Pipes = Vec<(OwnedFd, Source)>;

/// What the environment has that is not known before the boot's end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given<'a> {
    /// The workload's AWS credentials, if it is to have any.
    pub(crate) credentials: Option<&'a AwsCredentials>,
    /// The image's secrets, if it declares any.
    pub(crate) secrets: Option<&'a Secrets>,
}

/// A workload's process.
pub(crate) struct Begun {
    pub(crate) pid: Pid,
    /// PID 1 of its namespace, if that is another process.
    pub(crate) namespace: Option<OwnedFd>,
    pub(crate) pipes: Pipes,
}

type Started = Result<Begun, InitError>;

/// A workload whose process takes on its confinement and then waits for the word to
/// execute the program. Most of a start is that, and need not wait for the boot's end.
pub(crate) struct StandingBy {
    /// Its place in the image's list.
    index: usize,
    process: Process,
    confinements: Arc<Confinements>,
    /// While the machine boots; none where it is not the init's own.
    expedited: Option<Expedited>,
}

enum Process {
    /// It is made on a thread of its own.
    Made {
        word: Word,
        started: mpsc::Receiver<Started>,
    },
    /// It cannot be made yet: its environment is not known before the agent has answered.
    Awaiting(Arc<MeasuredConfig>),
}

impl StandingBy {
    /// Has the process made, of a workload that waits for no other, if its environment is
    /// known.
    pub(crate) fn new(
        config: Arc<MeasuredConfig>,
        confinements: Arc<Confinements>,
        expedited: Option<Expedited>,
    ) -> Result<Self, InitError> {
        let mut workloads = config.workloads.iter();
        let index = workloads
            .position(|workload| workload.after.is_empty())
            .ok_or_else(|| InitError::Workload("every workload waits for another".to_owned()))?;
        if config.has_credentials() || !config.secrets.is_empty() {
            return Ok(Self {
                index,
                process: Process::Awaiting(config),
                confinements,
                expedited,
            });
        }
        let word = Word::new()?;
        let (awaited, of_thread) = (word.clone(), Arc::clone(&confinements));
        let (sender, started) = mpsc::channel();
        std::thread::Builder::new()
            .name("workload".to_owned())
            // Whoever gave up the boot does not want to know.
            .spawn(move || {
                let started = start_of(&config, index, &of_thread, awaited, Given::default());
                drop(sender.send(started));
            })
            .doing(|| "starting the workload's thread".to_owned())?;
        Ok(Self {
            index,
            process: Process::Made { word, started },
            confinements,
            expedited,
        })
    }

    /// What the processes of all workloads take on.
    pub(crate) fn confinements(&self) -> Arc<Confinements> {
        Arc::clone(&self.confinements)
    }

    /// The workload's place in the image's list.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Has it execute the program. Waits for that, as [`start`] does.
    pub(crate) fn go(self, given: Given<'_>) -> Started {
        let (word, started) = match self.process {
            Process::Made { word, started } => (word, started),
            Process::Awaiting(config) => {
                let word = Word::new()?;
                word.give()?;
                return start_of(&config, self.index, &self.confinements, word, given);
            }
        };
        word.give()?;
        let started = started.recv();
        drop(self.expedited);
        started
            .map_err(|_| InitError::Workload("the thread that starts it has ended".to_owned()))?
    }
}

/// Starts the workload at once.
pub(crate) fn start_now(
    config: &MeasuredConfig,
    workload: &Workload,
    confinement: &Arc<Confinement>,
    given: Given<'_>,
) -> Started {
    let word = Word::new()?;
    word.give()?;
    start(config, workload, confinement, word, given)
}

/// Starts the workload of this place.
fn start_of(
    config: &MeasuredConfig,
    index: usize,
    confinements: &Confinements,
    word: Word,
    given: Given<'_>,
) -> Started {
    match (config.workloads.get(index), confinements.of(index)) {
        (Some(workload), Some(confinement)) => start(config, workload, confinement, word, given),
        _ => Err(InitError::Workload("the image does not have it".to_owned())),
    }
}

/// The word that a process waits for: a byte through a pipe.
#[derive(Debug, Clone)]
struct Word {
    waiting: Arc<OwnedFd>,
    giving: Arc<OwnedFd>,
}

impl Word {
    fn new() -> Result<Self, InitError> {
        let (waiting, giving) = pipe2(OFlag::O_CLOEXEC)
            .doing(|| "making a pipe for the workload's start".to_owned())?;
        Ok(Self {
            waiting: Arc::new(waiting),
            giving: Arc::new(giving),
        })
    }

    fn give(&self) -> Result<(), InitError> {
        nix::unistd::write(self.giving.as_fd(), &[1])
            .map(drop)
            .doing(|| "letting the workload start".to_owned())
    }

    /// Only a system call: the process is between fork and exec.
    fn wait(&self) -> io::Result<()> {
        match nix::unistd::read(self.waiting.as_fd(), &mut [0])? {
            1 => Ok(()),
            _ => Err(Errno::ECANCELED.into()),
        }
    }
}

/// The environment of the workload, and of every command that is run beside it.
pub(crate) fn variables(
    config: &MeasuredConfig,
    workload: &Workload,
    given: Given<'_>,
) -> Vec<(OsString, OsString)> {
    // What is set later takes the place of what was there.
    let mut variables = BTreeMap::<OsString, OsString>::new();
    let mut set = |name: &str, value: OsString| drop(variables.insert(name.into(), value));
    for (name, value) in &workload.env {
        set(name, value.into());
    }
    for (name, value) in crate::egress::proxy_variables(config, &workload.env) {
        set(name, value.into());
    }
    let credentials = given.credentials;
    let credentials = credentials.filter(|_| workload.aws_credentials);
    let of_credentials = credentials.map(|credentials| credentials.variables(&workload.env));
    for (name, value) in of_credentials.into_iter().flatten() {
        set(name, value.into());
    }
    if config.kms.is_some() {
        let (name, value) = crate::api::kms_variable();
        set(name, value.into());
    }
    for (name, value) in given.secrets.map(Secrets::variables).into_iter().flatten() {
        set(name, value);
    }
    set("HOSTNAME", config.name.as_str().into());
    set("ENCLAVE_API", crate::api::url().into());
    set("ENCLAVE_RUNTIME_CONFIG", RUNTIME_CONFIG_PATH.into());
    variables.into_iter().collect()
}

/// Where the workload says how it is. It does so itself: commands beside it have none of this.
fn of_notifications(workload: &Workload) -> Vec<(&'static str, String)> {
    let health = workload.health.as_ref();
    let Some(HealthProbe::Notify { watchdog }) = health.map(|health| &health.probe) else {
        return Vec::new();
    };
    let socket = ("NOTIFY_SOCKET", crate::notifications::SOCKET.to_owned());
    let watchdog = watchdog.map(|watchdog| {
        let microseconds = watchdog.as_duration().as_micros().to_string();
        ("WATCHDOG_USEC", microseconds)
    });
    std::iter::once(socket).chain(watchdog).collect()
}

/// Starts the workload as its user and confined, in a session of its own, with
/// nothing to read and its output going through pipes. Its program is executed when the
/// word has been given.
fn start(
    config: &MeasuredConfig,
    workload: &Workload,
    confinement: &Arc<Confinement>,
    word: Word,
    given: Given<'_>,
) -> Started {
    let program = workload.command.program();
    let folder = workload.working_directory.as_str();
    let mut command = Command::new(program);
    command
        .args(workload.command.arguments())
        .env_clear()
        .envs(variables(config, workload, given))
        .envs(of_notifications(workload))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // An error of the child arrives as a number alone; this says what it is about.
    let (failed, failing) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .doing(|| "making a pipe for the workload".to_owned())?;
    let child = Arc::clone(confinement);
    // SAFETY: between fork and exec only system calls are made, on memory that was
    // prepared before: `take_on`, `wait` and `write` neither allocate nor take a lock.
    unsafe {
        command.pre_exec(move || {
            let mut current = None;
            let taken = child
                .take_on(|step| current = Some(step))
                .and_then(|()| word.wait());
            if taken.is_err()
                && let Some(step) = current
            {
                let _ = nix::unistd::write(&failing, &[step as u8]);
            }
            taken
        });
    }
    let spawned = confinement.start(|| {
        command.spawn().map_err(|error| {
            let mut step = [0];
            InitError::Workload(match nix::unistd::read(&failed, &mut step) {
                Ok(1) => explain_step(step[0], folder, &error),
                _ => explain(program, &error),
            })
        })
    });
    let (pid1, mut child) = spawned?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let namespace = match pid1.map(descriptor).transpose() {
        Ok(namespace) => namespace,
        Err(error) => {
            // Nobody would wait for them. The numbers are theirs until somebody has.
            for process in pid1.into_iter().chain([pid]) {
                let _ = kill(process, Signal::SIGKILL);
            }
            return Err(error);
        }
    };
    let stdout = child
        .stdout
        .take()
        .map(|pipe| (pipe.into(), Source::Stdout));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| (pipe.into(), Source::Stderr));
    Ok(Begun {
        pid,
        namespace,
        pipes: stdout.into_iter().chain(stderr).collect(),
    })
}

/// What kept the workload's process from its program.
fn explain_step(step: u8, folder: &str, error: &io::Error) -> String {
    let doing = Step::describe(step);
    if step == Step::WorkingDirectory as u8 {
        return match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                format!("{doing}: the image has no folder {folder}")
            }
            _ => format!("{doing} {folder}: {error}"),
        };
    }
    // What the init makes itself cannot be missing: the workload has put something
    // else in its place. An id without a user is one that a simulation has not mapped.
    let hint = match error.kind() {
        io::ErrorKind::NotADirectory => ": it is not a folder any more",
        io::ErrorKind::InvalidInput if step == Step::User as u8 => {
            ": its user or one of its groups is beyond the ids that are mapped on this host; lengthen the range in /etc/subuid and /etc/subgid"
        }
        _ => "",
    };
    format!("{doing}: {error}{hint}")
}

fn explain(program: &str, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => ": the program, its interpreter or its loader is missing",
        io::ErrorKind::PermissionDenied => ": it is not executable for the workload's user",
        _ => "",
    };
    format!("{program}: {error}{hint}")
}

/// Sends a signal to the workload's main process, by its number: real-time signals have no name.
pub(crate) fn signal_main(process: BorrowedFd<'_>, signal: c_int) {
    // It may have ended by itself.
    // SAFETY: the call takes numbers; without further information on the signal it touches no
    // memory.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
}

/// The signal that follows the change of a secret.
pub(crate) fn of_change(signal: ChangeSignal) -> Signal {
    match signal {
        ChangeSignal::Hangup => Signal::SIGHUP,
        ChangeSignal::Interrupt => Signal::SIGINT,
        ChangeSignal::Terminate => Signal::SIGTERM,
        ChangeSignal::User1 => Signal::SIGUSR1,
        ChangeSignal::User2 => Signal::SIGUSR2,
    }
}

/// A pidfd of a process that has not been waited for: its namespaces can be entered by it, and
/// those of no other process.
pub(crate) fn descriptor(pid: Pid) -> Result<OwnedFd, InitError> {
    // SAFETY: the call takes two numbers. It gives a new descriptor, which is ours.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let opened = Errno::result(opened).doing(|| "holding the workload's process".to_owned())?;
    let descriptor = c_int::try_from(opened).expect("descriptors are numbers of this type");
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Kills every process but PID 1 itself.
pub(crate) fn kill_all() {
    // Nobody may be left.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// How a process ended, for people.
pub(crate) fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal(number) => match Signal::try_from(number) {
            Ok(signal) => format!("signal {signal}"),
            Err(_) => format!("signal {number}"),
        },
    }
}
