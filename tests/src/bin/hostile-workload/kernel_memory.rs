//! Memory that the kernel takes for a program: queues that nobody reads, filters,
//! terminals, connections that nobody accepts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write, pipe};
use std::mem::forget;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, setsockopt,
    socket, sockopt,
};

use crate::exhaustion::keep;
use crate::raw::{Arg, call};
use crate::server::wait_for_ever;
use crate::ways_out::child;

/// Processes that share the work, since each has limits of its own, and what each of
/// them takes unless it is refused before.
const PROCESSES: usize = 200;
const UNITS: usize = 250;
/// Instructions of a filter, as many as there may be, and filters of one process:
/// longer chains are refused.
const INSTRUCTIONS: usize = 4096;
const FILTERS: usize = 7;
/// Answers that nobody reads, and the queue that they are in: as long as there may be.
const ANSWERS: usize = 400;
const QUEUE: usize = 1024 * 1024;
/// Bytes that are sent to somebody who does not accept.
const UNACCEPTED: usize = 64 * 1024;
const BACKLOG: libc::c_int = 4096;
/// Files that a set of watches is over.
const WATCHES: usize = 100;
/// For what the kernel frees a little later.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes memory of this kind until there is no more of it.
pub(crate) fn hoard(kind: &str) -> anyhow::Result<()> {
    let mut total = 0;
    for _ in 0..PROCESSES {
        let (mut counts, mut sender) = pipe()?;
        let child = child(move || {
            let (taken, error) = take_many(kind);
            let _ = writeln!(sender, "{taken} {error}");
            drop(sender);
            wait_for_ever();
        });
        if let Err(why) = child {
            keep(total, why);
        }
        let mut text = String::new();
        counts.read_to_string(&mut text)?;
        let Some((taken, error)) = text.trim().split_once(' ') else {
            // It was ended for what it took.
            keep(total, Errno::ENOMEM);
        };
        total += taken.parse::<usize>()?;
        let error = Errno::from_raw(error.parse()?);
        // Where a limit of one process or of all is met, others have no better luck.
        if error != Errno::from_raw(0) && error != Errno::EMFILE && error != Errno::E2BIG {
            keep(total, error);
        }
    }
    keep(total, Errno::EAGAIN)
}

fn take_many(kind: &str) -> (usize, i32) {
    for taken in 0..UNITS {
        if let Err(error) = take(kind) {
            return (taken, error.raw_os_error().unwrap_or(libc::EINVAL));
        }
    }
    (UNITS, 0)
}

/// Takes so much of this kind, and says in KiB what the machine has lost by it and what
/// the control group counts.
pub(crate) fn count(kind: &str, units: usize) -> anyhow::Result<()> {
    // What is made only once, and what caches hold.
    take(kind).with_context(|| format!("taking one of {kind}"))?;
    thread::sleep(PAUSE);
    let (free, counted) = memory()?;
    for unit in 0..units {
        take(kind).with_context(|| format!("taking {unit} of {kind}"))?;
    }
    thread::sleep(PAUSE);
    let (free_now, counted_now) = memory()?;
    println!(
        "lost {} counted {}",
        free.saturating_sub(free_now),
        counted_now.saturating_sub(counted)
    );
    wait_for_ever()
}

/// KiB that the machine has left, and that the control group counts.
fn memory() -> anyhow::Result<(u64, u64)> {
    let machine = fs::read_to_string("/proc/meminfo")?;
    let free = machine
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:")?.strip_suffix("kB"))
        .context("no MemFree")?;
    let group = fs::read_to_string("/sys/fs/cgroup/memory.current")?;
    Ok((free.trim().parse()?, group.trim().parse::<u64>()? / 1024))
}

