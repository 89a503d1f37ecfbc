//! Connections that end, stall or come in crowds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{SockaddrIn, setsockopt};
use rustix::net::sockopt::set_socket_linger;

use super::{PORT, connect_by_proxy, pattern, sleep};

/// What is allowed, by its name and by its address.
const NAME: (&str, u16) = ("peer.example", 443);
const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 7), 443);
/// A small packet.
const PACKET: usize = 64;
/// What a reader that sleeps has its kernel keep for it, at most.
const SMALL_BUFFER: usize = 4096;
/// How long it sleeps: longer than its peer takes to fill every buffer.
const NAP: Duration = Duration::from_secs(5);
/// How long an answer may take before a connection counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends so many bytes, waits until they have been read, and resets the connection.
fn break_off(mut stream: &TcpStream, count: usize) -> io::Result<()> {
    stream.write_all(&pattern(count))?;
    stream.read_exact(&mut [0])?;
    set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(())
}

/// Reads so many bytes, says that it has, and tells how the connection ends.
fn hear(mut stream: &TcpStream, count: usize) -> io::Result<String> {
    let mut heard = vec![0; count];
    stream.read_exact(&mut heard)?;
    stream.write_all(b".")?;
    Ok(match stream.read(&mut [0]) {
        Ok(0) => "an end".to_owned(),
        Ok(_) => "more".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    })
}

/// Breaks off every other connection, and says how the others end.
pub(super) fn serve_ends(count: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind(PORT)?;
    println!("listening");
    loop {
        break_off(&listener.accept()?.0, count)?;
        let end = hear(&listener.accept()?.0, count)?;
        println!("served: {end}");
    }
}

/// By each way to a destination, says how a connection ends, and breaks another off.
pub(super) fn ends(count: usize) -> anyhow::Result<()> {
    for way in ["name", "proxy", "address"] {
        let connect = || match way {
            "name" => Ok(TcpStream::connect(NAME)?),
            "address" => Ok(TcpStream::connect(ADDRESS)?),
            _ => connect_by_proxy(),
        };
        let end = hear(&connect()?, count)?;
        println!("{way}: {end}");
        break_off(&connect()?, count)?;
    }
    println!("broken off");
    sleep()
}

/// Sends so many small packets each way of each connection to the port, and reads them late.
pub(super) fn doze(count: usize) -> anyhow::Result<()> {
    let listener = small_listener()?;
    println!("listening");
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let sent = pattern(count * PACKET);
        let received = thread::scope(|scope| -> anyhow::Result<Vec<u8>> {
            let sending = scope.spawn(|| -> io::Result<()> {
                let mut packets = sent.chunks(PACKET);
                packets.try_for_each(|packet| (&stream).write_all(packet))
            });
            thread::park_timeout(NAP);
            let mut received = vec![0; sent.len()];
            (&stream).read_exact(&mut received)?;
            sending.join().ok().context("the sender panicked")??;
            Ok(received)
        })?;
        ensure!(received == sent, "other bytes have arrived");
        println!("woken");
    }
}

/// A listener whose connections have a small buffer: it must be small before they are there.
fn small_listener() -> anyhow::Result<TcpListener> {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket};
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&socket, RcvBuf, &SMALL_BUFFER)?;
    let SocketAddr::V4(address) = PORT.parse()? else {
        anyhow::bail!("the port is one of IPv4");
    };
    bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&socket, Backlog::new(1)?)?;
    Ok(socket.into())
}

/// Fills both directions at once of two connections to the port and of two of its own.
pub(super) fn full(count: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind(PORT)?;
    println!("listening");
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(listener.accept()?.0);
        streams.push(TcpStream::connect(NAME)?);
    }
    let sent = pattern(count);
    thread::scope(|scope| -> anyhow::Result<()> {
        let mut all = Vec::new();
        for stream in &streams {
            all.push(scope.spawn(|| (&*stream).write_all(&sent).map_err(Into::into)));
            all.push(scope.spawn(|| -> anyhow::Result<()> {
                let mut received = vec![0; sent.len()];
                (&*stream).read_exact(&mut received)?;
                ensure!(received == sent, "other bytes have arrived");
                Ok(())
            }));
        }
        for one in all {
            one.join().ok().context("a thread panicked")??;
        }
        Ok(())
    })?;
    println!("filled");
    sleep()
}

/// Opens so many connections at once, says something on each, and tells what became of them.
pub(super) fn crowd(count: usize) -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut streams = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..count {
        match TcpStream::connect(NAME) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                streams.push(stream);
            }
            // The reset may be there before the call returns.
            Err(error) => failures.push(error),
        }
    }
    let mut live = Vec::new();
    for mut stream in streams {
        let said = stream.write_all(b"x");
        match said.and_then(|()| stream.read_exact(&mut [0])) {
            Ok(()) => live.push(stream),
            Err(error) => failures.push(error),
        }
    }
    let is_reset = |error: &io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        )
    };
    let reset = failures.iter().filter(|error| is_reset(error)).count();
    let other = failures.iter().find(|error| !is_reset(error));
    let others = failures.len() - reset;
    // Those that were taken go on.
    for stream in &mut live {
        stream.write_all(b"y")?;
        stream.read_exact(&mut [0])?;
    }
    println!(
        "crowd: {} live, {reset} reset, {others} otherwise {other:?}",
        live.len()
    );
    sleep()
}
