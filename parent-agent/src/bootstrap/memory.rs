//! Step `memory`: huge pages, which the driver wants enclave memory to be made of.

use super::cpus;
use super::{Check, Outcome, Setup};

/// Bytes of a page, as its folder names it, and in MiB.
const FOLDER: &str = "hugepages-2048kB";
const PAGE_MIB: u64 = 2;
/// Writing 1 has the kernel move pages together.
const COMPACT: &str = "/proc/sys/vm/compact_memory";

pub(super) fn check(setup: &Setup<'_>) -> Outcome<Check> {
    let node = cpus::node(setup)?;
    let needed = needed(setup)?;
    if cpus::has_enclaves(setup) {
        return Ok(Check::Done(
            "enclaves run, and have the pages of theirs".to_owned(),
        ));
    }
    let free = free(setup, node)?;
    let mib = needed * PAGE_MIB;
    if free >= needed {
        return Ok(Check::Done(format!(
            "{free} huge pages are free on NUMA node {node}, {needed} are needed ({mib} MiB)"
        )));
    }
    Ok(Check::Todo(format!(
        "reserve {} more huge pages on NUMA node {node}, so that {needed} are free ({mib} MiB)",
        needed - free
    )))
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    let node = cpus::node(setup)?;
    let needed = needed(setup)?;
    let count = count_file(node);
    let before = setup.host.number(&count)?;
    let wanted = before + needed.saturating_sub(free(setup, node)?);
    setup.host.set(&count, &wanted.to_string())?;
    let mut got = free(setup, node)?;
    if got < needed {
        // It helps where the memory is there, but in pieces. That it is not
        // permitted shows in what is missing.
        let _ = setup.host.set(COMPACT, "1");
        setup.host.set(&count, &wanted.to_string())?;
        got = free(setup, node)?;
    }
    if got >= needed {
        return Ok(());
    }
    // Half of it is of no use to anybody.
    let _ = setup.host.set(&count, &before.to_string());
    let memory = available(setup, node).map_or_else(String::new, |mib| {
        format!("; {mib} MiB of the node are free")
    });
    Err(format!(
        "the kernel gave {got} of {needed} huge pages on NUMA node {node}{memory}: if that is more than the {} MiB that are needed, the memory is fragmented, and they must be reserved earlier (bootstrap at boot, or `hugepages={needed}` on the kernel's command line); otherwise give the enclaves less memory or the instance more",
        needed * PAGE_MIB
    ))
}

pub(super) fn undo(setup: &Setup<'_>) -> Outcome<String> {
    let node = cpus::node(setup)?;
    // Those in use stay until their enclaves end.
    setup.host.set(&count_file(node), "0")?;
    Ok(format!("released the huge pages of NUMA node {node}"))
}

/// Pages for all enclaves.
fn needed(setup: &Setup<'_>) -> Outcome<u64> {
    let mut pages = 0;
    for enclave in &setup.config.enclaves {
        let memory = enclave.memory_mib.ok_or_else(|| {
            format!(
                "the enclave `{}` has no memory_mib in the configuration, and memory is reserved before its image is here: add it",
                enclave.name
            )
        })?;
        pages += u64::from(u32::from(memory)).div_ceil(PAGE_MIB);
    }
    Ok(pages)
}

fn free(setup: &Setup<'_>, node: u32) -> Outcome<u64> {
    setup
        .host
        .number(&format!("{}/free_hugepages", folder(node)))
}

/// Free memory of the node in MiB.
fn available(setup: &Setup<'_>, node: u32) -> Option<u64> {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = setup.host.read(&path).ok()??;
    let line = text.lines().find(|line| line.contains(" MemFree:"))?;
    let kib: u64 = line.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib / 1024)
}

fn count_file(node: u32) -> String {
    format!("{}/nr_hugepages", folder(node))
}

fn folder(node: u32) -> String {
    format!("/sys/devices/system/node/node{node}/hugepages/{FOLDER}")
}