/// Takes one of a kind, and keeps it.
fn take(kind: &str) -> io::Result<()> {
    match kind {
        "answers" => answers(),
        "socket-filters" => socket_filter(),
        "call-filters" => call_filter(),
        "terminals" => terminal(),
        "unaccepted" => unaccepted(),
        "watches" => watches(),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Answers of the kernel in a queue that nobody reads.
fn answers() -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(&socket, sockopt::RcvBuf, &QUEUE)?;
    // `struct nlmsghdr` and `struct ifinfomsg`: what is known of the first interface.
    let request: Vec<u8> = [
        32_u32.to_ne_bytes(),
        [18, 0, 1, 0],
        [0; 4],
        [0; 4],
        [0; 4],
        1_u32.to_ne_bytes(),
        [0; 4],
        [0; 4],
    ]
    .concat();
    let kernel = NetlinkAddr::new(0, 0);
    for _ in 0..ANSWERS {
        // Of those for which there is no room, the kernel tells elsewhere.
        match sendto(
            socket.as_raw_fd(),
            &request,
            &kernel,
            MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    forget(socket);
    Ok(())
}

/// A filter that lets everything pass at once, and is as long as it may be.
fn program() -> Vec<libc::sock_filter> {
    let pass = libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    vec![pass; INSTRUCTIONS]
}

/// `struct sock_fprog`, as bytes.
fn description(program: &[libc::sock_filter]) -> Vec<u8> {
    let length = u64::try_from(program.len()).unwrap_or_default();
    [
        length.to_ne_bytes(),
        (program.as_ptr() as u64).to_ne_bytes(),
    ]
    .concat()
}

fn socket_filter() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let program = program();
    let description = description(&program);
    call(
        libc::SYS_setsockopt,
        [
            socket.as_raw_fd().into(),
            libc::SOL_SOCKET.into(),
            libc::SO_ATTACH_FILTER.into(),
            Arg::Bytes(&description),
            16.into(),
        ],
    )?;
    forget(socket);
    Ok(())
}

/// Of system calls, by a process of its own, as many as it may have.
fn call_filter() -> io::Result<()> {
    child(|| {
        let program = program();
        let description = description(&program);
        for _ in 0..FILTERS {
            let filter = libc::SECCOMP_SET_MODE_FILTER.cast_signed();
            let _ = call(
                libc::SYS_seccomp,
                [filter.into(), 0.into(), Arg::Bytes(&description)],
            );
        }
        wait_for_ever();
    })?;
    Ok(())
}

/// A terminal with something in its queues.
fn terminal() -> io::Result<()> {
    let mut files = OpenOptions::new();
    files.read(true).write(true);
    let mut master = files.open("/dev/pts/ptmx")?;
    let unlocked = 0_i32.to_ne_bytes();
    let descriptor = master.as_raw_fd();
    call(
        libc::SYS_ioctl,
        [
            descriptor.into(),
            i64::try_from(libc::TIOCSPTLCK).unwrap_or_default().into(),
            Arg::Bytes(&unlocked),
        ],
    )?;
    let mut number = [0; 4];
    call(
        libc::SYS_ioctl,
        [
            descriptor.into(),
            i64::try_from(libc::TIOCGPTN).unwrap_or_default().into(),
            Arg::Buffer(&mut number),
        ],
    )?;
    let number = u32::from_ne_bytes(number);
    let slave: File = files.open(format!("/dev/pts/{number}"))?;
    master.write_all(&[b'x'; 1024])?;
    forget((master, slave));
    Ok(())
}

/// A connection that nobody accepts, with bytes that nobody reads.
fn unaccepted() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    call(
        libc::SYS_listen,
        [listener.as_raw_fd().into(), BACKLOG.into()],
    )?;
    for _ in 0..WATCHES {
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nonblocking(true)?;
        match client.write(&vec![0; UNACCEPTED]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    forget(listener);
    Ok(())
}

/// A set of watches over files.
fn watches() -> io::Result<()> {
    let set = call(libc::SYS_epoll_create1, [0.into()])?;
    for _ in 0..WATCHES {
        let file = call(libc::SYS_eventfd2, [0.into(), 0.into()])?;
        let [set, file] = [set, file].map(|descriptor| i64::try_from(descriptor).unwrap_or(-1));
        // `struct epoll_event`: readable.
        let event = [1; 12];
        call(
            libc::SYS_epoll_ctl,
            [
                set.into(),
                libc::EPOLL_CTL_ADD.into(),
                file.into(),
                Arg::Bytes(&event),
            ],
        )?;
    }
    Ok(())
}
