//! Lines of a program that may write anything.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Longest line that is kept, in bytes; the rest of it is dropped.
pub(super) const MAX_LINE: usize = 1024 * 1024;

/// Reads lines, each of them bounded.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    limit: usize,
    started: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self::with_limit(reader, MAX_LINE)
    }

    fn with_limit(reader: R, limit: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(64 * 1024, reader),
            line: Vec::new(),
            limit,
            started: false,
        }
    }

    /// The next line without its end, or nothing at the end of the stream or after
    /// an error, which means the same here: there is no more to read.
    ///
    /// Cancellation safe: what was read stays.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            let chunk = self.reader.fill_buf().await.unwrap_or_default();
            if chunk.is_empty() {
                return self.started.then(|| self.take());
            }
            self.started = true;
            let (part, used, whole) = match chunk.iter().position(|byte| *byte == b'\n') {
                Some(end) => (
                    chunk.get(..end).expect("the end is in the chunk"),
                    end + 1,
                    true,
                ),
                None => (chunk, chunk.len(), false),
            };
            let room = self.limit.saturating_sub(self.line.len());
            self.line.extend(part.iter().take(room));
            self.reader.consume(used);
            if whole {
                return Some(self.take());
            }
        }
    }

    fn take(&mut self) -> String {
        self.started = false;
        let line = std::mem::take(&mut self.line);
        String::from_utf8_lossy(&line)
            .trim_end_matches('\r')
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn all(bytes: &[u8], limit: usize) -> Vec<String> {
        let mut lines = Lines::with_limit(bytes, limit);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_the_next_one_is_whole() {
        assert_eq!(all(b"abcdef\r\n\ngh", 4).await, ["abcd", "", "gh"]);
    }

    proptest! {
        #[test]
        fn lines_are_those_that_were_written(written in proptest::collection::vec("[a-z\u{e4}]{0,40}", 0..20)) {
            let mut text = written.join("\n");
            text.push('\n');
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let expected = if written.is_empty() { vec![String::new()] } else { written };
            prop_assert_eq!(runtime.block_on(all(text.as_bytes(), MAX_LINE)), expected);
        }
    }
}
