//! The proxies that are compared, each in a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use enclave_tests::process;
use link::{Endpoint, Listener};
use log_spool::{Fsync, MIN_BYTES, Spool, SpoolOptions, WhenFull};
use parent_agent::channels::egress::Egress;
use parent_agent::channels::logs::Logs;
use parent_agent::channels::{Channels, Incoming};
use parent_agent::connect_to::ConnectTo;
use parent_agent::resolve::Resolver;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::load::{self, Way};
use crate::vsock_proxy;

/// Connections at a time: what `parent-agent run` allows.
const CONNECTIONS: usize = 4096;
/// Threads of the stand-in, unless it has those of the original: one for each
/// connection of the largest measurement.
const WORKERS: usize = 1024;
/// How long a proxy may take to close what its clients have closed.
const CLOSING: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// The field of memory that is a process's alone (proc(5)).
pub(crate) const OWN_MEMORY: &str = "RssAnon";

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The agent's.
    Ours,
    /// AWS's, or rather the stand-in for it, with a thread for each connection.
    VsockProxy,
    /// The same with the threads that AWS's has unless it is told otherwise.
    Installed,
    /// The stand-in with a buffer of this many KiB.
    Loop(usize),
    /// `socat`, with a process for each connection.
    Socat,
    /// None: the target itself.
    Direct,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Ours => "ours".to_owned(),
            Self::VsockProxy => "vsock-proxy".to_owned(),
            Self::Installed => "as installed".to_owned(),
            Self::Loop(kib) => format!("loop {kib} KiB"),
            Self::Socat => "socat".to_owned(),
            Self::Direct => "no proxy".to_owned(),
        }
    }
}

/// A proxy that runs; it ends with this.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) way: Way,
    child: Child,
}

impl Proxy {
    /// Starts one and waits until it takes connections.
    pub(crate) async fn start(
        kind: Kind,
        endpoint: Endpoint,
        target: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut command = match kind {
            Kind::Socat => socat(&endpoint, target),
            Kind::Direct => {
                let mut command = Command::new(std::env::current_exe()?);
                let address = load::free_address()?;
                command.args(["target", &address.to_string(), &endpoint.to_string()]);
                command
            }
            Kind::Ours | Kind::VsockProxy | Kind::Installed | Kind::Loop(_) => {
                let (kib, workers) = match kind {
                    Kind::Ours => (0, 0),
                    Kind::Loop(kib) => (kib, WORKERS),
                    Kind::Installed => (vsock_proxy::BUFFER / 1024, vsock_proxy::WORKERS),
                    _ => (vsock_proxy::BUFFER / 1024, WORKERS),
                };
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .arg("serve")
                    .args([kib, workers].map(|number| number.to_string()));
                command.args([endpoint.to_string(), target.to_string()]);
                command
            }
        };
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", kind.name()))?;
        let is_ours = kind == Kind::Ours;
        let way = Way { endpoint, is_ours };
        let proxy = Self { kind, way, child };
        proxy.way.wait().await.with_context(|| kind.name())?;
        Ok(proxy)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far, once it has closed every connection.
    pub(crate) async fn processor_time(&self) -> anyhow::Result<Duration> {
        if self.kind == Kind::Socat {
            let mut left = CLOSING;
            while !process::children(self.id()).is_empty() {
                left = left.checked_sub(POLL).context("socat does not end")?;
                sleep(POLL).await;
            }
        }
        process::processor_time(self.id())
    }

    /// Its own memory, with that of its children.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let mut sum = process::memory(self.id(), OWN_MEMORY)?;
        for child in process::children(self.id()) {
            sum += process::memory(child, OWN_MEMORY)?;
        }
        Ok(sum)
    }

    /// Waits until it holds no more descriptors than `count`; how many it holds.
    pub(crate) async fn closed(&self, count: usize) -> anyhow::Result<usize> {
        let mut left = CLOSING;
        loop {
            let found = process::descriptors(self.id())?;
            match left.checked_sub(POLL) {
                Some(rest) if found > count => left = rest,
                _ => return Ok(found),
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socat(endpoint: &Endpoint, target: SocketAddr) -> Command {
    let listen = match endpoint {
        Endpoint::Vsock { port, .. } => format!("VSOCK-LISTEN:{port},fork,backlog=1024"),
        Endpoint::Unix { path } | Endpoint::UnixConnect { path, .. } => {
            format!("UNIX-LISTEN:{},fork,backlog=1024", path.display())
        }
    };
    let mut command = Command::new("socat");
    command.args([listen, format!("TCP:{target},nodelay")]);
    command
}

/// Be one of the proxies that are in this program, until the process is killed.
pub(crate) fn serve(kib: &str, workers: &str, endpoint: &str, target: &str) -> anyhow::Result<()> {
    let (endpoint, target) = (endpoint.parse()?, target.parse()?);
    match kib.parse::<usize>()? {
        0 => crate::block_on(ours(&endpoint, target)),
        kib => vsock_proxy::serve(&endpoint, target, kib * 1024, workers.parse()?),
    }
}

/// The agent's port, served as `parent-agent run` serves it.
async fn ours(endpoint: &Endpoint, target: SocketAddr) -> anyhow::Result<()> {
    let rule = format!("{}:{}", load::HOST, load::PORT);
    let connect_to = ConnectTo {
        host: load::HOST.to_owned(),
        port: load::PORT,
        address: target,
    };
    let resolver = Resolver::from_system(&[connect_to]);
    let rules = vec![rule.parse().context("the rule")?];
    let folder = tempfile::tempdir()?;
    let options = SpoolOptions {
        max_bytes: MIN_BYTES,
        max_age: Duration::from_secs(60),
        when_full: WhenFull::Block,
        fsync: Fsync::Never,
    };
    let (spool, _) = Spool::open(Path::new(folder.path()), options)?;
    let (events, mut receiver) = mpsc::channel(1);
    let channels = Channels {
        events,
        logs: Arc::new(Logs::new(spool)),
        egress: Arc::new(Egress::new(rules, resolver, CONNECTIONS, None)),
        peer: None,
    };
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let incoming = Incoming::Own(Listener::bind(endpoint)?);
    Arc::new(channels).serve(incoming).await;
    bail!("the agent's port is closed")
}
