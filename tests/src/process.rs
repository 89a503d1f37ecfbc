//! What the kernel says of processes (proc(5)).

use std::fmt::Display;
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// User and system time of a process and of the children that have ended.
pub fn processor_time(id: impl Display) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("no fields")?;
    let times = fields.split(' ').skip(11).take(4);
    let times: Vec<u64> = times.map(str::parse).collect::<Result<_, _>>()?;
    // Hundredths of a second, on every machine that Linux runs on.
    Ok(Duration::from_millis(times.iter().sum::<u64>() * 10))
}

/// A field of `/proc/ID/status` that counts KiB, in bytes.
pub fn memory(id: impl Display, field: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let found = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == field).then(|| value.trim().strip_suffix(" kB"))?
    });
    let kib = found.with_context(|| format!("no {field}"))?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// Its open descriptors.
pub fn descriptors(id: impl Display) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{id}/fd"))?.count())
}

/// The processes that it has started.
pub fn children(id: u32) -> Vec<u32> {
    let all = parents().into_iter();
    all.filter(|(_, parent)| *parent == id)
        .map(|(child, _)| child)
        .collect()
}

/// The processes below one.
pub fn descendants(root: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&current) = found.get(next) {
        let children = parents.iter().filter(|(_, parent)| *parent == current);
        found.extend(children.map(|(id, _)| *id));
        next += 1;
    }
    found.split_off(1)
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The second field behind the program's name, which is in parentheses.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse::<u32>().ok());
        found.extend(parent.map(|parent| (id, parent)));
    }
    found
}

/// Bytes that the kernel holds in the buffers of all TCP sockets.
pub fn tcp_buffers() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.rsplit_once("mem "));
    let (_, pages) = pages.context("no pages of TCP")?;
    Ok(pages.trim().parse::<u64>()? * 4096)
}
