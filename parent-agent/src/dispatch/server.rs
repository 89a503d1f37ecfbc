//! The dispatcher's side.

use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use link::{Listener, Stream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tracing::{info, warn};

use super::protocol::{Answer, Register, Socket, SocketListener, VERSION};
use super::table::{Counts, Table};
use crate::throttle::Line;

/// Most connections of agents. Each of the four that an instance can have needs
/// two, and may be replaced by the next.
const MAX_AGENTS: usize = 32;
const BACKLOG: i32 = 32;
/// How long an agent may take to say what it registers.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after an error that the next connection would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often closed connections are told of, if there were any.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Where connections of enclaves come from.
pub trait Accept: Send + 'static {
    /// The next connection, and the context identifier that it comes from.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Stream, Option<u32>)>> + Send;
}

impl Accept for Listener {
    async fn accept(&mut self) -> io::Result<(Stream, Option<u32>)> {
        Self::accept(self).await
    }
}

/// Passes connections on to the agents that register with it, until dropped.
#[derive(Debug)]
pub struct Dispatcher {
    table: Arc<Table>,
    /// They end with it.
    _tasks: JoinSet<()>,
}

impl Dispatcher {
    /// Listens for agents at `socket`, in a folder that nobody else can enter, and
    /// for enclaves on `ports`, each with its number.
    pub fn start<A: Accept>(socket: &Path, ports: Vec<(u32, A)>) -> io::Result<Self> {
        let table = Arc::new(Table::default());
        let mut tasks = JoinSet::new();
        let numbers = ports.iter().map(|(port, _)| *port).collect();
        let listener = SocketListener::bind(socket, BACKLOG)?;
        tasks.spawn(serve_agents(listener, numbers, Arc::clone(&table)));
        tasks.spawn(report(Arc::clone(&table)));
        for (port, listener) in ports {
            tasks.spawn(serve_port(port, listener, Arc::clone(&table)));
        }
        Ok(Self {
            table,
            _tasks: tasks,
        })
    }

    /// How many connections there were so far.
    pub fn counts(&self) -> Counts {
        self.table.counts()
    }
}

async fn serve_port(port: u32, mut listener: impl Accept, table: Arc<Table>) {
    loop {
        match listener.accept().await {
            Ok((stream, Some(cid))) => table.pass((cid, port), stream.as_fd()),
            Ok((_, None)) => {
                if Line::Stranger.may_be_written() {
                    warn!(port, "a connection from nowhere was closed");
                }
            }
            Err(error) => {
                warn!(port, %error, "cannot accept a connection of an enclave");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_agents(listener: SocketListener, ports: Vec<u32>, table: Arc<Table>) {
    let places = Arc::new(Semaphore::new(MAX_AGENTS));
    let ports: Arc<[u32]> = ports.into();
    let mut agents = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return pending().await;
        };
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                warn!(%error, "cannot accept an agent");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while agents.try_join_next().is_some() {}
        let (ports, table) = (Arc::clone(&ports), Arc::clone(&table));
        agents.spawn(async move {
            if let Err(reason) = serve_agent(socket, &ports, &table).await {
                warn!(reason, "an agent was refused");
            }
            drop(place);
        });
    }
}

/// Registers an agent, and forgets it once it is gone.
async fn serve_agent(socket: Socket, ports: &[u32], table: &Table) -> Result<(), String> {
    if !socket.is_trusted().map_err(|error| error.to_string())? {
        return Err("it is another user's".to_owned());
    }
    let socket = Arc::new(socket);
    let registered = match timeout(OPENING_TIMEOUT, socket.receive::<Register>()).await {
        Ok(Ok(Some(register))) => check(&register, ports).and_then(|key| {
            table.register(key, &socket)?;
            Ok(key)
        }),
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => Err(format!("what it says is not understood: {error}")),
        Err(_) => Err("it does not say what it registers".to_owned()),
    };
    let key = match registered {
        Ok(key) => key,
        Err(reason) => {
            let answer = Answer::Refused {
                reason: reason.clone(),
            };
            // It may be gone.
            let _ = socket.try_send(&answer);
            return Err(reason);
        }
    };
    let (cid, port) = key;
    info!(cid, port, "an agent has registered");
    // It says nothing more: whatever comes, it has ended.
    let _ = socket.receive::<Register>().await;
    table.forget(key, &socket);
    info!(cid, port, "an agent has gone");
    Ok(())
}

fn check(register: &Register, ports: &[u32]) -> Result<(u32, u32), String> {
    let Register { version, cid, port } = *register;
    if version != VERSION {
        return Err(format!(
            "the dispatcher speaks version {VERSION} of their protocol, the agent version {version}: restart enclave-vsock.service"
        ));
    }
    if !ports.contains(&port) {
        return Err(format!("the dispatcher does not listen on port {port}"));
    }
    Ok((cid, port))
}

/// Tells of connections that were closed, not of each.
async fn report(table: Arc<Table>) {
    let mut ticks = interval(REPORT_INTERVAL);
    let mut told = Counts::default();
    loop {
        ticks.tick().await;
        let counts = table.counts();
        let unknown = counts.unknown - told.unknown;
        if unknown > 0 {
            warn!(
                unknown,
                "connections of enclaves without an agent were closed"
            );
        }
        let untaken = counts.untaken - told.untaken;
        if untaken > 0 {
            warn!(
                untaken,
                "connections were closed that their agents did not take"
            );
        }
        told = counts;
    }
}
