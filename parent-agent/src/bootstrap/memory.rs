//! Step `memory`: huge pages, which the driver wants enclave memory to be made of.

use super::cpus;
use super::reserved::{self, Reserved};
use super::{Check, Outcome, Setup};

/// A size of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pages {
    mib: u64,
    /// The folder of each NUMA node's.
    folder: &'static str,
}

/// An enclave has a limited number of memory regions, which are pages here: so it gets the
/// larger ones as far as its memory is a multiple of them and the kernel has them.
const LARGE: Pages = Pages {
    mib: 1024,
    folder: "hugepages-1048576kB",
};
/// What the rest is made of, and all of it where the kernel gives no larger ones.
const SMALL: Pages = Pages {
    mib: 2,
    folder: "hugepages-2048kB",
};
/// Writing 1 has the kernel move pages together.
const COMPACT: &str = "/proc/sys/vm/compact_memory";

/// Memory of all enclaves.
#[derive(Debug, Clone, Copy)]
struct Needed {
    /// In MiB, that of each enclave rounded up to whole pages.
    mib: u64,
    /// Large pages of it, at most.
    large: u64,
}

impl Needed {
    /// Small pages, beside so many large ones.
    fn small(self, large: u64) -> u64 {
        (self.mib - large.min(self.large) * LARGE.mib) / SMALL.mib
    }

    /// What is missing in MiB, where so many pages are free.
    fn missing(self, large: u64, small: u64) -> u64 {
        self.small(large).saturating_sub(small) * SMALL.mib
    }
}

pub(super) fn check(setup: &Setup<'_>) -> Outcome<Check> {
    let node = cpus::node(setup)?;
    let needed = needed(setup, node)?;
    if cpus::has_enclaves(setup) {
        return Ok(Check::Done(
            "enclaves run, and have the pages of theirs".to_owned(),
        ));
    }
    let (large, small) = free(setup, node, needed)?;
    let missing = needed.missing(large, small);
    let mib = needed.mib;
    if missing == 0 {
        return Ok(Check::Done(format!(
            "{} MiB of huge pages are free on NUMA node {node}, {mib} MiB are needed",
            large * LARGE.mib + small * SMALL.mib
        )));
    }
    Ok(Check::Todo(format!(
        "reserve {missing} MiB more of huge pages on NUMA node {node}, so that {mib} MiB are free"
    )))
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    let node = cpus::node(setup)?;
    let needed = needed(setup, node)?;
    let before = reserved::read(setup)?;
    let (mut large, mut small) = free(setup, node, needed)?;
    if large < needed.large {
        raise(setup, node, LARGE, needed.large - large)?;
        (large, small) = free(setup, node, needed)?;
    }
    for attempt in 0..2 {
        let missing = needed.small(large).saturating_sub(small);
        if missing == 0 {
            return Ok(());
        }
        if attempt > 0 {
            // It helps where the memory is there, but in pieces. That it is not
            // permitted shows in what is missing.
            let _ = setup.host.set(COMPACT, "1");
        }
        raise(setup, node, SMALL, missing)?;
        (large, small) = free(setup, node, needed)?;
    }
    let missing = needed.missing(large, small);
    if missing == 0 {
        return Ok(());
    }
    // Half of it is of no use to anybody. What the reason for the failure is counts more
    // than that this failed too.
    let _ = release(setup, &before);
    let memory = available(setup, node).map_or_else(String::new, |mib| {
        format!("; {mib} MiB of the node are free")
    });
    let mib = needed.mib;
    Err(format!(
        "the kernel gave {} of {mib} MiB as huge pages on NUMA node {node}{memory}: if that is more than the {mib} MiB that are needed, the memory is fragmented, and they must be reserved earlier (bootstrap at boot, or `hugepages={}` on the kernel's command line); otherwise give the enclaves less memory or the instance more",
        mib - missing,
        mib / SMALL.mib
    ))
}

