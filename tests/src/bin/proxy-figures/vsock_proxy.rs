//! A stand-in for AWS's `vsock-proxy`, which is on no package registry, and the
//! same loop with a larger buffer.
//!
//! What it does is what the published source does
//! (<https://github.com/aws/aws-nitro-enclaves-cli/blob/05be3c386fc0154744ef12b7867d8d39355e96c7/vsock_proxy/src/proxy.rs>):
//! a pool of threads, one for each connection; on each a connection to a fixed
//! address, and then a loop that waits until either socket can be read, reads at
//! most 8 KiB of it into a buffer on the stack, and writes all of that to the
//! other, waiting until it has gone. The end of either direction ends both.
//!
//! It differs where the original could not take part: it waits with `poll`, since
//! `select` knows no descriptor above 1023, so 1,000 connections would end it; where
//! connections are compared that all carry something, it has a thread for each (the
//! original has 4 unless told otherwise, and serves that many connections at a time);
//! it listens on Unix sockets too; and it resolves no name, which costs it nothing
//! here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, bail};
use link::Endpoint;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vsock::{VsockAddr, VsockListener};

/// The original's `BUFF_SIZE`.
pub(crate) const BUFFER: usize = 8192;
/// The original's `--num_workers`, unless it is given.
pub(crate) const WORKERS: usize = 4;

/// A connection from the enclave.
trait Client: Read + Write + AsFd + Send + Sync {}

impl<T: Read + Write + AsFd + Send + Sync> Client for T {}

type Queue = Arc<Mutex<Receiver<Box<dyn Client>>>>;

/// Serves `endpoint` with `workers` threads until the process is killed.
pub(crate) fn serve(
    endpoint: &Endpoint,
    target: SocketAddr,
    buffer: usize,
    workers: usize,
) -> anyhow::Result<()> {
    let (sender, receiver) = channel();
    let queue = Arc::new(Mutex::new(receiver));
    for _ in 0..workers {
        let queue = Arc::clone(&queue);
        thread::spawn(move || work(&queue, target, buffer));
    }
    match endpoint {
        Endpoint::Unix { path } => {
            let listener = UnixListener::bind(path)?;
            loop {
                sender.send(Box::new(listener.accept()?.0))?;
            }
        }
        Endpoint::Vsock { cid, port } => {
            let listener = VsockListener::bind(&VsockAddr::new(*cid, *port))?;
            loop {
                sender.send(Box::new(listener.accept()?.0))?;
            }
        }
        Endpoint::UnixConnect { .. } => bail!("{endpoint} cannot be listened on"),
    }
}

fn work(queue: &Queue, target: SocketAddr, buffer: usize) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut client) = next else {
            return;
        };
        // The end of one connection is not the end of its thread.
        let _ = carry(&mut *client, target, buffer);
    }
}

fn carry(client: &mut dyn Client, target: SocketAddr, buffer: usize) -> anyhow::Result<()> {
    let mut server = TcpStream::connect(target).context("cannot connect")?;
    // Only what is larger than the original's is kept between two reads.
    let mut large = vec![0; if buffer > BUFFER { buffer } else { 0 }];
    let mut disconnected = false;
    while !disconnected {
        let (from_client, from_server) = {
            let mut set = [
                PollFd::new(client.as_fd(), PollFlags::POLLIN),
                PollFd::new(server.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut set, PollTimeout::NONE)?;
            let [client, server] = set.map(|entry| entry.any().unwrap_or(true));
            (client, server)
        };
        if from_client {
            disconnected = transfer(client, &mut server, &mut large);
        }
        if from_server {
            disconnected = transfer(&mut server, client, &mut large);
        }
    }
    Ok(())
}

/// Passes on what one read gives. Whether the connection is over.
fn transfer(
    from: &mut (impl Read + ?Sized),
    to: &mut (impl Write + ?Sized),
    large: &mut [u8],
) -> bool {
    let mut small = [0; BUFFER];
    let buffer = if large.is_empty() { &mut small } else { large };
    let count = from.read(buffer).unwrap_or(0);
    let bytes = buffer.get(..count).unwrap_or_default();
    bytes.is_empty() || to.write_all(bytes).is_err()
}
