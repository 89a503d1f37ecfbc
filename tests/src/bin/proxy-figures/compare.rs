//! The proxies beside each other.

use std::net::SocketAddr;
use std::time::Duration;

use enclave_tests::process;
use link::Endpoint;

use crate::load::Way;
use crate::proxies::{Kind, Proxy};
use crate::{bound, row, verdict};

const MIB: u64 = 1024 * 1024;
/// Rounds of the bulk transfers, of which the best counts: what disturbs one is
/// not the proxy's.
const ROUNDS: usize = 3;

/// Those that are compared on the host.
pub(crate) const HOST: [Kind; 6] = [
    Kind::Ours,
    Kind::VsockProxy,
    Kind::Installed,
    Kind::Socat,
    Kind::Loop(256),
    Kind::Direct,
];
/// Those that are compared in the guest.
pub(crate) const GUEST: [Kind; 7] = [
    Kind::Ours,
    Kind::VsockProxy,
    Kind::Installed,
    Kind::Socat,
    Kind::Loop(28),
    Kind::Loop(256),
    Kind::Direct,
];

/// How much is done.
#[derive(Debug)]
pub(crate) struct Scale {
    bulk: u64,
    connections: usize,
    rates: &'static [u32],
    lasting: Duration,
    /// For an answer on one of the connections.
    patience: Duration,
    idle: bool,
    /// Whether `socat` has the memory for a process for each of the connections.
    forks: bool,
}

impl Scale {
    pub(crate) const HOST: Self = Self {
        bulk: 2048 * MIB,
        connections: 1000,
        rates: &[5000, 20_000],
        lasting: Duration::from_secs(4),
        patience: Duration::from_secs(5),
        idle: true,
        forks: true,
    };
    pub(crate) const GUEST: Self = Self {
        bulk: 64 * MIB,
        connections: 1000,
        rates: &[],
        lasting: Duration::from_secs(6),
        patience: Duration::from_secs(60),
        idle: false,
        forks: false,
    };
}

/// Proxies that run, and are measured in turn.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    proxies: Vec<Proxy>,
    /// The one that serves too few connections for all but one comparison.
    installed: Option<Proxy>,
}

/// What was measured of one.
#[derive(Debug, Default, Clone, Copy)]
struct Bulk {
    out: u64,
    into: u64,
    processor: Duration,
}

impl Comparison {
    pub(crate) async fn start(
        &mut self,
        kind: Kind,
        endpoint: Endpoint,
        target: SocketAddr,
    ) -> anyhow::Result<()> {
        let proxy = Proxy::start(kind, endpoint, target).await?;
        match kind {
            Kind::Installed => self.installed = Some(proxy),
            _ => self.proxies.push(proxy),
        }
        Ok(())
    }

    pub(crate) async fn measure(&self, scale: &Scale) -> anyhow::Result<()> {
        let kinds: Vec<_> = self.proxies.iter().map(|proxy| proxy.kind).collect();
        let names: Vec<_> = kinds
            .iter()
            .map(|&kind| (kind, Some(kind.name())))
            .collect();
        row("", &names);
        self.bulk(scale).await?;
        if scale.idle {
            self.idle(scale).await?;
        }
        for &rate in scale.rates {
            self.requests(scale, Some(rate)).await?;
        }
        self.requests(scale, None).await?;
        self.first_requests(scale).await
    }

    async fn bulk(&self, scale: &Scale) -> anyhow::Result<()> {
        let mut best = vec![Bulk::default(); self.proxies.len()];
        for round in 1..=ROUNDS {
            println!("  bulk, round {round} of {ROUNDS}");
            for (proxy, best) in self.proxies.iter().zip(&mut best) {
                let before = proxy.processor_time().await?;
                let out = per_second(scale.bulk, proxy.way.send(scale.bulk).await?);
                let into = per_second(scale.bulk, proxy.way.receive(scale.bulk).await?);
                best.out = best.out.max(out);
                best.into = best.into.max(into);
                best.processor += proxy.processor_time().await?.saturating_sub(before);
            }
        }
        let of = |figure: fn(&Bulk) -> u64| -> Vec<(Kind, Option<u64>)> {
            let figures = best.iter().map(|bulk| Some(figure(bulk)));
            self.proxies
                .iter()
                .map(|proxy| proxy.kind)
                .zip(figures)
                .collect()
        };
        let (out, into) = (of(|bulk| bulk.out / MIB), of(|bulk| bulk.into / MIB));
        row("one connection, out of the enclave: MiB/s", &out);
        row("one connection, into the enclave: MiB/s", &into);
        let bytes = scale.bulk * 2 * ROUNDS as u64;
        let processor = best.iter().map(|bulk| {
            let nanoseconds = u64::try_from(bulk.processor.as_nanos()).unwrap_or(u64::MAX);
            Some(nanoseconds / (bytes / 1024))
        });
        let processor: Vec<_> = self
            .proxies
            .iter()
            .map(|proxy| proxy.kind)
            .zip(processor)
            .collect();
        row("processor time for a KiB: ns", &processor);
        for (what, figures) in [("out of", &out), ("into", &into)] {
            let times = |kind| quotient(get(figures, kind), get(figures, Kind::VsockProxy));
            verdict(
                &format!("bulk {what} the enclave, of vsock-proxy's"),
                format!("{:.2} x", times(Kind::Ours)),
                ">= 3 x",
                times(Kind::Ours) >= 3.0,
            );
            bound(&format!("{:.2} x", times(Kind::Direct)));
        }
        let (own, other) = (
            get(&processor, Kind::Ours),
            get(&processor, Kind::VsockProxy),
        );
        verdict(
            "processor time, of vsock-proxy's",
            format!("{:.2} x", quotient(own, other)),
            "< 1 x",
            own < other,
        );
        Ok(())
    }

