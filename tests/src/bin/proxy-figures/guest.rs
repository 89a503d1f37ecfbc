//! The comparison over vsock, in an emulated machine of its own.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{fs, process};

use anyhow::{Context, bail, ensure};
use enclave_tests::{Machine, Programs};
use link::Endpoint;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Target;
use crate::compare::{Comparison, GUEST, Scale};

/// This machine's own context identifier (vsock(7), `VMADDR_CID_LOCAL`): a
/// connection to it never leaves the kernel.
const LOOPBACK: u32 = 1;
/// The port of the first proxy.
const PORT: u32 = 5000;
const DONE: &str = "everything was measured";

/// Whether this process is the first one of the emulated machine.
pub(crate) fn is_here() -> bool {
    process::id() == 1
}

/// Boots a machine with this program, and prints what it prints.
pub(crate) async fn run(programs: &Programs) -> anyhow::Result<()> {
    println!("\nvsock loopback to TCP, in a machine that QEMU emulates: only ratios count");
    let folder = tempfile::tempdir()?;
    let mut files = socat()?;
    files.push(("init".to_owned(), std::env::current_exe()?));
    let machine = Machine {
        files,
        memory_mib: 1536,
        cpus: 2,
    };
    let mut machine = machine
        .command(programs, folder.path())?
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start QEMU")?;
    let console = machine.stdout.take().context("QEMU has no console")?;
    let mut lines = BufReader::new(console).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim_end() == DONE {
            return Ok(());
        }
        println!("{}", line.trim_end());
    }
    bail!("the machine ended before everything was measured")
}

/// `socat` and the libraries that it loads, as `ldd` names them, each where it is here.
fn socat() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join("socat"))
        .find(|program| program.exists())
        .context("there is no socat: install the package of that name")?;
    let output = Command::new("ldd").arg(&program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let libraries = text
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix('/'));
    let mut files: Vec<_> = libraries
        .map(|library| (library.to_owned(), PathBuf::from(format!("/{library}"))))
        .collect();
    files.push(("bin/socat".to_owned(), program));
    Ok(files)
}

/// What a kernel leaves to its first process, as far as it is needed here.
fn prepare() -> anyhow::Result<()> {
    for (folder, kind) in [("/proc", "proc"), ("/dev", "devtmpfs"), ("/tmp", "tmpfs")] {
        fs::create_dir_all(folder)?;
        mount(
            Some(kind),
            folder,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount {folder}"))?;
    }
    loopback_up()
}

/// Brings the loopback interface up: `RTM_NEWLINK` with `IFF_UP` (rtnetlink(7)).
fn loopback_up() -> anyhow::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const NLMSG_ERROR: u16 = 2;
    const IFF_UP: u32 = 1;
    /// The first interface of every network namespace.
    const LOOPBACK_INDEX: u32 = 1;
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let fields: [&[u8]; 8] = [
        &32_u32.to_ne_bytes(),
        &RTM_NEWLINK.to_ne_bytes(),
        &NLM_F_REQUEST_ACK.to_ne_bytes(),
        // The sequence number, and who asks.
        &[0; 8],
        // Any address family, and any kind of device.
        &[0; 4],
        &LOOPBACK_INDEX.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
    ];
    let message = fields.concat();
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 64];
    recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let [_, _, _, _, kind @ .., _, _] = answer.first_chunk::<8>().copied().unwrap_or_default();
    ensure!(
        u16::from_ne_bytes(kind) == NLMSG_ERROR && answer[16..20] == [0; 4],
        "the kernel does not bring the loopback interface up"
    );
    Ok(())
}

/// What the first process does.
pub(crate) async fn measure() -> anyhow::Result<()> {
    prepare()?;
    let target = Target::start()?;
    let mut comparison = Comparison::default();
    for (port, kind) in (PORT..).zip(GUEST) {
        let endpoint = Endpoint::Vsock {
            cid: LOOPBACK,
            port,
        };
        let started = comparison.start(kind, endpoint, target.address).await;
        started.with_context(|| kind.name())?;
    }
    comparison.measure(&Scale::GUEST).await?;
    println!("{DONE}");
    // The host ends the machine.
    std::future::pending().await
}
