//! Output cut into lines, and lines that are too long into pieces.

use std::sync::Arc;

use link::logs::MAX_RECORD;

/// A line that was written in part.
#[derive(Debug, Default)]
pub(super) struct Lines {
    start: Vec<u8>,
}

/// One record's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) data: Arc<[u8]>,
    /// Whether the line goes on in the next piece.
    pub(super) continues: bool,
}

impl Lines {
    /// Takes the next piece that `bytes` completes off their front; `None` once
    /// all of them are taken. A line's end belongs to no piece.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Piece> {
        let room = MAX_RECORD - self.start.len();
        let end = bytes.iter().take(room + 1).position(|&byte| byte == b'\n');
        let (length, skipped) = match end {
            Some(end) => (end, 1),
            None if bytes.len() > room => (room, 0),
            None => {
                self.start.extend_from_slice(bytes);
                *bytes = &[];
                return None;
            }
        };
        let (part, rest) = bytes.split_at(length);
        *bytes = rest.get(skipped..).unwrap_or_default();
        let data = if self.start.is_empty() {
            part.into()
        } else {
            self.start.extend_from_slice(part);
            let data = self.start.as_slice().into();
            self.start.clear();
            data
        };
        Some(Piece {
            data,
            continues: end.is_none(),
        })
    }

    /// What was written after the last line's end.
    pub(super) fn finish(self) -> Option<Piece> {
        (!self.start.is_empty()).then(|| Piece {
            data: self.start.into(),
            continues: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text again, from its pieces.
    fn joined(text: &[u8], step: usize) -> Vec<u8> {
        let mut lines = Lines::default();
        let mut joined = Vec::new();
        for mut chunk in text.chunks(step) {
            while let Some(piece) = lines.next(&mut chunk) {
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
                let mut lines = Lines::default();
                let mut pieces = Vec::new();
                for mut chunk in text.chunks(step) {
                    while let Some(piece) = lines.next(&mut chunk) {
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