pub(super) fn undo(setup: &Setup<'_>) -> Outcome<String> {
    if cpus::has_enclaves(setup) {
        return Err(
            "the huge pages cannot be released while enclaves run: stop them first".to_owned(),
        );
    }
    let released = release(setup, &Reserved::default())?;
    reserved::forget(setup)?;
    if released == 0 {
        return Ok("has reserved no huge pages since the instance was booted".to_owned());
    }
    Ok(format!("released {released} MiB of huge pages"))
}

/// Reserves more pages, as many as the kernel gives.
fn raise(setup: &Setup<'_>, node: u32, pages: Pages, count: u64) -> Outcome<()> {
    let file = count_file(node, pages.folder);
    let before = setup.host.number(&file)?;
    let mut reserved = reserved::read(setup)?;
    let known = reserved.of(node, pages.folder);
    // First: a process that ends in between has noted too much, and not too little.
    reserved.set(node, pages.folder, known + count);
    reserved::write(setup, &reserved)?;
    setup.host.set(&file, &(before + count).to_string())?;
    let got = setup.host.number(&file)?.saturating_sub(before);
    reserved.set(node, pages.folder, known + got.min(count));
    reserved::write(setup, &reserved)
}

/// Gives back what this program has reserved, but for that. Says how many MiB that was.
fn release(setup: &Setup<'_>, kept: &Reserved) -> Outcome<u64> {
    let mut reserved = reserved::read(setup)?;
    let mut released = 0;
    for (node, folder, count) in reserved.entries() {
        let keep = kept.of(node, &folder);
        let give = count.saturating_sub(keep);
        let Some(pages) = [LARGE, SMALL].into_iter().find(|it| it.folder == folder) else {
            continue;
        };
        let file = count_file(node, pages.folder);
        let now = setup.host.number(&file)?;
        setup
            .host
            .set(&file, &now.saturating_sub(give).to_string())?;
        released += give.min(now) * pages.mib;
        reserved.set(node, pages.folder, keep);
        reserved::write(setup, &reserved)?;
    }
    Ok(released)
}

/// What all enclaves need, on a node that may have no large pages.
fn needed(setup: &Setup<'_>, node: u32) -> Outcome<Needed> {
    let has_large = setup.host.exists(&count_file(node, LARGE.folder));
    let mut needed = Needed { mib: 0, large: 0 };
    for enclave in &setup.config.enclaves {
        let memory = enclave.memory_mib.ok_or_else(|| {
            format!(
                "the enclave `{}` has no memory_mib in the configuration, and memory is reserved before its image is here: add it",
                enclave.name
            )
        })?;
        let mib = u64::from(u32::from(memory)).next_multiple_of(SMALL.mib);
        needed.mib += mib;
        if has_large && mib.is_multiple_of(LARGE.mib) {
            needed.large += mib / LARGE.mib;
        }
    }
    Ok(needed)
}

/// Free large pages, none if none are needed, and free small ones.
fn free(setup: &Setup<'_>, node: u32, needed: Needed) -> Outcome<(u64, u64)> {
    let count = |pages: Pages| {
        let folder = folder(node, pages.folder);
        setup.host.number(&format!("{folder}/free_hugepages"))
    };
    let large = if needed.large > 0 { count(LARGE)? } else { 0 };
    Ok((large, count(SMALL)?))
}

/// Free memory of the node in MiB.
fn available(setup: &Setup<'_>, node: u32) -> Option<u64> {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = setup.host.read(&path).ok()??;
    let line = text.lines().find(|line| line.contains(" MemFree:"))?;
    let kib: u64 = line.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib / 1024)
}

fn count_file(node: u32, pages: &str) -> String {
    format!("{}/nr_hugepages", folder(node, pages))
}

fn folder(node: u32, pages: &str) -> String {
    format!("/sys/devices/system/node/node{node}/hugepages/{pages}")
}
