//! A parent instance with the kernel's own driver of Nitro Enclaves, on an emulated device.
//!
//! A machine of QEMU's has several NUMA nodes, cores of two CPUs, a distribution's kernel with
//! the module `nitro_enclaves`, and nothing else but the agent and a [first
//! process](shell) that runs what a test asks for. The driver's [device](Device) is here: it
//! reads an image out of the memory that the driver donates, compares it with the file that
//! the test named, and starts a second machine from what it read. Both machines have vsock
//! devices of one group, so that an enclave reaches its parent.

mod device;
mod enclave;
mod memory;
pub mod probe;
pub mod shell;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::machine::{self, FIRMWARE};
use crate::programs::Programs;
use probe::{Outcome, Step};
use shell::{Answer, Request};

pub use device::{Device, Limits, Started};

use enclave::{Enclaves, wait_for_listener};
use memory::Memory;

/// Where everything is in the instance.
pub const AGENT: &str = "/bin/parent-agent";
/// What makes calls of the driver's.
pub const PROBE: &str = "/bin/nitro-probe";
/// The image of its enclaves.
pub const IMAGE: &str = "/image.eif";
/// The device's address on the PCI bus.
pub const ADDRESS: &str = "0000:00:08.0";
/// An instance's own context identifier.
const PARENT_CID: u32 = 3;
/// How long a boot may take. Emulated clocks have been seen to stand still: it is tried once
/// more.
const BOOT: Duration = Duration::from_secs(60);
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(150);
/// What a request may take beyond its own limit.
const SLACK: Duration = Duration::from_secs(30);

/// A NUMA node: its memory, and its CPUs as QEMU takes them.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Memory in MiB.
    pub mib: u32,
    /// CPUs.
    pub cpus: &'static str,
}

/// What an instance is made of.
#[derive(Debug, Clone)]
pub struct Layout {
    /// CPUs, cores and threads as QEMU takes them.
    pub smp: &'static str,
    /// The NUMA nodes.
    pub nodes: Vec<Node>,
}

impl Layout {
    /// Cores of two CPUs: two of them on the first node, of which one is the instance's, and
    /// four on the second.
    pub fn two_nodes() -> Self {
        let node = |mib, cpus| Node { mib, cpus };
        Self {
            smp: "12,sockets=1,cores=6,threads=2",
            nodes: vec![node(640, "0-3"), node(1408, "4-11")],
        }
    }

    /// All of its memory.
    fn mib(&self) -> u32 {
        self.nodes.iter().map(|node| node.mib).sum()
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal killed it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors.
    pub stderr: String,
}

/// A running instance.
#[derive(Debug)]
pub struct Parent {
    machine: Child,
    vsock: Child,
    /// What its driver drives.
    pub device: Device,
    to: BufWriter<UnixStream>,
    from: BufReader<UnixStream>,
    /// Last: everything else is gone when the folder goes.
    folder: TempDir,
}

impl Parent {
    /// Boots an instance whose enclaves may have these names and this image.
    pub fn boot(
        programs: &Programs,
        kernel: &Path,
        layout: &Layout,
        names: &[&str],
        image: &Path,
    ) -> anyhow::Result<Self> {
        let boot = || Self::try_boot(programs, kernel, layout, names, image);
        boot().or_else(|first| boot().context(format!("and at first: {first:#}")))
    }

