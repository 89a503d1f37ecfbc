//! From output to records: cut into lines, joined where lines belong together,
//! and redacted.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use link::logs::MAX_RECORD;
use manifest::Pattern;

use super::lines::{Lines, Piece};
use super::redaction::{MAX_SEARCHED, Redactor};

/// Most lines of one record.
const MAX_JOINED_LINES: usize = 1000;

/// One output's records.
#[derive(Debug)]
pub struct Records {
    lines: Lines,
    start: Option<Pattern>,
    redactor: Arc<Redactor>,
    joined: Option<Joined>,
    long: Option<Long>,
    ready: VecDeque<Piece>,
}

/// Lines that belong together, so far.
#[derive(Debug)]
struct Joined {
    text: Vec<u8>,
    lines: usize,
    time_us: u64,
}

/// The line that is longer than what is searched, so far.
#[derive(Debug)]
struct Long {
    bytes: usize,
    time_us: u64,
}

impl Records {
    /// Of an output that is treated as the `[logs]` table says.
    pub fn new(config: &manifest::Logs) -> Self {
        Self::with_redactor(config, Arc::new(Redactor::new(&config.redact)))
    }

    pub(super) fn with_redactor(config: &manifest::Logs, redactor: Arc<Redactor>) -> Self {
        let start = config.multiline.as_ref().map(|table| table.start.clone());
        let is_plain = start.is_none() && redactor.is_empty();
        Self {
            lines: Lines::new(if is_plain { MAX_RECORD } else { MAX_SEARCHED }),
            start,
            redactor,
            joined: None,
            long: None,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next record that `bytes`, read at `now_us`, complete off their
    /// front; `None` once all of them are taken.
    pub fn next(&mut self, bytes: &mut Bytes, now_us: u64) -> Option<Piece> {
        if self.start.is_none() && self.redactor.is_empty() {
            return self
                .ready
                .pop_front()
                .or_else(|| self.lines.next(bytes, now_us));
        }
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            let line = self.lines.next(bytes, now_us)?;
            self.take(&line);
        }
    }

    /// Whether lines are held back because others may belong to them.
    pub fn is_joining(&self) -> bool {
        self.joined.is_some()
    }

    /// The lines that are held back are a record: `next` gives it.
    pub fn flush(&mut self) {
        if let Some(joined) = self.joined.take() {
            self.emit(&joined.text, joined.time_us);
        }
    }

    /// The output has ended: `next` gives what was held back.
    pub fn finish(&mut self) {
        if let Some(line) = self.lines.finish() {
            if self.start.is_none() && self.redactor.is_empty() {
                self.ready.push_back(line);
            } else {
                self.take(&line);
            }
        }
        self.flush();
    }

    fn take(&mut self, line: &Piece) {
        if line.continues || self.long.is_some() {
            self.flush();
            return self.take_long(line);
        }
        let Some(start) = &self.start else {
            return self.emit(&line.data, line.time_us);
        };
        let starts = start.is_match(&line.data);
        match &mut self.joined {
            Some(joined)
                if !starts
                    && joined.lines < MAX_JOINED_LINES
                    && joined.text.len() + 1 + line.data.len() <= MAX_RECORD =>
            {
                joined.text.push(b'\n');
                joined.text.extend_from_slice(&line.data);
                joined.lines += 1;
            }
            _ => {
                self.flush();
                self.joined = Some(Joined {
                    text: line.data.to_vec(),
                    lines: 1,
                    time_us: line.time_us,
                });
            }
        }
    }

    /// A part of a line that is longer than what is searched: it passes as it is
    /// if there is nothing to search for.
    fn take_long(&mut self, part: &Piece) {
        let long = self.long.get_or_insert(Long {
            bytes: 0,
            time_us: part.time_us,
        });
        long.bytes += part.data.len();
        if self.redactor.is_empty() {
            self.split(&part.data, part.time_us, part.continues);
            if !part.continues {
                self.long = None;
            }
        } else if !part.continues
            && let Some(long) = self.long.take()
        {
            self.withhold(&long);
        }
    }

    fn emit(&mut self, text: &[u8], time_us: u64) {
        let redactor = Arc::clone(&self.redactor);
        match redactor.redact(text) {
            Some(text) => self.split(&text, time_us, false),
            None => self.withhold(&Long {
                bytes: text.len(),
                time_us,
            }),
        }
    }

    fn withhold(&mut self, long: &Long) {
        self.split(
            Redactor::withheld(long.bytes).as_bytes(),
            long.time_us,
            false,
        );
    }

    /// Copies, so that no record keeps more in memory than it counts for.
    fn split(&mut self, text: &[u8], time_us: u64, continues: bool) {
        let mut rest = text;
        while let Some((first, others)) = rest.split_at_checked(MAX_RECORD)
            && !others.is_empty()
        {
            self.ready.push_back(Piece {
                data: Bytes::copy_from_slice(first),
                time_us,
                continues: true,
            });
            rest = others;
        }
        self.ready.push_back(Piece {
            data: Bytes::copy_from_slice(rest),
            time_us,
            continues,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> manifest::Logs {
        serde_json::from_value(value).unwrap()
    }

    /// All records of an output that is read in steps.
    fn pieces(config: &manifest::Logs, text: &[u8], step: usize) -> Vec<Piece> {
        let mut records = Records::new(config);
        let mut pieces = Vec::new();
        let mut take = |records: &mut Records, mut bytes: Bytes| {
            while let Some(piece) = records.next(&mut bytes, 0) {
                assert!(piece.data.len() <= MAX_RECORD);
                pieces.push(piece);
            }
        };
        for chunk in text.chunks(step) {
            take(&mut records, Bytes::copy_from_slice(chunk));
        }
        records.finish();
        take(&mut records, Bytes::new());
        assert!(!records.is_joining());
        pieces
    }

    /// The records' texts, those that go on joined.
    fn texts(config: &manifest::Logs, text: &[u8], step: usize) -> Vec<String> {
        let mut texts = vec![Vec::new()];
        for piece in pieces(config, text, step) {
            texts.last_mut().unwrap().extend_from_slice(&piece.data);
            if !piece.continues {
                texts.push(Vec::new());
            }
        }
        assert!(texts.pop().unwrap().is_empty());
        let texts = texts
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned());
        texts.collect()
    }

    const TRACE: &str =
        "starting\nError: no\n\tat a\n\tat b\n\nCaused by: x\nError: again\n\tat c\n";

    #[test]
    fn lines_that_start_nothing_belong_to_the_record_before() {
        let config = config(json!({"multiline": {"start": r"^(starting|Error)"}}));
        for step in [1, 7, 1000] {
            assert_eq!(
                texts(&config, TRACE.as_bytes(), step),
                [
                    "starting",
                    "Error: no\n\tat a\n\tat b\n\nCaused by: x",
                    "Error: again\n\tat c"
                ]
            );
        }
        assert_eq!(texts(&config, b"\tat\nb\nError", 1), ["\tat\nb", "Error"]);
        assert_eq!(texts(&config, b"", 1), [""; 0]);
    }

    #[test]
    fn a_record_of_many_lines_has_limits_and_loses_nothing() {
        let config = config(json!({"multiline": {"start": "^S"}}));
        let text = "x\n".repeat(2500);
        let lengths = |text: &str| -> Vec<usize> {
            let texts = texts(&config, text.as_bytes(), 4096);
            assert_eq!(texts.join("\n") + "\n", text);
            texts.iter().map(String::len).collect()
        };
        assert_eq!(lengths(&text), [1999, 1999, 999]);
        let line = "y".repeat(30_000) + "\n";
        assert_eq!(lengths(&line.repeat(5)), [60_001, 60_001, 30_000]);
        // Longer than a record, and longer than what is held of a line.
        let long = "S".repeat(100_000) + "\na\n" + &"b".repeat(600_000) + "\nc\n";
        assert_eq!(lengths(&long), [100_000, 1, 600_000, 1]);
    }

    #[test]
    fn lines_are_given_when_they_have_waited() {
        let config = config(json!({"multiline": {"start": "^S"}}));
        let mut records = Records::new(&config);
        let mut bytes = Bytes::from("S\na\nhalf");
        assert_eq!(records.next(&mut bytes, 1), None);
        assert!(records.is_joining());
        records.flush();
        assert!(!records.is_joining());
        let piece = records.next(&mut bytes, 2).unwrap();
        assert_eq!((&piece.data[..], piece.time_us), (&b"S\na"[..], 1));
        assert_eq!(records.next(&mut Bytes::from(" a line\n"), 3), None);
        records.finish();
        let piece = records.next(&mut bytes, 4).unwrap();
        assert_eq!((&piece.data[..], piece.time_us), (&b"half a line"[..], 1));
    }

    #[test]
    fn redactions_see_joined_lines() {
        let config = config(json!({
            "multiline": {"start": "^S"},
            "redact": [{"pattern": "(?s)BEGIN.*END"}, {"json_fields": ["password"]}],
        }));
        assert_eq!(
            texts(
                &config,
                b"S BEGIN\nsecret\nEND\n{\"password\":1}\nS\n{\n\"password\":\n2}\n",
                3
            ),
            [
                "S ***\n{\"password\":\"***\"}",
                "S\n{\n\"password\":\n\"***\"}"
            ]
        );
    }

    #[test]
    fn a_line_that_is_too_long_to_be_searched_is_withheld() {
        let config = config(json!({"redact": [{"pattern": "secret"}]}));
        let fits = "a".repeat(MAX_SEARCHED - 6) + "secret";
        let texts_of = |text: String| texts(&config, text.as_bytes(), 50_000);
        assert_eq!(
            texts_of(fits.clone()),
            ["a".repeat(MAX_SEARCHED - 6) + "***"]
        );
        for more in [1, 6, MAX_SEARCHED, 3 * MAX_SEARCHED] {
            let length = MAX_SEARCHED + more;
            let notice = Redactor::withheld(length);
            let line = "a".repeat(more) + &fits;
            assert_eq!(
                texts_of(format!("x\n{line}\nsecret\n")),
                ["x", &notice, "***"]
            );
            assert_eq!(texts_of(line), [notice]);
        }
    }

    const SECRET: &str = "token=QWERTYUIOPASDFGHJKLZXCVBNM";

    /// Whether a part of the secret that could be recognised is in the text.
    fn leaks(text: &str) -> bool {
        let secret = &SECRET.as_bytes()["token=".len()..];
        secret
            .windows(4)
            .any(|part| memchr::memmem::find(text.as_bytes(), part).is_some())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever it lies in a line of any length, however it was read.
        #[test]
        fn no_part_of_a_secret_leaves(
            before in prop_oneof![
                0_usize..200,
                (1_usize..5, 0_usize..60).prop_map(|(records, less)| records * MAX_RECORD - less),
            ],
            after in prop_oneof![0_usize..200, 60_000_usize..70_000],
            step in prop_oneof![1_usize..100, 4000_usize..70_000],
            joins: bool,
            json: bool,
        ) {
            let mut value = json!({"redact": [{"pattern": r"token=\w+"}, {"json_fields": ["k"]}]});
            if joins {
                value["multiline"] = json!({"start": "^-"});
            }
            let line = if json {
                format!("{{\"a\":\"{}\",\"k\":\"{}\"", " ".repeat(before), &SECRET[6..])
            } else {
                format!("{} {SECRET} {}", "-".repeat(before), "-".repeat(after))
            };
            let text = format!("-first\n{line}\n-last {SECRET}\n");
            let texts = texts(&config(value), text.as_bytes(), step);
            for text in &texts {
                prop_assert!(!leaks(text), "{} bytes", text.len());
            }
            prop_assert_eq!(texts.last().unwrap(), "-last ***");
        }

        #[test]
        fn without_rules_any_output_is_the_same_again(
            parts in prop::collection::vec(
                (prop_oneof![0..40_usize, 65_530..65_545_usize, 262_140..262_150_usize],
                 prop::sample::select(&b"aS"[..]), any::<bool>()),
                0..6,
            ),
            step in prop_oneof![1000..5000_usize, 60_000..70_000_usize],
            joins: bool,
        ) {
            let mut text = Vec::new();
            for (length, byte, ends) in parts {
                text.extend(std::iter::repeat_n(byte, length));
                if ends {
                    text.push(b'\n');
                }
            }
            let mut value = json!({});
            if joins {
                value["multiline"] = json!({"start": "^S"});
            }
            let joined = texts(&config(value), &text, step).join("\n");
            let text = String::from_utf8(text).unwrap();
            prop_assert_eq!(&joined, text.strip_suffix('\n').unwrap_or(&text));
        }
    }
}
