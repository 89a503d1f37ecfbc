//! The guard's own process.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::prctl;
use nix::unistd::geteuid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::children::Children;
use super::family;
use super::protocol::{self, Answer, Event, MAX_OPENING, Opening, ProcessExit, Request, VERSION};
use crate::console::Console;
use crate::duration::milliseconds;
use crate::pulse::Pulse;
use crate::state::{self, GUARD_SOCKET};

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new connection may take to say what it wants, and to read the answer.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after an error that the next connection would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 4096;

/// Guards the enclave of `directory`: serves the agent on standard output, and
/// those that come after it, until one has the enclave ended or none comes in
/// time; then kills and removes everything.
pub async fn serve(directory: &Path) -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    // The agent decides when the enclave ends: a terminal's or a service
    // manager's signals are for it alone.
    let _ignored = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let lock = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let socket = StdUnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let first = Agent::new(UnixStream::from_std(socket)?);
    let listener = UnixListener::bind(directory.join(GUARD_SOCKET))?;

    let mut owner = Owner::new()?;
    let mut last = owner.live(first, &listener).await;
    // Nobody may attach to what is being removed.
    drop(listener);
    owner.children.give_up();
    let cleaned = match family::kill_all(KILL_TIMEOUT).await {
        Ok(()) => state::remove(directory, &lock),
        Err(error) => Err(error),
    };
    if let (Err(error), Some(agent)) = (&cleaned, &mut last) {
        let reason = error.to_string();
        // It may be gone.
        let _ = agent.tell(&Event::CleanUpFailed { reason }).await;
    }
    cleaned
}

/// A connection to an agent.
struct Agent {
    requests: BufReader<OwnedReadHalf>,
    events: OwnedWriteHalf,
}

impl Agent {
    fn new(stream: UnixStream) -> Self {
        let (requests, events) = stream.into_split();
        Self {
            requests: BufReader::new(requests),
            events,
        }
    }

    async fn tell(&mut self, event: &Event) -> io::Result<()> {
        self.events.write_all(&protocol::line(event)).await
    }

    async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let line = protocol::line(answer);
        timeout(OPENING_TIMEOUT, self.events.write_all(&line)).await?
    }

    async fn opening(&mut self) -> io::Result<Opening> {
        let mut line = Vec::new();
        let mut limited = (&mut self.requests).take(MAX_OPENING);
        timeout(OPENING_TIMEOUT, limited.read_until(b'\n', &mut line)).await??;
        Ok(serde_json::from_slice(&line)?)
    }
}

/// How an agent's time ended.
enum Left {
    /// It is gone.
    Gone,
    /// It wants the enclave ended.
    Finish,
}

/// What a new connection is for.
enum Next {
    /// Its agent takes the enclave over.
    Serve(Agent),
    /// It wants the enclave ended.
    End(Agent),
}

/// The owner of an enclave's processes.
struct Owner {
    start: Instant,
    children: Children,
    /// How processes have ended so far.
    exits: Vec<ProcessExit>,
    console: Console,
    /// The other end of what the processes print to, which does not block.
    printed: PipeReader,
    /// How many of the console's lines an agent was told.
    told: u64,
    /// How long the enclave goes on without an agent.
    keep: Option<Duration>,
    /// When it ends, unless an agent takes it over.
    deadline: Option<Instant>,
}

impl Owner {
    fn new() -> io::Result<Self> {
        let (printed, writer) = io::pipe()?;
        let console = Console::new(None);
        let pipe = pipe::Receiver::from_owned_fd(printed.try_clone()?.into())?;
        tokio::spawn(console.clone().read(pipe));
        Ok(Self {
            start: Instant::now(),
            children: Children::new(writer),
            exits: Vec::new(),
            console,
            printed,
            told: 0,
            keep: None,
            deadline: None,
        })
    }

    /// Serves one agent after the other. Returns the one that wants the end.
    async fn live(&mut self, first: Agent, listener: &UnixListener) -> Option<Agent> {
        let mut agent = first;
        loop {
            match self.serve(&mut agent, listener).await {
                Left::Finish => return Some(agent),
                Left::Gone => drop(agent),
            }
            let deadline = self.deadline?;
            let left = deadline.duration_since(Instant::now());
            info!(
                "the agent is gone; the enclave continues for {:.0} s without one",
                left.as_secs_f64()
            );
            match self.wait(listener).await {
                Some(Next::Serve(next)) => agent = next,
                Some(Next::End(next)) => return Some(next),
                None => {
                    warn!("no agent took the enclave over in time: it is ended");
                    return None;
                }
            }
        }
    }

