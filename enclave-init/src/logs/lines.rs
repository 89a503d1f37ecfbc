//! Output cut into lines, and lines that are too long into pieces.

use bytes::{Buf, Bytes};
use memchr::memchr;

/// What was written of a line whose end has not come yet.
#[derive(Debug)]
pub(super) struct Lines {
    limit: usize,
    start: Vec<u8>,
    start_us: u64,
}

/// One record's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// As they were written, without the line's end.
    pub data: Bytes,
    /// When the first of them was read, in microseconds since 1970.
    pub time_us: u64,
    /// Whether the line goes on in the next piece.
    pub continues: bool,
}

impl Lines {
    /// Pieces have at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            start: Vec::new(),
            start_us: 0,
        }
    }

    /// Takes the next piece that `bytes`, read at `now_us`, complete off their
    /// front; `None` once all of them are taken.
    pub(super) fn next(&mut self, bytes: &mut Bytes, now_us: u64) -> Option<Piece> {
        let room = self.limit - self.start.len();
        let looked_at = bytes.get(..=room).unwrap_or(bytes);
        let end = memchr(b'\n', looked_at);
        if self.start.is_empty() {
            self.start_us = now_us;
        }
        let length = match end {
            Some(end) => end,
            None if bytes.len() > room => room,
            None => {
                self.start.extend_from_slice(bytes);
                bytes.clear();
                return None;
            }
        };
        let part = bytes.split_to(length);
        if end.is_some() {
            bytes.advance(1);
        }
        let data = if self.start.is_empty() {
            part
        } else {
            self.start.extend_from_slice(&part);
            let data = Bytes::copy_from_slice(&self.start);
            self.start.clear();
            data
        };
        Some(Piece {
            data,
            time_us: self.start_us,
            continues: end.is_none(),
        })
    }

    /// What was written after the last line's end.
    pub(super) fn finish(&mut self) -> Option<Piece> {
        let data = Bytes::copy_from_slice(&self.start);
        self.start.clear();
        (!data.is_empty()).then_some(Piece {
            data,
            time_us: self.start_us,
            continues: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use link::logs::MAX_RECORD;
    use proptest::prelude::*;

    use super::*;

    /// The text again, from its pieces.
    fn joined(text: &[u8], step: usize) -> Vec<u8> {
        let mut lines = Lines::new(MAX_RECORD);
        let mut joined = Vec::new();
        for chunk in text.chunks(step) {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(piece) = lines.next(&mut chunk, 0) {
                assert!(piece.data.len() <= MAX_RECORD);
                joined.extend_from_slice(&piece.data);
                if !piece.continues {
                    joined.push(b'\n');
                }
            }
        }
        if let Some(piece) = lines.finish() {
            assert!(!piece.continues);
            joined.extend_from_slice(&piece.data);
        }
        joined
    }

    #[test]
    fn a_line_that_just_fits_is_one_piece_and_a_longer_one_is_two() {
        let line = vec![b'x'; MAX_RECORD];
        for step in [1, 1000, MAX_RECORD, MAX_RECORD + 2] {
            for (extra, expected) in [(0, 1), (1, 2)] {
                let text = [line.clone(), vec![b'x'; extra], b"\n".to_vec()].concat();
                let mut lines = Lines::new(MAX_RECORD);
                let mut pieces = Vec::new();
                for chunk in text.chunks(step) {
                    let mut chunk = Bytes::copy_from_slice(chunk);
                    while let Some(piece) = lines.next(&mut chunk, 0) {
                        pieces.push((piece.data.len(), piece.continues));
                    }
                }
                assert_eq!(pieces.len(), expected, "{pieces:?}");
                assert!(!pieces.last().unwrap().1);
                assert_eq!(lines.finish(), None);
            }
        }
    }

    #[test]
    fn lines_without_text_are_records_too() {
        assert_eq!(joined(b"\n\na\n", 1), b"\n\na\n");
    }

    #[test]
    fn a_piece_has_the_time_of_its_first_byte() {
        let mut lines = Lines::new(4);
        let mut times = Vec::new();
        for (now, text) in [(1, "a\nb"), (2, "c\n"), (3, "defghi"), (4, "\nj")] {
            let mut bytes = Bytes::from(text);
            while let Some(piece) = lines.next(&mut bytes, now) {
                times.push((piece.data, piece.time_us));
            }
        }
        let last = lines.finish().unwrap();
        times.push((last.data, last.time_us));
        let expected = [("a", 1), ("bc", 1), ("defg", 3), ("hi", 3), ("j", 4)];
        assert_eq!(
            times,
            expected.map(|(text, time)| (Bytes::from(text), time))
        );
    }

    proptest! {
        #[test]
        fn any_output_cut_anywhere_is_the_same_again(
            parts in prop::collection::vec(
                (prop_oneof![Just(0_usize), 0..40_usize, 65_530..65_545_usize, 131_070..131_075_usize],
                 any::<u8>(), any::<bool>()),
                0..6,
            ),
            step in prop_oneof![1..10_usize, 4000..70_000_usize],
        ) {
            let mut text = Vec::new();
            for (length, byte, ends) in parts {
                text.extend(std::iter::repeat_n(byte, length));
                if ends {
                    text.push(b'\n');
                }
            }
            prop_assert_eq!(joined(&text, step), text);
        }
    }
}
