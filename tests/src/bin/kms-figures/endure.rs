//! Decrypts at a steady rate, while credentials expire.

use std::time::Duration;

use anyhow::ensure;
use enclave_tests::process::{descriptors, memory, processor_time};
use tokio::time::sleep;

use crate::order::Way;
use crate::world::World;
use crate::{show, verdict};

const KIB: u64 = 1024;
/// Most calls at a time: as many as the init makes.
const AT_A_TIME: u32 = 32;
/// For how long the workload decrypts at the rate before memory is looked at.
const WARM_UP: u32 = 10;
/// Calls as fast as they are answered, after which every connection to KMS is open.
const AT_ONCE: u32 = 2000;
/// What the connections of the last calls get to be closed.
const REST: Duration = Duration::from_secs(2);
/// What memory may differ by: an allocator's own.
const MARGIN: u64 = 1024 * KIB;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    memory: u64,
    descriptors: usize,
}

/// Measures, prints, and says whether all limits hold.
pub(crate) async fn decrypt(
    world: &mut World,
    rate: u32,
    lasting: Duration,
) -> anyhow::Result<bool> {
    println!(
        "\n{rate} decrypts a second for {} s, as SDKs call",
        lasting.as_secs()
    );
    world
        .order(Way::Sdk, rate * WARM_UP, AT_A_TIME, Some(rate))
        .await?;
    let full = world.order(Way::Sdk, AT_ONCE, AT_A_TIME, None).await?;
    ensure!(full.failures.is_empty(), "{:?}", full.failures);
    show(
        &format!("without a rate, {AT_A_TIME} at a time: decrypts a second"),
        per_second(full.latencies.count(), full.took),
    );
    sleep(REST).await;

    let processes = world.processes()?;
    let [init, agent, ..] = processes;
    let looked_at = [init, agent];
    let before = looked_at.map(|(_, id)| held(id));
    let times = processes.map(|(_, id)| processor_time(id));
    let own = processor_time("self")?;
    let (expired, issued) = world.cloud.expired();
    let calls = u32::try_from(u64::from(rate) * lasting.as_secs())?;
    let done = world.order(Way::Sdk, calls, AT_A_TIME, Some(rate)).await?;
    let (expired_now, issued_now) = world.cloud.expired();
    let mut spent = Vec::new();
    for ((name, id), before) in processes.into_iter().zip(times) {
        spent.push((name, processor_time(id)?.saturating_sub(before?)));
    }
    spent.push(("KMS", processor_time("self")?.saturating_sub(own)));
    sleep(REST).await;

    for (name, time) in spent {
        let each = time.as_micros() / u128::from(calls.max(1));
        show(
            &format!("processor time for a decrypt: {name}"),
            format!("{each} us"),
        );
    }
    let (half, most) = (done.latencies.percentile(50), done.latencies.percentile(99));
    show(
        "from when it was due, in us: median; 99th percentile",
        format!("{half}; {most}"),
    );
    show(
        "credentials: new ones; expired meanwhile",
        format!("{}; {}", issued_now - issued, expired_now - expired),
    );
    for (failure, count) in &done.failures {
        println!("  {count} times: {failure}");
    }
    let failures: u32 = done.failures.values().sum();
    let rate_held = per_second(done.latencies.count(), done.took);
    let mut limits = vec![
        verdict(
            "decrypts a second",
            rate_held,
            format!(">= {}", rate * 99 / 100),
            rate_held >= rate * 99 / 100,
        ),
        verdict("calls that failed", failures, "none", failures == 0),
        verdict(
            "credentials that expired meanwhile",
            expired_now - expired,
            ">= 1",
            expired_now > expired,
        ),
    ];
    for ((name, id), before) in looked_at.into_iter().zip(before) {
        let (before, after) = (before?, held(id)?);
        let growth = after.memory.saturating_sub(before.memory);
        limits.push(verdict(
            &format!("{name}: memory, of {} KiB, grew by", before.memory / KIB),
            format!("{} KiB", growth / KIB),
            format!("<= {} KiB", MARGIN / KIB),
            growth <= MARGIN,
        ));
        limits.push(verdict(
            &format!("{name}: descriptors"),
            format!("{} -> {}", before.descriptors, after.descriptors),
            "no more",
            after.descriptors <= before.descriptors,
        ));
    }
    Ok(limits.into_iter().all(|held| held))
}

fn held(id: nix::unistd::Pid) -> anyhow::Result<Held> {
    Ok(Held {
        memory: memory(id, "VmRSS")?,
        descriptors: descriptors(id)?,
    })
}

fn per_second(calls: usize, took: Duration) -> u32 {
    let micros = took.as_micros().max(1);
    u32::try_from(calls as u128 * 1_000_000 / micros).unwrap_or(u32::MAX)
}
