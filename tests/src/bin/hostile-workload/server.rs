//! The commands' connections: a process for each, which ends with it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const PORT: u16 = 8080;
/// Longest command, in bytes.
const MAX_COMMAND: usize = 4096;
const POLL: Duration = Duration::from_millis(10);

/// A connection whose command has not arrived yet.
struct Pending {
    stream: TcpStream,
    command: Vec<u8>,
}

/// Serves for ever, also when there is no thread and no process to be had: the
/// connections are looked after by one loop.
pub(crate) fn serve() -> anyhow::Result<()> {
    // What was handed down, before anything else is opened.
    for (number, target) in descriptors() {
        println!("inherited {number} {target}");
    }
    let listener = TcpListener::bind(("127.0.0.1", PORT))?;
    listener.set_nonblocking(true)?;
    println!("listening");
    let mut pending: Vec<Pending> = Vec::new();
    loop {
        wait(&listener, &pending);
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                let command = Vec::new();
                pending.push(Pending { stream, command });
            }
        }
        pending = pending.into_iter().filter_map(read).collect();
    }
}

/// Waits until there is something to accept or to read.
fn wait(listener: &TcpListener, pending: &[Pending]) {
    let mut waiting: Vec<_> = std::iter::once(listener.as_fd())
        .chain(pending.iter().map(|pending| pending.stream.as_fd()))
        .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
        .collect();
    if poll(&mut waiting, PollTimeout::NONE).is_err() {
        thread::sleep(POLL);
    }
}

/// Reads what there is; nothing is left of a connection whose command is whole.
fn read(mut pending: Pending) -> Option<Pending> {
    let mut bytes = [0; 1024];
    match (&pending.stream).read(&mut bytes) {
        Ok(0) => return None,
        Ok(count) => pending.command.extend(bytes.iter().take(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(pending),
        Err(_) => return None,
    }
    if pending.command.last() == Some(&b'\n') {
        if let Err(error) = take(&pending) {
            // Whoever has gone needs no answer.
            let _ = writeln!(&pending.stream, "error {error:#}");
        }
        return None;
    }
    (pending.command.len() < MAX_COMMAND).then_some(pending)
}

/// The open descriptors of this process and what they lead to.
pub(crate) fn descriptors() -> Vec<(String, String)> {
    let folder = std::fs::read_dir("/proc/self/fd");
    let mut found = Vec::new();
    for entry in folder.into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.display().to_string();
        // The descriptor that the folder is read through.
        if !target.ends_with("/fd") {
            found.push((number, target));
        }
    }
    found.sort();
    found
}

fn take(Pending { stream, command }: &Pending) -> anyhow::Result<()> {
    let line = str::from_utf8(command)?.trim_end();
    let words: Vec<&str> = line.split(' ').collect();
    if words.first() == Some(&"say") {
        println!("{line}");
        writeln!(&*stream, "done")?;
        return Ok(());
    }
    if words.first() == Some(&"unread") {
        writeln!(&*stream, "done")?;
        std::mem::forget(stream.try_clone()?);
        return Ok(());
    }
    // The descriptions share the flag: a command may block.
    stream.set_nonblocking(false)?;
    let child = Command::new("/proc/self/exe")
        .args(&words)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(stream.try_clone()?))
        .spawn()?;
    let stream = stream.try_clone()?;
    let group = Pid::from_raw(child.id().cast_signed());
    let watching = thread::Builder::new().spawn(move || watch(child, &stream));
    if watching.is_err() {
        killpg(group, Signal::SIGKILL)?;
    }
    watching?;
    Ok(())
}

/// Waits for the end of the command or of its connection, and ends the other.
fn watch(mut child: Child, mut stream: &TcpStream) {
    let group = Pid::from_raw(child.id().cast_signed());
    let status = loop {
        match child.try_wait() {
            Ok(None) => {}
            ended => break ended.ok().flatten(),
        }
        if has_closed(stream) {
            break None;
        }
        thread::sleep(POLL);
    };
    if let Some(signal) = status.and_then(|status| status.signal()) {
        let _ = writeln!(stream, "killed {signal}");
    }
    // Until none is left: a process that forks meanwhile escapes one signal.
    while killpg(group, Signal::SIGKILL).is_ok() && status.is_none() {
        let _ = child.try_wait();
        thread::sleep(POLL);
    }
    let _ = child.wait();
}

/// Whether the client has closed its side, which it does only when it is done.
fn has_closed(stream: &TcpStream) -> bool {
    let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let is_ready = poll(&mut waiting, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    is_ready && !stream.peek(&mut [0]).is_ok_and(|count| count > 0)
}

/// A process that only waits, as one that keeps what it has taken does.
pub(crate) fn wait_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