    async fn idle(&self, scale: &Scale) -> anyhow::Result<()> {
        let mut memory = Vec::new();
        let mut buffers = Vec::new();
        for proxy in &self.proxies {
            let before = (proxy.memory()?, process::tcp_buffers()?);
            let streams = proxy.way.idle(scale.connections).await?;
            let after = (proxy.memory()?, process::tcp_buffers()?);
            drop(streams);
            let each =
                |before: u64, after: u64| after.saturating_sub(before) / scale.connections as u64;
            memory.push((proxy.kind, Some(each(before.0, after.0))));
            buffers.push((proxy.kind, Some(each(before.1, after.1))));
            proxy.closed(64).await?;
        }
        row("memory of an idle connection: bytes", &memory);
        row("kernel's TCP buffers beside it: bytes", &buffers);
        let own = get(&memory, Kind::Ours);
        verdict(
            "memory of an idle connection",
            format!("{own} B"),
            "<= 16 KiB",
            own <= 16 * 1024,
        );
        Ok(())
    }

    async fn requests(&self, scale: &Scale, rate: Option<u32>) -> anyhow::Result<()> {
        let (mut half, mut most, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for proxy in &self.proxies {
            if proxy.kind == Kind::Socat && !scale.forks {
                half.push((proxy.kind, None));
                most.push((proxy.kind, None));
                done.push((proxy.kind, None));
                continue;
            }
            // Whoever waits for figures sees that they come.
            println!("  requests through {}", proxy.kind.name());
            let streams = proxy.way.idle(scale.connections).await?;
            let (latencies, streams) = Way::requests(streams, rate, scale.lasting).await?;
            drop(streams);
            let micros = |percent| {
                let time = latencies.percentile(percent).as_micros();
                Some(u64::try_from(time).unwrap_or(u64::MAX))
            };
            half.push((proxy.kind, micros(50)));
            most.push((proxy.kind, micros(99)));
            let count = latencies.count() as u64;
            done.push((proxy.kind, Some(count / scale.lasting.as_secs())));
        }
        let load = rate.map_or("at full load".to_owned(), |rate| format!("{rate}/s"));
        let what = format!("{} connections, {load}: ", scale.connections);
        row(&format!("{what}requests/s"), &done);
        row(&format!("{what}median, us"), &half);
        row(&format!("{what}p99, us"), &most);
        let of = |kind| quotient(get(&most, kind), get(&most, Kind::VsockProxy));
        let what = format!("p99 {load}, of vsock-proxy's with a thread for each");
        println!("{what:<55} {:.2} x", of(Kind::Ours));
        bound(&format!("{:.2} x", of(Kind::Direct)));
        Ok(())
    }

    /// Beside the original with the threads that it has by itself.
    async fn first_requests(&self, scale: &Scale) -> anyhow::Result<()> {
        let ours = self.proxies.iter().find(|proxy| proxy.kind == Kind::Ours);
        let (Some(ours), Some(installed)) = (ours, &self.installed) else {
            return Ok(());
        };
        let mut most = Vec::new();
        println!(
            "{} connections at once, a request on each",
            scale.connections
        );
        for proxy in [ours, installed] {
            let first = proxy.way.first_requests(scale.connections, scale.patience);
            let (latencies, missing) = first.await?;
            let time = latencies.percentile(99);
            println!(
                "  {:<20} {:>5} answered within {:?}, p99 {}{:.1} ms",
                proxy.kind.name(),
                scale.connections - missing,
                scale.patience,
                if missing * 100 > scale.connections {
                    "over "
                } else {
                    ""
                },
                time.as_secs_f64() * 1e3
            );
            most.push((proxy.kind, Some(u64::try_from(time.as_micros())?)));
        }
        let part = quotient(get(&most, Kind::Ours), get(&most, Kind::Installed));
        verdict(
            "p99 of them, of vsock-proxy's as installed",
            format!("{part:.2} x"),
            "<= 0.33 x",
            part * 3.0 <= 1.0,
        );
        Ok(())
    }
}

fn get(figures: &[(Kind, Option<u64>)], kind: Kind) -> u64 {
    let found = figures.iter().find(|(found, _)| *found == kind);
    found.and_then(|(_, value)| *value).unwrap_or_default()
}

fn per_second(bytes: u64, took: Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn quotient(of: u64, by: u64) -> f64 {
    of as f64 / (by.max(1)) as f64
}
