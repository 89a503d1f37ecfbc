//! Step `cpus`: the pool of CPUs that the driver takes from the instance.
//!
//! An enclave has whole cores, all of one NUMA node, and never the first core,
//! which the instance keeps.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{format_list, parse_list};
use super::{Check, Outcome, Setup};

const POOL: &str = "/sys/module/nitro_enclaves/parameters/ne_cpus";
const ONLINE: &str = "/sys/devices/system/cpu/online";
const NODES: &str = "/sys/devices/system/node/online";

pub(super) fn check(setup: &Setup<'_>) -> Outcome<Check> {
    let needed = needed(setup)?;
    let pool = pool(setup)?;
    if pool.len() >= needed {
        return Ok(Check::Done(format!(
            "the pool has the CPUs {}, {needed} are needed",
            format_list(&pool)
        )));
    }
    let chosen = choose(setup, needed)?;
    Ok(Check::Todo(format!(
        "take the CPUs {} out of the instance",
        format_list(&chosen)
    )))
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    if has_enclaves(setup) {
        return Err(
            "the pool is too small, and cannot be changed while enclaves run: stop them first"
                .to_owned(),
        );
    }
    if !setup.host.exists(POOL) {
        return Err(format!(
            "there is no {POOL}: is the module nitro_enclaves loaded?"
        ));
    }
    let needed = needed(setup)?;
    if !pool(setup)?.is_empty() {
        // The CPUs of a smaller pool come back first: they may be needed.
        setup.host.set(POOL, "\n")?;
    }
    let chosen = choose(setup, needed)?;
    setup.host.set(POOL, &format_list(&chosen))
}

pub(super) fn undo(setup: &Setup<'_>) -> Outcome<String> {
    if pool(setup)?.is_empty() {
        return Ok("the pool is empty".to_owned());
    }
    if has_enclaves(setup) {
        return Err("the pool cannot be emptied while enclaves run: stop them first".to_owned());
    }
    setup.host.set(POOL, "\n")?;
    Ok("gave the CPUs of the pool back to the instance".to_owned())
}

/// Whether an enclave of ours may have its resources already: then they are not
/// to be touched.
pub(super) fn has_enclaves(setup: &Setup<'_>) -> bool {
    super::service::any_active(setup)
}

/// The NUMA node that memory and CPUs come from: the one of the pool, or the one
/// with the most CPUs.
pub(super) fn node(setup: &Setup<'_>) -> Outcome<u32> {
    let nodes = nodes(setup)?;
    if let Some(first) = pool(setup)?.first() {
        let found = nodes.iter().find(|(_, cpus)| cpus.contains(first));
        if let Some((node, _)) = found {
            return Ok(*node);
        }
    }
    let largest = nodes.iter().max_by_key(|(node, cpus)| {
        // Of equal ones the first, which machines with one node have.
        (cpus.len(), std::cmp::Reverse(**node))
    });
    match largest {
        Some((node, _)) => Ok(*node),
        None => Err(format!("{NODES} names no NUMA node")),
    }
}

fn nodes(setup: &Setup<'_>) -> Outcome<BTreeMap<u32, Vec<u32>>> {
    let text = setup.host.read(NODES)?.unwrap_or_default();
    let nodes = parse_list(&text).ok_or_else(|| format!("{NODES} holds no list: `{text}`"))?;
    let mut found = BTreeMap::new();
    for node in nodes {
        let path = format!("/sys/devices/system/node/node{node}/cpulist");
        let text = setup.host.read(&path)?.unwrap_or_default();
        let cpus = parse_list(&text).ok_or_else(|| format!("{path} holds no list: `{text}`"))?;
        found.insert(node, cpus);
    }
    Ok(found)
}

/// The pool, which is empty before the driver is there.
fn pool(setup: &Setup<'_>) -> Outcome<Vec<u32>> {
    let text = setup.host.read(POOL)?.unwrap_or_default();
    parse_list(&text).ok_or_else(|| format!("{POOL} holds no list: `{text}`"))
}

/// CPUs for all enclaves.
fn needed(setup: &Setup<'_>) -> Outcome<usize> {
    let mut cpus = 0;
    for enclave in &setup.config.enclaves {
        let count = enclave.cpus.ok_or_else(|| {
            format!(
                "the enclave `{}` has no cpus in the configuration, and CPUs are reserved before its image is here: add it",
                enclave.name
            )
        })?;
        cpus += u32::from(count) as usize;
    }
    Ok(cpus)
}

/// An enclave has whole cores: the driver starts none that leaves a thread of one
/// unused, and gives that thread to no other.
fn check_whole_cores(setup: &Setup<'_>, threads: usize) -> Outcome<()> {
    for enclave in &setup.config.enclaves {
        let cpus = enclave.cpus.map_or(0, |cpus| u32::from(cpus) as usize);
        if cpus % threads != 0 {
            return Err(format!(
                "the enclave `{}` has {cpus} CPUs, but a core of this instance has {threads}, and an enclave has whole cores: give it {}",
                enclave.name,
                cpus.next_multiple_of(threads)
            ));
        }
    }
    Ok(())
}

/// Whole cores of the node, from the last on.
fn choose(setup: &Setup<'_>, needed: usize) -> Outcome<Vec<u32>> {
    let node = node(setup)?;
    let of_node = nodes(setup)?.remove(&node).unwrap_or_default();
    let text = setup.host.read(ONLINE)?.unwrap_or_default();
    let online = parse_list(&text).ok_or_else(|| format!("{ONLINE} holds no list: `{text}`"))?;
    let mut cores: BTreeSet<Vec<u32>> = BTreeSet::new();
    for cpu in of_node.iter().filter(|cpu| online.contains(cpu)) {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let text = setup.host.read(&path)?.unwrap_or_default();
        let siblings =
            parse_list(&text).ok_or_else(|| format!("{path} holds no list: `{text}`"))?;
        if !siblings.contains(&0) && !siblings.is_empty() {
            cores.insert(siblings);
        }
    }
    if let Some(threads) = cores.first().map(Vec::len) {
        check_whole_cores(setup, threads)?;
    }
    let mut chosen = Vec::new();
    for siblings in cores.into_iter().rev() {
        if chosen.len() >= needed {
            break;
        }
        chosen.extend(siblings);
    }
    if chosen.len() < needed {
        return Err(format!(
            "NUMA node {node} has {} CPUs for enclaves (the first core stays with the instance), but they need {needed}: give them fewer, or the instance more",
            chosen.len()
        ));
    }
    chosen.sort_unstable();
    Ok(chosen)
}
