//! Pipes through which the kernel moves bytes from socket to socket (splice(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Bytes that a pipe is asked to hold: no more than any process may ask for
/// (`/proc/sys/fs/pipe-max-size`, 1 MiB).
const CAPACITY: usize = 512 * 1024;
const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// A pipe for one direction of a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    held: usize,
}

impl Pipe {
    /// A pipe; `None` if this process has too many descriptors, or its user too many
    /// bytes in pipes.
    pub(super) fn new() -> Option<Self> {
        let (output, input) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        fcntl_setpipe_size(&input, CAPACITY).ok()?;
        Some(Self {
            output,
            input,
            held: 0,
        })
    }

    /// Bytes that are in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves into it what a socket has; 0 at the socket's end. Only for an empty pipe:
    /// "no bytes" and "no room" are the same error.
    pub(super) fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let count = splice(from, None, &self.input, None, CAPACITY, FLAGS)?;
        self.held += count;
        Ok(count)
    }

    /// Moves from it what a socket has room for.
    pub(super) fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let count = splice(&self.output, None, to, None, self.held, FLAGS)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}
