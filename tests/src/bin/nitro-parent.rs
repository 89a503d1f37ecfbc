//! The first process of the parent instance of `tests/nitro`: mounts what programs need, loads
//! vsock, and runs what the test asks for over the second serial line. As `modprobe` it loads
//! a module, for the agent.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "the console is how it is heard")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use enclave_tests::nitro::shell::{self, Answer, Request};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::wait;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The line to the test.
const LINE: &str = "/dev/ttyS1";
/// Each needs those before it.
const VSOCK: [&str; 3] = [
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
];
/// Most bytes of what a program prints that are passed on, from the end.
const MOST: usize = 64 * 1024;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let argument = arguments.next();
    let result = match (Path::new(&name).file_name(), argument) {
        (Some(name), Some(module)) if name == "modprobe" => load(&module),
        (_, Some(argument)) if argument == "shell" => serve(),
        _ => boot(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Loads a module.
fn load(name: &str) -> anyhow::Result<()> {
    let file = File::open(format!("/modules/{name}.ko")).with_context(|| name.to_owned())?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error).context(name.to_owned()),
    }
}

/// Prepares the machine, and takes care of its processes: those that lose their parent
/// become this one's. The machine ends with it.
fn boot() -> anyhow::Result<()> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(place)?;
        mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| place.to_owned())?;
    }
    VSOCK.into_iter().try_for_each(load)?;
    let shell = std::process::Command::new("/init")
        .arg("shell")
        .env("PATH", "/bin")
        .spawn()?;
    let shell = Pid::from_raw(i32::try_from(shell.id())?);
    loop {
        if wait()?.pid() == Some(shell) {
            bail!("the shell has ended");
        }
    }
}

fn serve() -> anyhow::Result<()> {
    let line = File::options().read(true).write(true).open(LINE)?;
    let mut settings = tcgetattr(line.as_fd())?;
    cfmakeraw(&mut settings);
    tcsetattr(line.as_fd(), SetArg::TCSANOW, &settings)?;
    let mut from = BufReader::new(line.try_clone()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut started = HashMap::new();
    shell::send(&line, &Answer::Booted)?;
    while let Some(request) = shell::receive(&mut from)? {
        let answer = runtime.block_on(answer(request, &mut started));
        let answer = answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        shell::send(&line, &answer)?;
    }
    Ok(())
}

async fn answer(request: Request, started: &mut HashMap<u32, Child>) -> anyhow::Result<Answer> {
    match request {
        Request::Run { command, seconds } => {
            let ended = program(&command)?.output();
            let ended = timeout(Duration::from_secs(seconds), ended).await;
            let ended = ended.context("it does not end")??;
            Ok(Answer::Ended {
                code: ended.status.code(),
                stdout: text(&ended.stdout),
                stderr: text(&ended.stderr),
            })
        }
        Request::Spawn { command, output } => {
            let output = File::create(output)?;
            let child = program(&command)?
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()?;
            let pid = child.id().context("it has no process")?;
            started.insert(pid, child);
            Ok(Answer::Processes(vec![pid]))
        }
        Request::Wait { pid, seconds } => {
            let child = started.get_mut(&pid).context("it was not started")?;
            let status = timeout(Duration::from_secs(seconds), child.wait()).await;
            Ok(Answer::Ended {
                code: status.context("it does not end")??.code(),
                stdout: String::new(),
                stderr: String::new(),
            })
        }
        Request::Find(word) => Ok(Answer::Processes(find(&word)?)),
        Request::Kill(pid) => {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
            Ok(Answer::Done)
        }
        Request::Read(path) => Ok(Answer::Bytes(hex::encode(fs::read(path)?))),
        Request::Write { path, text } => {
            if let Some(folder) = Path::new(&path).parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, text)?;
            Ok(Answer::Done)
        }
    }
}

fn program(command: &[String]) -> anyhow::Result<Command> {
    let (program, arguments) = command.split_first().context("no program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// The processes whose command line has a word.
fn find(word: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command
            .split(|byte| *byte == 0)
            .any(|part| part == word.as_bytes())
        {
            found.push(pid);
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(MOST);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}
