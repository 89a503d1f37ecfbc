//! An enclave under `sim`, its folder made by the test.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{EndCause, FromInit};
use link::logs::LogStream;
use measurements::{Measurements, Pcr};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::agent::{Agent, Behaviour, Control, Received};
use crate::module::Lie;

/// Longer than anything may take; only a failing test waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Held while a program is written, and while one is started: a process that is
/// forked meanwhile would hold the file open, and nobody could execute it.
static PROGRAMS: Mutex<()> = Mutex::new(());

/// The image's measurements, as the software NSM is told them.
pub(crate) const MEASUREMENTS: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

/// What an enclave is started from.
pub(crate) struct Image {
    config: Value,
    files: Vec<(String, Vec<u8>)>,
    behaviour: Behaviour,
    is_debug: bool,
    measurements: Measurements,
    /// Who signs, if it must be somebody in particular: certificate and key, PEM.
    authority: Option<(String, String)>,
    /// What the init takes for the root, if not the module's.
    root: Option<String>,
    lie: Option<Lie>,
}

impl Image {
    /// An image whose workload follows these instructions.
    pub(crate) fn new(instructions: &[&str]) -> Self {
        Self {
            config: json!({
                "schema": 1,
                "name": "test",
                "workload": following(instructions),
                "network": {"egress": [], "ingress": []},
                "logs": {"release": "always"},
            }),
            files: Vec::new(),
            behaviour: Behaviour::default(),
            is_debug: false,
            measurements: MEASUREMENTS,
            authority: None,
            root: None,
            lie: None,
        }
    }

    /// Replaces a part of the measured configuration.
    pub(crate) fn with(mut self, pointer: &str, part: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[name] = part;
        self
    }

    /// With a PID 1 that reaps for the workload.
    pub(crate) fn with_reaper(self) -> Self {
        self.with("/workload/init", true.into())
    }

    /// Restarts after every exit.
    pub(crate) fn restarted(self, max: u32) -> Self {
        let restart = json!({"policy": "always", "max": max, "backoff": "10ms..1s"});
        self.with("/workload/restart", restart)
    }

    pub(crate) fn file(mut self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), contents.into()));
        self
    }

    pub(crate) fn agent(mut self, change: impl FnOnce(&mut Behaviour)) -> Self {
        change(&mut self.behaviour);
        self
    }

    /// In debug mode, which the image allows.
    pub(crate) fn debug(self) -> Self {
        self.debug_not_allowed()
            .attestation("allow_debug", true.into())
    }

    pub(crate) fn debug_not_allowed(mut self) -> Self {
        self.is_debug = true;
        self
    }

    /// Goes on whatever the self-check finds.
    pub(crate) fn reports_self_check(self) -> Self {
        self.attestation("self_check", "report".into())
    }

    /// Sets a value of the measured `[attestation]` table.
    pub(crate) fn attestation(mut self, key: &str, value: Value) -> Self {
        self.config["attestation"][key] = value;
        self
    }

    /// An image that measures to something else.
    pub(crate) fn measuring(mut self, measurements: Measurements) -> Self {
        self.measurements = measurements;
        self
    }

    /// A module that this root's key signs for.
    pub(crate) fn signed_by(mut self, root: &TestRoot) -> Self {
        self.authority = Some((root.certificate_pem().to_owned(), root.key_pem()));
        self
    }

    /// What the init takes for the module's root.
    pub(crate) fn root(mut self, pem: String) -> Self {
        self.root = Some(pem);
        self
    }

    /// A module that answers in its own way.
    pub(crate) fn module(mut self, lie: Lie) -> Self {
        self.lie = Some(lie);
        self
    }

    /// Writes everything that the init needs, and serves it.
    pub(crate) fn prepare(self) -> Prepared {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree/rootfs");
        for below in ["tree/enclave", "tree/rootfs/bin", "sockets"] {
            fs::create_dir_all(folder.path().join(below)).unwrap();
        }
        fs::write(
            folder.path().join("tree/enclave/config.json"),
            serde_json::to_vec(&self.config).unwrap(),
        )
        .unwrap();
        install_workload(&root.join("bin/workload"));
        for (path, contents) in self.files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let test_root = match &self.authority {
            Some((certificate, key)) => TestRoot::from_pem(certificate, key),
            None => TestRoot::generate(),
        }
        .unwrap();
        let root_pem = test_root.certificate_pem().to_owned();
        let believed = self.root.as_ref().unwrap_or(&root_pem);
        fs::write(folder.path().join("root.pem"), believed).unwrap();
        let identity = Identity {
            instance_id: "i-00000000000000000".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: (!self.is_debug).then_some(self.measurements),
        };
        let module = SoftwareNsm::new(identity, test_root).unwrap();
        let listener = UnixListener::bind(folder.path().join("nsm")).unwrap();
        let nsm = match self.lie {
            None => tokio::spawn(async move { serve(listener, module).await.unwrap() }),
            Some(lie) => tokio::spawn(crate::module::serve(listener, module, lie)),
        };
        Prepared {
            agent: Agent::start(&folder.path().join("sockets"), self.behaviour),
            nsm,
            root_pem,
            folder,
        }
    }

    pub(crate) fn start(self) -> Enclave {
        self.prepare().start()
    }

    /// Starts, and waits for the control connection.
    pub(crate) async fn boot(self) -> (Enclave, Control) {
        let mut enclave = self.start();
        let control = enclave.control().await;
        (enclave, control)
    }
}

