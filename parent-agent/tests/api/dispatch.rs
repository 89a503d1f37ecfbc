//! The dispatcher of vsock connections, with Unix sockets for vsock: whoever
//! connects says first which context identifier it has.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use link::{Endpoint, Listener, Stream};
use parent_agent::dispatch::{Accept, Dispatcher, Registration, RegistrationError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::agent::LIMIT;

const AGENT: u32 = 7000;
const HEARTBEAT: u32 = 9000;
const CIDS: [u32; 4] = [16, 17, 1_000_000, 1 << 30];

/// A port of the instance.
struct Port(Listener);

impl Port {
    fn bind(folder: &Path, port: u32) -> (u32, Self) {
        let path = port_path(folder, port);
        // One that was killed has left it.
        let _ = std::fs::remove_file(&path);
        (
            port,
            Self(Listener::bind(&Endpoint::Unix { path }).unwrap()),
        )
    }
}

impl Accept for Port {
    async fn accept(&mut self) -> io::Result<(Stream, Option<u32>)> {
        let (mut stream, _) = self.0.accept().await?;
        let cid = stream.read_u32().await?;
        Ok((stream, Some(cid)))
    }
}

fn port_path(folder: &Path, port: u32) -> PathBuf {
    folder.join(format!("port_{port}"))
}

/// An instance with a dispatcher.
struct Instance {
    folder: TempDir,
    dispatcher: Option<Dispatcher>,
}

impl Instance {
    fn new() -> Self {
        let mut instance = Self {
            folder: tempfile::tempdir().unwrap(),
            dispatcher: None,
        };
        instance.start();
        instance
    }

    fn start(&mut self) {
        let folder = self.folder.path();
        let ports = vec![Port::bind(folder, AGENT), Port::bind(folder, HEARTBEAT)];
        self.dispatcher = Some(Dispatcher::start(&self.socket(), ports).unwrap());
    }

    /// Everything that a process has goes when it is killed, but files.
    async fn kill(&mut self) {
        self.dispatcher = None;
        // The tasks are dropped by the runtime.
        sleep(Duration::from_millis(1)).await;
    }

    fn dispatcher(&self) -> &Dispatcher {
        self.dispatcher.as_ref().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("dispatch.sock")
    }

    async fn register(&self, cid: u32, port: u32) -> Registration {
        Registration::open(&self.socket(), cid, port).await.unwrap()
    }

    /// Connects as the enclave does.
    async fn connect(&self, cid: u32, port: u32) -> Stream {
        let path = port_path(self.folder.path(), port);
        let mut stream = link::connect(&Endpoint::Unix { path }, LIMIT)
            .await
            .unwrap();
        stream.write_u32(cid).await.unwrap();
        stream
    }

    async fn until_counted(&self, condition: impl Fn(u64, u64, u64) -> bool) {
        let held = async {
            loop {
                let counts = self.dispatcher().counts();
                if condition(counts.passed, counts.unknown, counts.untaken) {
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LIMIT, held).await.expect("it was not counted");
    }
}

async fn next(registration: &mut Registration) -> (Stream, u32) {
    let (stream, cid) = timeout(LIMIT, registration.accept())
        .await
        .unwrap()
        .unwrap();
    (stream, cid.unwrap())
}

/// An agent that answers each connection with a name.
fn answer(mut registration: Registration, name: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = registration.accept().await.unwrap();
            // Whoever connected may have gone.
            let _ = stream.write_u64(name).await;
        }
    })
}

/// Who answers, if anybody.
async fn asked(mut stream: Stream) -> Option<u64> {
    timeout(LIMIT, stream.read_u64()).await.unwrap().ok()
}

#[tokio::test]
async fn dispatch_connects_four_enclaves_each_to_its_own_agent() {
    let instance = Instance::new();
    let mut agents = Vec::new();
    for cid in CIDS {
        for port in [AGENT, HEARTBEAT] {
            let registration = instance.register(cid, port).await;
            agents.push(answer(registration, u64::from(cid) << 32 | u64::from(port)));
        }
    }
    for round in 0..20 {
        for cid in CIDS {
            for port in [AGENT, HEARTBEAT] {
                let stream = instance.connect(cid, port).await;
                let expected = u64::from(cid) << 32 | u64::from(port);
                assert_eq!(asked(stream).await, Some(expected), "round {round}");
            }
        }
    }
    assert_eq!(instance.dispatcher().counts().passed, 160);
    for agent in agents {
        agent.abort();
    }
}

