//! The client in front of the proxies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use link::frame::{self, MAX_TARGET};
use link::target::{Connect, Reply};
use link::{Channel, Endpoint, Stream, Text, hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::target::{self, Order};

/// The name that our proxy is asked for.
pub(crate) const HOST: &str = "target.example";
pub(crate) const PORT: u16 = 443;
/// Bytes of a request, and of its answer.
const REQUEST: usize = 64;
const LIMIT: Duration = Duration::from_secs(30);
/// Connections that are opened at a time.
const OPENING: usize = 64;

/// A proxy, as its clients see it.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) endpoint: Endpoint,
    /// Whether it is told where to connect to.
    pub(crate) is_ours: bool,
}

/// How long requests took, in order.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = self.0.len() * percent / 100;
        self.0.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Way {
    /// A connection to the target.
    pub(crate) async fn open(&self, order: Order) -> anyhow::Result<Stream> {
        let mut stream = link::connect(&self.endpoint, LIMIT).await?;
        if self.is_ours {
            hello::open(&mut stream, Channel::Egress).await?;
            let connect = Connect {
                host: Text::new(HOST),
                port: PORT,
            };
            frame::write(&mut stream, &connect, MAX_TARGET).await?;
            let reply: Reply = frame::read(&mut stream, MAX_TARGET).await?;
            ensure!(reply == Reply::Connected, "{reply:?}");
        }
        stream.write_all(&order.encode()).await?;
        Ok(stream)
    }

    /// Sends bytes to the target over one connection; how long that took.
    pub(crate) async fn send(&self, count: u64) -> anyhow::Result<Duration> {
        let mut stream = self.open(Order::Take(count)).await?;
        let start = Instant::now();
        target::write(&mut stream, count).await?;
        stream.read_exact(&mut [0]).await?;
        Ok(start.elapsed())
    }

    /// Has bytes sent by the target over one connection.
    pub(crate) async fn receive(&self, count: u64) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut stream = self.open(Order::Give(count)).await?;
        target::read(&mut stream, count).await?;
        Ok(start.elapsed())
    }

    /// Connections that have each carried a request, and carry nothing more.
    pub(crate) async fn idle(&self, count: usize) -> anyhow::Result<Vec<Stream>> {
        let mut opening = JoinSet::new();
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let way = self.clone();
            opening.spawn(async move {
                let mut stream = way.open(Order::Echo).await?;
                request(&mut stream).await?;
                anyhow::Ok(stream)
            });
            if opening.len() >= OPENING {
                streams.push(opening.join_next().await.context("none")???);
            }
        }
        while let Some(stream) = opening.join_next().await {
            streams.push(stream??);
        }
        Ok(streams)
    }

    /// Requests on each of the connections, one after the other, for a while.
    pub(crate) async fn requests(
        streams: Vec<Stream>,
        lasting: Duration,
    ) -> anyhow::Result<(Latencies, Vec<Stream>)> {
        let mut asking = JoinSet::new();
        let end = Instant::now() + lasting;
        for mut stream in streams {
            asking.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let start = Instant::now();
                    if start >= end {
                        return anyhow::Ok((took, stream));
                    }
                    request(&mut stream).await?;
                    took.push(start.elapsed());
                }
            });
        }
        let (mut all, mut streams) = (Vec::new(), Vec::new());
        while let Some(done) = asking.join_next().await {
            let (took, stream) = done??;
            all.extend(took);
            streams.push(stream);
        }
        all.sort_unstable();
        Ok((Latencies(all), streams))
    }

    /// Opens, uses and closes connections, so many at a time.
    pub(crate) async fn churn(&self, count: usize, at_a_time: usize) -> anyhow::Result<()> {
        let mut open = JoinSet::new();
        for _ in 0..count {
            let way = self.clone();
            open.spawn(async move {
                let mut stream = way.open(Order::Echo).await?;
                request(&mut stream).await
            });
            if open.len() >= at_a_time {
                open.join_next().await.context("none")???;
            }
        }
        while let Some(done) = open.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Waits until the proxy takes connections.
    pub(crate) async fn wait(&self) -> anyhow::Result<()> {
        let ready = async {
            while self.churn(1, 1).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, ready).await.context("it does not listen")
    }
}

async fn request(stream: &mut Stream) -> anyhow::Result<()> {
    let mut answer = [0; REQUEST];
    let exchange = async {
        stream.write_all(&[7; REQUEST]).await?;
        stream.read_exact(&mut answer).await
    };
    exchange.await?;
    ensure!(answer == [7; REQUEST], "another answer");
    Ok(())
}

/// Where the target listens.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