/// The tests' workload is an example: `cargo test` builds it beside the program.
fn workload() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_enclave-init")).with_file_name("examples/workload")
}

fn install_workload(to: &Path) {
    let workload = workload();
    let _programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    fs::copy(&workload, to).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; build it with `cargo build -p enclave-init --examples`",
            workload.display()
        )
    });
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An enclave that could be started.
pub(crate) struct Prepared {
    pub(crate) folder: TempDir,
    pub(crate) agent: Agent,
    pub(crate) nsm: JoinHandle<()>,
    pub(crate) root_pem: String,
}

impl Prepared {
    pub(crate) fn command(&self) -> Command {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_enclave-init"));
        command
            .arg("sim")
            .arg("--tree")
            .arg(path("tree"))
            .arg("--sockets")
            .arg(path("sockets"))
            .arg("--nsm")
            .arg(path("nsm"))
            .arg("--nsm-root")
            .arg(path("root.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) fn start(self) -> Enclave {
        let mut launcher = {
            let _programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
            self.command().spawn().unwrap()
        };
        Enclave {
            input: launcher.stdin.take(),
            launcher,
            prepared: self,
        }
    }
}

/// A running enclave.
pub(crate) struct Enclave {
    pub(crate) launcher: Child,
    /// The launcher's standard input: the enclave lives no longer than it.
    pub(crate) input: Option<ChildStdin>,
    pub(crate) prepared: Prepared,
}

impl Enclave {
    pub(crate) fn folder(&self) -> &Path {
        self.prepared.folder.path()
    }

    /// The next control connection.
    pub(crate) async fn control(&mut self) -> Control {
        let next = self.prepared.agent.controls.recv();
        timeout(LIMIT, next).await.unwrap().unwrap()
    }

    pub(crate) fn launcher_pid(&self) -> Pid {
        Pid::from_raw(self.launcher.id().unwrap().cast_signed())
    }

    /// PID 1, by its pid outside.
    pub(crate) fn pid1(&self) -> Pid {
        let pid = self.launcher_pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap())
    }

    /// What a Python program says, and its errors. The interpreter is not in the image: it
    /// joins the workload's network with the environment that the workload has, which is
    /// known by one of its variables.
    pub(crate) async fn python(
        &self,
        python: &OsStr,
        arguments: &[&str],
        variable: &str,
    ) -> (String, String) {
        let mut command = self.beside(python, variable);
        said(command.arg("-c").args(arguments)).await
    }

    /// A program of this machine, in the workload's network and with its environment.
    pub(crate) fn beside(&self, program: &OsStr, variable: &str) -> Command {
        let (workload, environment) = processes(self.folder())
            .into_iter()
            .filter_map(|process| {
                let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
                Some((process, String::from_utf8(environment).unwrap()))
            })
            .find(|(_, environment)| environment.contains(variable))
            .unwrap();
        let variables = environment
            .split('\0')
            .filter_map(|line| line.split_once('='));
        let mut command = self.in_network_of(workload, program);
        command.env_clear().envs(variables);
        command
    }

    /// The tests' workload with one instruction, in the network of a process and without
    /// the workload's confinement.
    pub(crate) fn instruct(&self, process: Pid, instruction: &str) -> Command {
        let mut command = self.in_network_of(process, workload().as_os_str());
        command.arg(instruction).stdout(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    fn in_network_of(&self, process: Pid, program: &OsStr) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid1().to_string()])
            .args(["--user", "--preserve-credentials"])
            .arg(format!("--net=/proc/{process}/ns/net"))
            .arg(program);
        command
    }

