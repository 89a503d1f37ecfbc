//! The workload's network namespace, from its process and from the init.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};

/// The workload's network namespace, and the way back.
#[derive(Debug)]
pub(crate) struct Namespace {
    own: OwnedFd,
    workloads: OwnedFd,
}

impl Namespace {
    pub(super) fn new(own: OwnedFd, workloads: OwnedFd) -> Self {
        Self { own, workloads }
    }

    /// Moves this process, the workload's between fork and exec, there. Only a system call.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.workloads, CloneFlags::CLONE_NEWNET)?)
    }

    /// Does something there, on this thread, and returns. What takes its time would do it
    /// in the workload's network.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        self.enter()?;
        let done = work();
        // What the init opened from here on would be open to the workload.
        setns(&self.own, CloneFlags::CLONE_NEWNET)
            .expect("the init's own network namespace can be entered again");
        Ok(done)
    }

    /// A connection to an address of the workload's.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.within(|| match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })??;
        socket.connect(address).await
    }
}
