//! PID 1 of a machine in which `parent-agent dispatch` listens on real vsock: plays
//! the enclave and its agent, over the loopback (context identifier 1), and says
//! what it saw. `tests/e2e/dispatch.rs` starts it.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the console is how it is heard")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, ensure};
use link::{Endpoint, Stream, port};
use parent_agent::dispatch::{Registration, SOCKET};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// This machine itself (`VMADDR_CID_LOCAL`).
const LOCAL: u32 = 1;
/// Longer than anything takes, also where the machine is emulated.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// More than a socket's buffer.
const BYTES: usize = 1 << 20;
/// More than the kernel keeps in one piece, and less than the credit of a socket.
const LARGE: usize = 100_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    match run().await {
        Ok(()) => println!("guest: done"),
        Err(error) => println!("guest: failed: {error:#}"),
    }
    // The machine ends with its first process, once its console is written.
    sleep(Duration::from_millis(500)).await;
}

async fn run() -> anyhow::Result<()> {
    fs::create_dir_all("/run")?;
    let mut dispatcher = start()?;
    let mut agent = register().await?;
    let (mut enclave, (mut taken, cid)) = within("no connection is passed on", async {
        tokio::try_join!(connect(port::AGENT), agent.accept())
    })
    .await?;
    ensure!(cid == Some(LOCAL), "it comes from {cid:?}");
    ensure!(matches!(taken, Stream::Vsock(_)), "it is no vsock");
    let sent: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
    let mut received = vec![0; BYTES];
    within("the bytes do not arrive", async {
        tokio::try_join!(enclave.write_all(&sent), taken.read_exact(&mut received))
    })
    .await?;
    ensure!(received == sent, "other bytes");
    println!("guest: 1 MiB came over a connection that was passed on");

    // Nobody reads yet: the kernel has the small one beside a large one.
    let mut received = vec![0; LARGE + 1];
    within("there is no room for a packet", async {
        enclave.write_all(&vec![1; LARGE]).await?;
        enclave.write_u8(2).await?;
        taken.read_exact(&mut received).await
    })
    .await?;
    ensure!(
        received.pop() == Some(2) && received.iter().all(|&byte| byte == 1),
        "other bytes"
    );
    println!("guest: a small packet came after a large one");

    let mut unknown = connect(port::HEARTBEAT).await?;
    let answer = within("it is not closed", unknown.read(&mut [0])).await?;
    ensure!(answer == 0, "somebody answers");
    println!("guest: a connection without an agent was closed");

    dispatcher.kill()?;
    dispatcher.wait()?;
    ensure!(connect(port::AGENT).await.is_err(), "somebody listens");
    taken.write_u8(1).await?;
    let byte = within("a byte does not arrive", enclave.read_u8()).await?;
    ensure!(byte == 1, "another byte");
    println!("guest: the connection outlived the dispatcher");

    let mut next = start()?;
    let answered = async {
        loop {
            let (mut stream, _) = agent.accept().await?;
            // One that was tried while nobody listened is gone.
            if let Ok(byte) = stream.read_u8().await {
                stream.write_u8(byte + 1).await?;
                return anyhow::Ok(());
            }
        }
    };
    let asked = async {
        loop {
            let answer = async {
                let mut stream = connect(port::AGENT).await?;
                stream.write_u8(1).await?;
                stream.read_u8().await
            };
            match answer.await {
                Ok(2) => return,
                _ => sleep(PAUSE).await,
            }
        }
    };
    let (answered, ()) = timeout(LIMIT, async { tokio::join!(answered, asked) })
        .await
        .context("no agent again")?;
    answered?;
    println!("guest: the agent registered with the next dispatcher");
    next.kill()?;
    next.wait()?;
    Ok(())
}

fn start() -> io::Result<Child> {
    Command::new("/parent-agent").arg("dispatch").spawn()
}

async fn register() -> anyhow::Result<Registration> {
    let socket = Path::new(SOCKET);
    let there = async {
        while !socket.exists() {
            sleep(PAUSE).await;
        }
    };
    timeout(LIMIT, there).await.context("no dispatcher")?;
    Ok(Registration::open(socket, LOCAL, port::AGENT).await?)
}

/// What comes in time; else `failure` says what did not.
async fn within<T>(
    failure: &'static str,
    work: impl Future<Output = io::Result<T>>,
) -> anyhow::Result<T> {
    Ok(timeout(LIMIT, work).await.context(failure)??)
}

async fn connect(port: u32) -> io::Result<Stream> {
    link::connect(&Endpoint::Vsock { cid: LOCAL, port }, LIMIT).await
}