    /// A process of the workload's.
    pub(crate) fn workload(&self) -> Pid {
        let pid1 = self.pid1();
        let mut processes = processes(self.folder()).into_iter();
        processes
            .find(|process| {
                let network = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
                network(*process).is_some_and(|other| Some(other) != network(pid1))
                    && *process != self.launcher_pid()
            })
            .unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.launcher_pid(), signal).unwrap();
    }

    /// A path below the workload's root, as long as no mount hides it.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder().join("tree/rootfs").join(below)
    }

    pub(crate) fn records(&self, stream: LogStream) -> Vec<Received> {
        let records = self.prepared.agent.shared.records.borrow();
        let records = records.iter().filter(|record| record.stream == stream);
        records.cloned().collect()
    }

    pub(crate) fn lines(&self, stream: LogStream) -> Vec<String> {
        let records = self.records(stream);
        records.iter().map(Received::text).collect()
    }

    /// What the workload's requests were answered so far, as status and body.
    pub(crate) fn answers(&self) -> Vec<(u16, Vec<u8>)> {
        let lines = self.lines(LogStream::Application);
        let answers = lines.iter().filter_map(|line| line.strip_prefix("api "));
        answers
            .map(|line| {
                let (status, body) = line.split_once(' ').unwrap();
                (status.parse().unwrap(), STANDARD.decode(body).unwrap())
            })
            .collect()
    }

    /// Waits for a record that contains this text.
    pub(crate) async fn line(&self, stream: LogStream, text: &str) -> String {
        let mut records = self.prepared.agent.shared.records.subscribe();
        let found = timeout(
            LIMIT,
            records.wait_for(|records| {
                records
                    .iter()
                    .any(|record| record.stream == stream && record.text().contains(text))
            }),
        );
        assert!(
            found.await.is_ok(),
            "no {} record with {text:?} in {:#?}",
            stream.name(),
            self.lines(stream)
        );
        let mut lines = self.lines(stream).into_iter();
        lines.find(|line| line.contains(text)).unwrap()
    }

    /// Waits for a line of the workload's.
    pub(crate) async fn said(&self, text: &str) -> String {
        self.line(LogStream::Application, text).await
    }

    /// Waits for the end: exit code and console.
    pub(crate) async fn ended(&mut self) -> (i32, String) {
        let status = timeout(LIMIT, self.launcher.wait()).await.unwrap().unwrap();
        let mut console = String::new();
        if let Some(stderr) = &mut self.launcher.stderr {
            stderr.read_to_string(&mut console).await.unwrap();
        }
        self.nothing_is_left().await;
        (status.code().unwrap_or(-1), console)
    }

    /// Waits until the workload waits for room in its output.
    pub(crate) async fn blocks(&self) {
        let pid = self.pid1();
        let blocked = || {
            processes(self.folder()).iter().any(|process| {
                let read = |file| fs::read_to_string(format!("/proc/{process}/{file}"));
                let writes = read("wchan").unwrap_or_default().contains("pipe_write")
                    || read("syscall").unwrap_or_default().starts_with("1 0x1 ");
                *process != pid && writes
            })
        };
        until(blocked).await;
    }

    /// Waits until no process of the enclave is left.
    pub(crate) async fn nothing_is_left(&self) {
        until(|| processes(self.folder()).is_empty()).await;
    }
}

/// What a program says, and its errors.
pub(crate) async fn said(command: &mut Command) -> (String, String) {
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// What the image says of a workload that follows these instructions.
pub(crate) fn following(instructions: &[&str]) -> Value {
    let command: Vec<_> = ["/bin/workload"].iter().chain(instructions).collect();
    json!({
        "kind": "service",
        "command": command,
        "env": {},
        "working_directory": "/",
        "user": {"uid": 0, "gid": 0},
        "restart": {"policy": "never", "max": 0, "backoff": "10ms..10ms"},
        "stop_grace": "20s",
    })
}

/// Waits until the enclave is ready.
pub(crate) async fn ready(control: &mut Control) {
    message(control, |message| match message {
        FromInit::Ready { .. } => Some(()),
        _ => None,
    })
    .await;
}

/// Reads messages up to one that is wanted; none may be missing.
pub(crate) async fn message<T>(
    control: &mut Control,
    mut wanted: impl FnMut(&FromInit) -> Option<T>,
) -> T {
    let mut others = Vec::new();
    let found = async {
        loop {
            let message = control.receive().await?;
            if let Some(found) = wanted(&message) {
                return Some(found);
            }
            others.push(message);
        }
    };
    match timeout(LIMIT, found).await {
        Ok(Some(found)) => found,
        Ok(None) => panic!("the init has closed the connection after {others:#?}"),
        Err(late) => panic!("not among {others:#?}: {late}"),
    }
}

/// Waits for the last message.
pub(crate) async fn ending(control: &mut Control) -> (EndCause, String) {
    let (cause, detail, _) = ending_with_code(control).await;
    (cause, detail)
}

/// The same, with the code for programs.
pub(crate) async fn ending_with_code(control: &mut Control) -> (EndCause, String, String) {
    message(control, |message| match message {
        FromInit::Ending {
            cause,
            detail,
            code,
            ..
        } => Some((*cause, detail.to_string(), code.to_string())),
        _ => None,
    })
    .await
}

/// Waits until something is so.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let held = async {
        while !condition() {
            sleep(POLL).await;
        }
    };
    timeout(LIMIT, held).await.expect("it never came to be");
}

/// The processes of the enclave in this folder: those that run its workload's
/// program, and those whose command line names it.
pub(crate) fn processes(folder: &Path) -> Vec<Pid> {
    let identity = |path: &Path| {
        let file = fs::metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    };
    let workload = identity(&folder.join("tree/rootfs/bin/workload"));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let name = process.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let is_named = String::from_utf8_lossy(&command).contains(folder.to_str().unwrap());
        if is_named || identity(&process.join("exe")).is_some_and(|exe| Some(exe) == workload) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}
