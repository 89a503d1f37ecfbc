//! The last lines of a boot, for a report of its end.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;

use super::{Batch, Boot, Reader};

/// Letters of a line that are kept.
const MAX_LINE: usize = 1024;

/// The last lines of each stream, for a report.
pub type LastLines = BTreeMap<&'static str, Vec<String>>;

/// The last `count` lines of each stream of a boot, as text.
pub fn last_lines(directory: &Path, boot: Boot, count: usize) -> io::Result<LastLines> {
    let mut last: BTreeMap<&'static str, VecDeque<Vec<u8>>> = BTreeMap::new();
    let mut reader = Reader::newest(directory)?;
    let mut batch = Batch::default();
    while reader.read(None, &mut batch)? {
        while let Some((_, record)) = batch.peek() {
            if batch.boot == boot {
                let lines = last.entry(record.stream.name()).or_default();
                if lines.len() >= count {
                    lines.pop_front();
                }
                let data = record.data.get(..MAX_LINE).unwrap_or(record.data);
                lines.push_back(data.to_vec());
            }
            batch.advance();
        }
    }
    let text = |line: Vec<u8>| plain_text::plain(&String::from_utf8_lossy(&line));
    Ok(last
        .into_iter()
        .map(|(stream, lines)| (stream, lines.into_iter().map(text).collect()))
        .collect())
}