    fn try_boot(
        programs: &Programs,
        kernel: &Path,
        layout: &Layout,
        names: &[&str],
        image: &Path,
    ) -> anyhow::Result<Self> {
        let folder = folder(layout.mib())?;
        let path = |name: &str| folder.path().join(name);
        let ramdisk = path("ramdisk");
        machine::write_ramdisk(&files(programs, kernel, image)?, &ramdisk)?;

        let mut memory = Vec::new();
        for (number, node) in layout.nodes.iter().enumerate() {
            let file = path(&format!("memory-{number}"));
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(file)?;
            file.set_len(u64::from(node.mib) << 20)?;
            memory.push(file);
        }
        let sockets: BTreeMap<u32, PathBuf> = names
            .iter()
            .map(|name| (cid(name), path(&format!("vsock-{name}"))))
            .collect();
        let own = path("vsock");
        let vsock = start_vsock(programs, folder.path(), &own, &sockets)?;

        let shell = UnixListener::bind(path("shell"))?;
        let driver = UnixListener::bind(path("device"))?;
        let device = Device::new(
            Memory::new(memory)?,
            Enclaves::new(programs, folder.path(), sockets),
            vec![fs::read(image)?],
        );
        device.serve(driver);
        let machine = start_machine(programs, kernel, layout, folder.path())?;
        let mut parent = Unconnected {
            machine: Some(machine),
            vsock: Some(vsock),
        };
        let stream = accept(&shell).context("the machine has not started")?;
        stream.set_read_timeout(Some(BOOT))?;
        let mut from = BufReader::new(stream.try_clone()?);
        let booted = shell::receive(&mut from);
        let Ok(Some(Answer::Booted)) = booted else {
            let console = fs::read(path("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            bail!("the instance does not boot: {booted:?}; its console: {console}");
        };
        let (Some(machine), Some(vsock)) = (parent.machine.take(), parent.vsock.take()) else {
            bail!("there is no machine");
        };
        Ok(Self {
            machine,
            vsock,
            device,
            to: BufWriter::new(stream),
            from,
            folder,
        })
    }

    /// Runs a program to its end.
    pub fn run(&mut self, command: &[&str]) -> anyhow::Result<Ended> {
        let request = Request::Run {
            command: words(command),
            seconds: LIMIT.as_secs(),
        };
        self.ended(&request)
    }

    /// Runs one of the agent's commands.
    pub fn agent(&mut self, arguments: &[&str]) -> anyhow::Result<Ended> {
        self.run(&[&[AGENT], arguments].concat())
    }

    /// Makes calls of the driver's, and says what came of those of each script.
    pub fn probe(&mut self, scripts: &[Vec<Step>]) -> anyhow::Result<Vec<Vec<Outcome>>> {
        let ended = self.run(&[PROBE, &serde_json::to_string(scripts)?])?;
        ensure!(ended.code == Some(0), "{ended:?}");
        Ok(serde_json::from_str(&ended.stdout)?)
    }

    /// Starts a program that prints to a file, and gives its process.
    pub fn spawn(&mut self, command: &[&str], output: &str) -> anyhow::Result<u32> {
        let request = Request::Spawn {
            command: words(command),
            output: output.to_owned(),
        };
        match self.ask(&request, LIMIT)? {
            Answer::Processes(pids) => pids.first().copied().context("no process"),
            other => bail!("{other:?}"),
        }
    }

    /// Waits for the end of a program that was started.
    pub fn wait(&mut self, pid: u32) -> anyhow::Result<Option<i32>> {
        let seconds = LIMIT.as_secs();
        self.ended(&Request::Wait { pid, seconds })
            .map(|ended| ended.code)
    }

    /// The processes whose command line has a word.
    pub fn find(&mut self, word: &str) -> anyhow::Result<Vec<u32>> {
        match self.ask(&Request::Find(word.to_owned()), LIMIT)? {
            Answer::Processes(pids) => Ok(pids),
            other => bail!("{other:?}"),
        }
    }

    /// Kills a process.
    pub fn kill(&mut self, pid: u32) -> anyhow::Result<()> {
        self.done(&Request::Kill(pid))
    }

    /// A file's bytes.
    pub fn bytes(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        match self.ask(&Request::Read(path.to_owned()), LIMIT)? {
            Answer::Bytes(bytes) => Ok(hex::decode(bytes)?),
            other => bail!("{path}: {other:?}"),
        }
    }

    /// A file's text, without the end of its last line.
    pub fn text(&mut self, path: &str) -> anyhow::Result<String> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// Writes a file.
    pub fn write(&mut self, path: &str, text: &str) -> anyhow::Result<()> {
        self.done(&Request::Write {
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    /// What the kernel, and each enclave, has printed.
    pub fn consoles(&self) -> String {
        let enclaves = (1..).map(|number| format!("enclave-{number}/console"));
        let all = std::iter::once("console".to_owned()).chain(enclaves);
        all.map_while(|name| fs::read(self.folder.path().join(name)).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    fn ended(&mut self, request: &Request) -> anyhow::Result<Ended> {
        match self.ask(request, LIMIT)? {
            Answer::Ended {
                code,
                stdout,
                stderr,
            } => Ok(Ended {
                code,
                stdout,
                stderr,
            }),
            other => bail!("{request:?}: {other:?}"),
        }
    }

    fn done(&mut self, request: &Request) -> anyhow::Result<()> {
        match self.ask(request, LIMIT)? {
            Answer::Done => Ok(()),
            other => bail!("{request:?}: {other:?}"),
        }
    }

    fn ask(&mut self, request: &Request, limit: Duration) -> anyhow::Result<Answer> {
        self.from.get_ref().set_read_timeout(Some(limit + SLACK))?;
        shell::send(&mut self.to, request)?;
        let answer = shell::receive(&mut self.from)
            .with_context(|| format!("{request:?}: {}", self.consoles()))?;
        answer.with_context(|| format!("the instance has ended: {}", self.consoles()))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for child in [&mut self.machine, &mut self.vsock] {
            end(child);
        }
    }
}

/// Processes of an instance that may not come up.
struct Unconnected {
    machine: Option<Child>,
    vsock: Option<Child>,
}

impl Drop for Unconnected {
    fn drop(&mut self) {
        for child in [&mut self.machine, &mut self.vsock].into_iter().flatten() {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// The context identifier that the agent gives an enclave.
pub fn cid(name: &str) -> u32 {
    16 + crc32fast::hash(name.as_bytes()) % (1 << 30)
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}

/// A folder for the instance's memory: in memory too, where there is room for so many MiB.
/// Containers often have a file system of 64 MiB there, and a machine whose memory cannot
/// grow is killed.
fn folder(mib: u32) -> anyhow::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("parent-");
    let shared = Path::new("/dev/shm");
    let has_room = statvfs(shared).is_ok_and(|it| {
        let free = it.blocks_available().saturating_mul(it.fragment_size());
        free >> 20 > u64::from(mib)
    });
    match builder.tempdir_in(shared) {
        Ok(folder) if has_room => Ok(folder),
        _ => Ok(builder.tempdir()?),
    }
}

/// What is in the instance.
fn files(
    programs: &Programs,
    kernel: &Path,
    image: &Path,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let modules = kernel.with_file_name("modules");
    let entry = |name: &str, path: PathBuf| (name.to_owned(), path);
    let first = programs.path("nitro-parent");
    let mut files = vec![
        entry("init", first.clone()),
        entry("bin/modprobe", first),
        entry("bin/parent-agent", programs.path("parent-agent")),
        entry("bin/nitro-probe", programs.path("nitro-probe")),
        entry(IMAGE.trim_start_matches('/'), image.to_owned()),
    ];
    for module in fs::read_dir(&modules).with_context(|| modules.display().to_string())? {
        let path = module?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.context("a module without a name")?;
        files.push((format!("modules/{name}"), path.clone()));
    }
    Ok(files)
}

/// Starts the vsock devices of the instance and of its enclaves.
fn start_vsock(
    programs: &Programs,
    folder: &Path,
    own: &Path,
    enclaves: &BTreeMap<u32, PathBuf>,
) -> anyhow::Result<Child> {
    let mut command = Command::new(&programs.vsock_device);
    let all = std::iter::once((PARENT_CID, own))
        .chain(enclaves.iter().map(|(cid, path)| (*cid, path.as_path())));
    for (cid, socket) in all {
        let socket = socket.display();
        command.arg("--vm").arg(format!(
            "guest-cid={cid},socket={socket},uds-path={socket}-host,groups=all"
        ));
    }
    let output = File::create(folder.join("vsock-output"))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot run vhost-device-vsock")?;
    if let Err(error) = wait_for_listener(own) {
        end(&mut child);
        return Err(error);
    }
    Ok(child)
}

fn start_machine(
    programs: &Programs,
    kernel: &Path,
    layout: &Layout,
    folder: &Path,
) -> anyhow::Result<Child> {
    let path = |name: &str| folder.join(name).display().to_string();
    let memory = layout.mib();
    let mut command = Command::new(&programs.qemu);
    for firmware in FIRMWARE {
        command.arg("-L").arg(firmware);
    }
    command
        // With several threads a timer that never woke was seen.
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max",
        ])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-smp", layout.smp, "-m", &format!("{memory}M")]);
    for (number, Node { mib, cpus }) in layout.nodes.iter().enumerate() {
        let file = path(&format!("memory-{number}"));
        command
            .arg("-object")
            .arg(format!(
                "memory-backend-file,id=m{number},size={mib}M,mem-path={file},share=on"
            ))
            .arg("-numa")
            .arg(format!("node,nodeid={number},memdev=m{number},cpus={cpus}"));
    }
    for (name, device) in [
        ("vsock", "vhost-user-vsock-pci,chardev=vsock"),
        ("device", "nitro-enclaves-pci,chardev=device,addr=8"),
    ] {
        let socket = format!("socket,id={name},path={}", path(name));
        command.args(["-chardev", &socket, "-device", device]);
    }
    let shell = format!("socket,id=shell,path={}", path("shell"));
    let output = File::create(folder.join("qemu-output"))?;
    command
        .args(["-serial", &format!("file:{}", path("console"))])
        .args(["-chardev", &shell, "-serial", "chardev:shell"])
        .args(["-append", "console=ttyS0 panic=-1 reboot=t quiet"])
        .arg("-kernel")
        .arg(kernel)
        .args(["-initrd", &path("ramdisk")])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot run QEMU")
}

/// The connection of a machine that was started just now.
fn accept(listener: &UnixListener) -> anyhow::Result<UnixStream> {
    const MILLISECONDS: u16 = 10_000;
    let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut wanted, MILLISECONDS)? > 0, "nobody connects");
    Ok(listener.accept()?.0)
}

impl Ended {
    /// The error's line, of a program that ended with this code.
    pub fn failed_with(&self, code: i32) -> anyhow::Result<&str> {
        ensure!(self.code == Some(code), "{self:?}");
        Ok(self.stderr.trim_end())
    }
}
