//! The last lines of the enclave's console.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::report::{Report, Reporter};

/// Lines that are kept.
const MAX_LINES: usize = 200;
/// Bytes of a line that are kept.
const MAX_LINE: usize = 1024;
const READ_BYTES: usize = 4096;

/// The last lines that the enclave's processes have printed.
#[derive(Debug, Clone)]
pub struct Console {
    lines: Arc<Mutex<VecDeque<String>>>,
    live: Option<Reporter>,
}

impl Console {
    /// A console whose lines are also reported to `live`.
    pub fn new(live: Option<Reporter>) -> Self {
        Self {
            lines: Arc::default(),
            live,
        }
    }

    /// The last `count` lines, oldest first.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.len().saturating_sub(count);
        lines.iter().skip(skipped).cloned().collect()
    }

    /// Reads to the end of `stream`. It never waits for a reader of the lines:
    /// the enclave must not be held up by its console.
    pub async fn read(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = [0; READ_BYTES];
        let mut line = Vec::new();
        while let Ok(count) = stream.read(&mut buffer).await {
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            for &byte in bytes {
                if byte == b'\n' {
                    self.push(&line);
                    line.clear();
                } else if line.len() < MAX_LINE {
                    line.push(byte);
                }
            }
        }
        if !line.is_empty() {
            self.push(&line);
        }
    }

    fn push(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = printable(&String::from_utf8_lossy(line));
        if let Some(live) = &self.live {
            live.report(&Report::Console { text: &line });
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// The text without characters that a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    #[tokio::test]
    async fn the_last_lines_are_kept_and_cut() {
        let console = Console::new(None);
        let lines: Vec<_> = (0..MAX_LINES + 10)
            .map(|number| format!("line {number}\r\n"))
            .collect();
        let text = lines.concat() + &"x".repeat(5000);
        console.clone().read(text.as_bytes()).await;
        assert_eq!(console.tail(1000).len(), MAX_LINES);
        assert_eq!(console.tail(2)[0], "line 209");
        assert_eq!(console.tail(1)[0].len(), MAX_LINE);
    }

    #[tokio::test]
    async fn terminal_control_is_made_visible() {
        let (mut printed, writer) = tokio::io::duplex(256);
        let (stderr, _task) = Output::new(writer);
        let console = Console::new(Some(Reporter::new(&stderr, &stderr, false)));
        drop(stderr);
        console.read(&b"\x1b[2Jgone\xff\n"[..]).await;
        let mut text = String::new();
        printed.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "console | \\u{1b}[2Jgone\u{fffd}\n");
    }
}