#[tokio::test]
async fn dispatch_connections_carry_both_ways_and_survive_it() {
    let mut instance = Instance::new();
    let mut registration = instance.register(16, AGENT).await;
    let mut enclave = instance.connect(16, AGENT).await;
    let (mut agent, cid) = next(&mut registration).await;
    assert_eq!(cid, 16);
    instance.kill().await;
    enclave.write_u64(1).await.unwrap();
    assert_eq!(agent.read_u64().await.unwrap(), 1);
    agent.write_u64(2).await.unwrap();
    assert_eq!(enclave.read_u64().await.unwrap(), 2);
    // The end arrives too: the dispatcher has kept nothing of it.
    drop(agent);
    assert_eq!(enclave.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn dispatch_agents_register_again_with_the_next_dispatcher() {
    let mut instance = Instance::new();
    for round in 0..3 {
        let mut agents = Vec::new();
        for cid in CIDS {
            let registration = instance.register(cid, AGENT).await;
            agents.push(answer(registration, u64::from(cid)));
        }
        for _ in 0..3 {
            instance.kill().await;
            instance.start();
            for cid in CIDS {
                // As the init does, until there is an agent again.
                let answered = async {
                    loop {
                        let stream = instance.connect(cid, AGENT).await;
                        match asked(stream).await {
                            Some(name) => return name,
                            None => sleep(Duration::from_millis(5)).await,
                        }
                    }
                };
                let name = timeout(LIMIT, answered).await.unwrap();
                assert_eq!(name, u64::from(cid), "round {round}");
            }
        }
        for agent in agents {
            agent.abort();
            let _ = agent.await;
        }
    }
}

#[tokio::test]
async fn dispatch_place_of_a_killed_agent_is_free_for_the_next_and_no_other() {
    let instance = Instance::new();
    let other = answer(instance.register(17, AGENT).await, 17);
    for name in 0..5 {
        let registration = instance.register(16, AGENT).await;
        let agent = answer(registration, name);
        let stream = instance.connect(16, AGENT).await;
        assert_eq!(asked(stream).await, Some(name));
        agent.abort();
        let _ = agent.await;
        // The next one does not wait until the dispatcher has noticed.
    }
    let stream = instance.connect(16, AGENT).await;
    assert_eq!(asked(stream).await, None);
    let stream = instance.connect(17, AGENT).await;
    assert_eq!(asked(stream).await, Some(17));
    other.abort();
}

#[tokio::test]
async fn dispatch_refuses_a_second_agent_for_an_enclave() {
    let instance = Instance::new();
    let first = answer(instance.register(16, AGENT).await, 1);
    let error = Registration::open(&instance.socket(), 16, AGENT)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RegistrationError::Refused(_)), "{text}");
    assert!(
        text.contains("another agent") && text.contains("16"),
        "{text}"
    );
    let stream = instance.connect(16, AGENT).await;
    assert_eq!(asked(stream).await, Some(1));
    // A port that it does not have, too.
    let error = Registration::open(&instance.socket(), 16, 80)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("port 80"), "{error}");
    first.abort();
}

#[tokio::test]
async fn dispatch_closes_and_counts_a_flood_from_an_unknown_enclave() {
    let instance = Instance::new();
    let agent = answer(instance.register(16, AGENT).await, 16);
    for _ in 0..20 {
        for _ in 0..50 {
            drop(instance.connect(99, AGENT).await);
        }
        let stream = instance.connect(16, AGENT).await;
        assert_eq!(asked(stream).await, Some(16));
    }
    instance
        .until_counted(|passed, unknown, untaken| (passed, unknown, untaken) == (20, 1000, 0))
        .await;
    agent.abort();
}

#[tokio::test]
async fn dispatch_agent_that_takes_nothing_holds_up_nobody() {
    let instance = Instance::new();
    let mut slow = instance.register(16, AGENT).await;
    let quick = answer(instance.register(17, AGENT).await, 17);
    let mut waiting = Vec::new();
    while instance.dispatcher().counts().untaken < 10 {
        waiting.push(instance.connect(16, AGENT).await);
        let stream = instance.connect(17, AGENT).await;
        assert_eq!(asked(stream).await, Some(17));
        assert!(waiting.len() < 5000, "the queue has no bound");
    }
    // Once it goes on, it gets those that were not closed, and new ones.
    let all = waiting.len() as u64;
    instance
        .until_counted(|passed, _, untaken| passed + untaken == 2 * all)
        .await;
    for _ in 0..instance.dispatcher().counts().passed - all {
        next(&mut slow).await;
    }
    let mut enclave = instance.connect(16, AGENT).await;
    let (mut stream, _) = next(&mut slow).await;
    stream.write_u8(1).await.unwrap();
    assert_eq!(enclave.read_u8().await.unwrap(), 1);
    quick.abort();
}

#[tokio::test]
async fn dispatch_agent_that_says_nothing_or_nonsense_is_in_nobodys_way() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let instance = Instance::new();
    let raw = || {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .unwrap();
        let address = SocketAddrUnix::new(instance.socket()).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        socket
    };
    let silent = raw();
    for nonsense in [&b"x"[..], b"{}", &[0xff; 2000]] {
        let socket = raw();
        let none = rustix::net::SendFlags::empty();
        rustix::net::send(&socket, nonsense, none).unwrap();
        let agent = answer(instance.register(16, AGENT).await, 1);
        let stream = instance.connect(16, AGENT).await;
        assert_eq!(asked(stream).await, Some(1));
        agent.abort();
        let _ = agent.await;
    }
    drop(silent);
}

#[tokio::test]
async fn dispatch_is_waited_for_by_an_agent_that_starts_first() {
    let mut instance = Instance::new();
    instance.kill().await;
    // The socket's file is there, as after a crash.
    let registration = instance.register(16, AGENT).await;
    instance.start();
    let agent = answer(registration, 7);
    let answered = async {
        while asked(instance.connect(16, AGENT).await).await != Some(7) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, answered).await.unwrap();
    agent.abort();
}

/// Fails as a listener does that has no descriptors left, and then no more.
struct Failing(u32, Port);

impl Accept for Failing {
    async fn accept(&mut self) -> io::Result<(Stream, Option<u32>)> {
        if self.0 > 0 {
            self.0 -= 1;
            return Err(io::ErrorKind::Other.into());
        }
        self.1.accept().await
    }
}

#[tokio::test]
async fn dispatch_listens_again_on_a_port_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (number, port) = Port::bind(folder.path(), AGENT);
    let socket = folder.path().join("dispatch.sock");
    let dispatcher = Dispatcher::start(&socket, vec![(number, Failing(2, port))]).unwrap();
    let agent = answer(Registration::open(&socket, 16, AGENT).await.unwrap(), 16);
    let path = port_path(folder.path(), AGENT);
    let mut stream = link::connect(&Endpoint::Unix { path }, LIMIT)
        .await
        .unwrap();
    stream.write_u32(16).await.unwrap();
    assert_eq!(asked(stream).await, Some(16));
    agent.abort();
    drop(dispatcher);
}
