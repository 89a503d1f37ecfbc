//! The client in front of the proxies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use link::frame::{self, MAX_TARGET};
use link::target::{Connect, Reply};
use link::{Channel, Endpoint, Stream, Text, hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

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

    /// As many connections, all open at once, with a request on each: how long their
    /// answers took from the start, and how many had none for that long.
    pub(crate) async fn first_requests(
        &self,
        count: usize,
        patience: Duration,
    ) -> anyhow::Result<(Latencies, usize)> {
        let start = Instant::now();
        let end = start + patience;
        let mut asking = JoinSet::new();
        let opening = Arc::new(Semaphore::new(OPENING));
        for _ in 0..count {
            let (way, opening) = (self.clone(), Arc::clone(&opening));
            asking.spawn(async move {
                let asked = timeout_at(end.into(), async {
                    let permit = opening.acquire().await?;
                    let mut stream = way.open(Order::Echo).await?;
                    drop(permit);
                    request(&mut stream).await?;
                    anyhow::Ok((start.elapsed(), stream))
                });
                // Refused or broken off is not answered either.
                asked.await.ok()?.ok()
            });
        }
        // None that was answered is closed before all have been, or are given up.
        let (mut all, mut streams) = (Vec::new(), Vec::new());
        while let Some(done) = asking.join_next().await {
            if let Some((took, stream)) = done? {
                all.push(took);
                streams.push(stream);
            }
        }
        let missing = count.saturating_sub(all.len());
        all.resize(count, patience);
        all.sort_unstable();
        Ok((Latencies(all), missing))
    }

    /// Requests on each of the connections for a while: all together so many a
    /// second, or without a rate each as soon as it has its answer.
    pub(crate) async fn requests(
        streams: Vec<Stream>,
        rate: Option<u32>,
        lasting: Duration,
    ) -> anyhow::Result<(Latencies, Vec<Stream>)> {
        let mut asking = JoinSet::new();
        let count = u32::try_from(streams.len())?;
        let period = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * count / rate);
        let start = Instant::now();
        for (number, stream) in (0..count).zip(streams) {
            let first = start + period * number / count;
            asking.spawn(ask(stream, first, period, start + lasting));
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
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, ready).await.context("it does not listen")
    }
}

/// Requests of one connection, one a period. One that is late because the answer
/// before it was late has waited since it was due.
async fn ask(
    mut stream: Stream,
    first: Instant,
    period: Duration,
    end: Instant,
) -> anyhow::Result<(Vec<Duration>, Stream)> {
    let (mut took, mut due) = (Vec::new(), first);
    while due < end {
        let mut start = due;
        if Instant::now() < due {
            sleep_until(due.into()).await;
            start = Instant::now();
        }
        request(&mut stream).await?;
        took.push(start.elapsed());
        due = if period.is_zero() {
            Instant::now()
        } else {
            due + period
        };
    }
    Ok((took, stream))
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
