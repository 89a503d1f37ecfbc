//! Our proxy alone: that it keeps nothing of the connections that it had.

use std::net::SocketAddr;

use enclave_tests::process;
use link::Endpoint;

use crate::proxies::{Kind, OWN_MEMORY, Proxy};
use crate::verdict;

const KIB: u64 = 1024;
/// Connections that are open at a time.
const AT_A_TIME: usize = 64;
/// Connections opened, used and closed.
const CONNECTIONS: usize = 10_000;
/// A day of an enclave that opens this many connections a second, one after the
/// other without the pauses between them.
const A_SECOND: usize = 2;
const DAY: usize = 24 * 60 * 60;
/// What memory may differ by: an allocator's own.
const MARGIN: u64 = 512 * KIB;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    memory: u64,
}

pub(crate) async fn measure(endpoint: Endpoint, target: SocketAddr) -> anyhow::Result<()> {
    let proxy = Proxy::start(Kind::Ours, endpoint, target).await?;
    // What it keeps for good, it has after these.
    proxy.way.churn(CONNECTIONS / 10, AT_A_TIME).await?;
    let start = held(&proxy, 0).await?;
    proxy.way.churn(CONNECTIONS, AT_A_TIME).await?;
    let after = held(&proxy, start.descriptors).await?;
    report(&format!("{CONNECTIONS} connections"), start, after);
    let count = A_SECOND * DAY;
    proxy.way.churn(count, AT_A_TIME).await?;
    let end = held(&proxy, start.descriptors).await?;
    let what = format!("24 h at {A_SECOND}/s ({count})");
    report(&what, start, end);
    Ok(())
}

async fn held(proxy: &Proxy, descriptors: usize) -> anyhow::Result<Held> {
    // Those that its clients have just closed are gone when nothing changes.
    let mut found = proxy.closed(descriptors).await?;
    if descriptors == 0 {
        found = proxy.closed(0).await?.min(found);
    }
    Ok(Held {
        descriptors: found,
        memory: process::memory(proxy.id(), OWN_MEMORY)?,
    })
}

fn report(what: &str, before: Held, after: Held) {
    verdict(
        &format!("{what}: descriptors"),
        format!("{} -> {}", before.descriptors, after.descriptors),
        "no more",
        after.descriptors <= before.descriptors,
    );
    let growth = after.memory.saturating_sub(before.memory);
    verdict(
        &format!("{what}: memory grew by"),
        format!("{} KiB", growth / KIB),
        format!("<= {} KiB", MARGIN / KIB),
        growth <= MARGIN,
    );
}
