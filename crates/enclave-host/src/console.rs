//! The last lines of the enclave's console.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::task::yield_now;

/// Lines that are kept.
const MAX_LINES: usize = 1000;
/// Bytes of a line that are kept.
const MAX_LINE: usize = 1024;
const READ_BYTES: usize = 4096;

/// Who is shown new lines as they come.
pub type Viewer = Arc<dyn Fn(&[String]) + Send + Sync>;

/// The last lines that the enclave's processes have printed.
#[derive(Clone)]
pub struct Console {
    lines: Arc<Mutex<Lines>>,
    /// How many lines there have been.
    count: watch::Sender<u64>,
    viewer: Option<Viewer>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    /// How many lines there have been.
    count: u64,
    /// The line that has not ended yet.
    unfinished: Vec<u8>,
}

impl Console {
    /// A console whose new lines `viewer` is shown.
    pub fn new(viewer: Option<Viewer>) -> Self {
        Self {
            lines: Arc::default(),
            count: watch::Sender::new(0),
            viewer,
        }
    }

    /// The last `count` lines, oldest first.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let lines = self.lock();
        let skipped = lines.kept.len().saturating_sub(count);
        lines.kept.iter().skip(skipped).cloned().collect()
    }

    /// The lines from number `start` on that are still kept, and how many there
    /// have been.
    pub fn since(&self, start: u64) -> (Vec<String>, u64) {
        let lines = self.lock();
        let first = lines.count.saturating_sub(lines.kept.len() as u64);
        let skipped = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let kept = lines.kept.iter().skip(skipped).cloned().collect();
        (kept, lines.count)
    }

    /// Changes with every line.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Reads to the end of `stream`. It never waits for a reader of the lines:
    /// the enclave must not be held up by its console.
    pub async fn read(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = [0; READ_BYTES];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            self.feed(buffer.get(..count).expect("it was read into the buffer"));
            // Whoever passes lines on gets its turn before they are too many.
            yield_now().await;
        }
        self.end_line();
    }

    /// Takes what was printed.
    pub fn feed(&self, bytes: &[u8]) {
        let mut finished = Vec::new();
        {
            let mut lines = self.lock();
            for &byte in bytes {
                if byte == b'\n' {
                    finished.push(std::mem::take(&mut lines.unfinished));
                } else if lines.unfinished.len() < MAX_LINE {
                    lines.unfinished.push(byte);
                }
            }
        }
        self.push(finished.iter().map(|line| text(line)).collect(), true);
    }

    /// Takes what was printed last for a whole line.
    pub fn end_line(&self) {
        let line = std::mem::take(&mut self.lock().unfinished);
        if !line.is_empty() {
            self.push(vec![text(&line)], true);
        }
    }

    /// Adds lines, and shows them if they `are_new`.
    pub fn push(&self, added: Vec<String>, are_new: bool) {
        if added.is_empty() {
            return;
        }
        if let Some(show) = self.viewer.as_ref().filter(|_| are_new) {
            show(&added);
        }
        let mut lines = self.lock();
        for line in added {
            if lines.kept.len() == MAX_LINES {
                lines.kept.pop_front();
            }
            lines.kept.push_back(line);
            lines.count += 1;
        }
        self.count.send_replace(lines.count);
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("lines", &self.lines)
            .field("is_viewed", &self.viewer.is_some())
            .finish_non_exhaustive()
    }
}

/// A line for people.
fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    plain_text::plain(&String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_and_cut() {
        let console = Console::new(None);
        let lines: Vec<_> = (0..MAX_LINES + 10)
            .map(|number| format!("line {number}\r\n"))
            .collect();
        let text = lines.concat() + &"x".repeat(5000);
        console.clone().read(text.as_bytes()).await;
        assert_eq!(console.tail(1000).len(), MAX_LINES);
        assert_eq!(console.tail(2)[0], format!("line {}", MAX_LINES + 9));
        assert_eq!(console.tail(1)[0].len(), MAX_LINE);
    }

    #[test]
    fn lines_are_passed_on_once_and_late_readers_get_what_is_kept() {
        let console = Console::new(None);
        let mut count = console.subscribe();
        assert_eq!(console.since(0), (vec![], 0));
        console.feed(b"one\ntw");
        assert_eq!(console.since(0), (vec!["one".to_owned()], 1));
        assert!(count.has_changed().unwrap());
        count.mark_unchanged();
        console.feed(b"o");
        assert!(!count.has_changed().unwrap());
        console.end_line();
        console.end_line();
        assert_eq!(console.since(1), (vec!["two".to_owned()], 2));
        assert_eq!(console.since(2), (vec![], 2));
        console.push(vec!["more".to_owned(); MAX_LINES], true);
        let (lines, end) = console.since(1);
        assert_eq!((lines.len(), end), (MAX_LINES, 2 + MAX_LINES as u64));
    }
}