    /// Serves an agent until it is gone or wants the end.
    async fn serve(&mut self, agent: &mut Agent, listener: &UnixListener) -> Left {
        let mut printed = self.console.subscribe();
        let mut position = 0;
        if self.tell_console(agent, &mut position).await.is_err() {
            return Left::Gone;
        }
        for exit in &self.exits {
            if agent.tell(&Event::Exited(exit.clone())).await.is_err() {
                return Left::Gone;
            }
        }
        let mut is_taken_over = false;
        let mut line = Vec::new();
        let left = loop {
            let told = tokio::select! {
                read = read_request(&mut agent.requests, &mut line) => {
                    let Ok(request) = read else {
                        break Left::Gone;
                    };
                    line.clear();
                    match request {
                        Request::Spawn(process) => {
                            let event = self.children.spawn(&process);
                            agent.tell(&event).await
                        }
                        Request::Keep { milliseconds } => {
                            is_taken_over = true;
                            self.keep = milliseconds.map(Duration::from_millis);
                            Ok(())
                        }
                        Request::Kill => {
                            self.children.kill();
                            Ok(())
                        }
                        Request::Finish => break Left::Finish,
                    }
                }
                Some(exit) = self.children.exited() => {
                    self.drain_console();
                    self.exits.push(exit.clone());
                    match self.tell_console(agent, &mut position).await {
                        Ok(()) => agent.tell(&Event::Exited(exit)).await,
                        failed => failed,
                    }
                }
                Ok(()) = printed.changed() => self.tell_console(agent, &mut position).await,
                accepted = listener.accept() => {
                    // One that comes before this one is known to be gone finds its
                    // connection closed, and tries again.
                    if accepted.is_err() {
                        sleep(ACCEPT_PAUSE).await;
                    }
                    Ok(())
                }
            };
            if told.is_err() {
                break Left::Gone;
            }
        };
        // One that came and left without taking over gives no further time.
        if is_taken_over {
            self.deadline = self.keep.and_then(|keep| Instant::now().checked_add(keep));
        }
        left
    }

    /// Waits for another connection, but no longer than to the deadline, which
    /// moves by the time in which this process was not run: an agent's machine
    /// that was stopped could not take the enclave over.
    async fn wait(&mut self, listener: &UnixListener) -> Option<Next> {
        let mut pulse = Pulse::start();
        loop {
            let now = Instant::now();
            if let (Some(lost), Some(deadline)) = (pulse.lost(now), &mut self.deadline) {
                *deadline = deadline.checked_add(lost).unwrap_or(*deadline);
            }
            let deadline = self.deadline?;
            if deadline <= now {
                return None;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        if let Ok(Some(next)) = self.greet(stream).await {
                            return Some(next);
                        }
                    }
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                Some(exit) = self.children.exited() => {
                    warn!("{exit} while no agent was there");
                    self.drain_console();
                    self.exits.push(exit);
                }
                () = sleep_until(deadline) => {}
                () = pulse.tick() => {}
            }
        }
    }

    /// Lets an agent say what it wants.
    async fn greet(&self, stream: UnixStream) -> io::Result<Option<Next>> {
        if !is_trusted(&stream) {
            return Ok(None);
        }
        let mut agent = Agent::new(stream);
        match agent.opening().await? {
            Opening::Attach { version: VERSION } => {
                let answer = Answer::Attached {
                    age_ms: milliseconds(self.start.elapsed()),
                    ended: !self.exits.is_empty(),
                };
                agent.answer(&answer).await?;
                Ok(Some(Next::Serve(agent)))
            }
            Opening::Attach { .. } => {
                let version = VERSION;
                agent.answer(&Answer::OtherVersion { version }).await?;
                Ok(None)
            }
            Opening::End => {
                agent.answer(&Answer::Ending).await?;
                Ok(Some(Next::End(agent)))
            }
        }
    }

    /// Tells an agent the lines from `position` on that are still kept.
    async fn tell_console(&mut self, agent: &mut Agent, position: &mut u64) -> io::Result<()> {
        let (lines, end) = self.console.since(*position);
        let first = end.saturating_sub(lines.len() as u64);
        // Lines that an earlier agent was told come first.
        let repeated = usize::try_from(self.told.saturating_sub(first)).unwrap_or(usize::MAX);
        let (old, new) = lines.split_at(repeated.min(lines.len()));
        for (lines, repeated) in [(old, true), (new, false)] {
            if !lines.is_empty() {
                let lines = lines.to_vec();
                agent.tell(&Event::Console { lines, repeated }).await?;
            }
        }
        *position = end;
        self.told = self.told.max(end);
        Ok(())
    }

    /// Reads what a process that has ended has printed.
    fn drain_console(&mut self) {
        let mut buffer = [0; READ_BYTES];
        while let Ok(count @ 1..) = self.printed.read(&mut buffer) {
            self.console
                .feed(buffer.get(..count).expect("it was read into the buffer"));
        }
        self.console.end_line();
    }
}

/// The next request; an error if the agent is gone or cannot be understood.
/// Cancellation safe as long as `line` is kept.
async fn read_request(
    requests: &mut BufReader<OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> io::Result<Request> {
    requests.read_until(b'\n', line).await?;
    Ok(serde_json::from_slice(line)?)
}

/// Whether a peer is of our own user, or of root. Nobody else can reach the
/// socket in its folder; this does not depend on that.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}
