//! Which agent gets which connections, and how many were passed on.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::protocol::{Answer, Socket};

/// An enclave's context identifier, and a port.
pub(super) type Key = (u32, u32);

/// The registrations of all agents.
#[derive(Debug, Default)]
pub(super) struct Table {
    agents: Mutex<HashMap<Key, Arc<Socket>>>,
    passed: AtomicU64,
    unknown: AtomicU64,
    untaken: AtomicU64,
}

/// How many connections there were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Passed on to an agent.
    pub passed: u64,
    /// Closed, since no agent has registered the enclave.
    pub unknown: u64,
    /// Closed, since the agent does not take its connections.
    pub untaken: u64,
}

impl Table {
    fn agents(&self) -> MutexGuard<'_, HashMap<Key, Arc<Socket>>> {
        // It is whole between any two statements.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers an agent and tells it so, unless another one that lives has the
    /// same connections.
    pub(super) fn register(&self, key: Key, agent: &Arc<Socket>) -> Result<(), String> {
        let mut agents = self.agents();
        if agents.get(&key).is_some_and(|other| !other.is_closed()) {
            let (cid, port) = key;
            return Err(format!(
                "another agent has the connections of the enclave with context identifier {cid} to port {port}"
            ));
        }
        // Before its first connection.
        agent
            .try_send(&Answer::Registered)
            .map_err(|error| error.to_string())?;
        agents.insert(key, Arc::clone(agent));
        Ok(())
    }

    /// Forgets an agent, if it has not been replaced.
    pub(super) fn forget(&self, key: Key, agent: &Arc<Socket>) {
        let mut agents = self.agents();
        if agents
            .get(&key)
            .is_some_and(|known| Arc::ptr_eq(known, agent))
        {
            agents.remove(&key);
        }
    }

    /// Passes a connection on to its agent, or counts why not. Never waits.
    pub(super) fn pass(&self, key: Key, connection: BorrowedFd<'_>) {
        let agent = self.agents().get(&key).cloned();
        let Some(agent) = agent else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match agent.try_pass(connection) {
            Ok(()) => self.passed.fetch_add(1, Ordering::Relaxed),
            Err(error) if is_full(&error) => self.untaken.fetch_add(1, Ordering::Relaxed),
            Err(_) => {
                self.forget(key, &agent);
                self.unknown.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            passed: self.passed.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            untaken: self.untaken.load(Ordering::Relaxed),
        }
    }
}

/// Whether an agent has left its connections in the socket for too long: the
/// socket's buffer is full, or the user has as many descriptors on their way as
/// the kernel allows.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(
            error.raw_os_error().map(Errno::from_raw_os_error),
            Some(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM)
        )
}
