//! What the kernel says of a process (proc(5)).

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// User and system time of a process and of the children that have ended.
pub(crate) fn processor_time(id: u32) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("no fields")?;
    let times = fields.split(' ').skip(11).take(4);
    let times: Vec<u64> = times.map(str::parse).collect::<Result<_, _>>()?;
    // Hundredths of a second, on every machine that Linux runs on.
    Ok(Duration::from_millis(times.iter().sum::<u64>() * 10))
}

/// Memory of a process that is its own, in bytes.
pub(crate) fn memory(id: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no RssAnon")?.parse::<u64>()? * 1024)
}

/// Its open descriptors.
pub(crate) fn descriptors(id: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{id}/fd"))?.count())
}

/// The processes that it has started.
pub(crate) fn children(id: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let child = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(child) = child else {
            continue;
        };
        // The second field behind the program's name, which is in parentheses.
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(id) {
            found.push(child);
        }
    }
    found
}

/// Bytes that the kernel holds in the buffers of all TCP sockets.
pub(crate) fn tcp_buffers() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.rsplit_once("mem "));
    let (_, pages) = pages.context("no pages of TCP")?;
    Ok(pages.trim().parse::<u64>()? * 4096)
}
