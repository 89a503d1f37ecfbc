//! The padding of a content that block ciphers encrypt (RFC 5652, section 6.3): as many
//! bytes as are missing to a whole block, or 16, each with their number as its value.

use subtle::{Choice, ConstantTimeEq, ConstantTimeGreater};

use crate::size::BLOCK_BYTES;

/// The largest padding: a whole block.
#[expect(clippy::cast_possible_truncation, reason = "it is 16")]
const MOST: u8 = BLOCK_BYTES as u8;

/// How many bytes of a decrypted content are not padding, and whether the padding is
/// right, without which the number means nothing. The time that it takes depends on
/// neither.
pub(crate) fn unpadded(content: &[u8]) -> (usize, Choice) {
    let Some((_, block)) = content.split_last_chunk::<BLOCK_BYTES>() else {
        return (0, Choice::from(0));
    };
    let [.., padding] = *block;
    let mut right = !padding.ct_eq(&0) & !padding.ct_gt(&MOST);
    for (byte, position) in block.iter().rev().zip(1u8..) {
        let is_content = position.ct_gt(&padding);
        right &= is_content | byte.ct_eq(&padding);
    }
    let length = content.len().saturating_sub(usize::from(padding));
    (length, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the standard says, in as many words.
    fn by_the_standard(content: &[u8]) -> Option<usize> {
        let padding = usize::from(*content.last()?);
        let length = content.len().checked_sub(padding)?;
        let is_right = (1..=BLOCK_BYTES).contains(&padding)
            && content
                .iter()
                .skip(length)
                .all(|&byte| usize::from(byte) == padding);
        is_right.then_some(length)
    }

    fn constant_time(content: &[u8]) -> Option<usize> {
        let (length, right) = unpadded(content);
        bool::from(right).then_some(length)
    }

    #[test]
    fn padding_is_found_and_refused_as_the_standard_says() {
        for blocks in 1..3 {
            for padding in 0..=u8::MAX {
                for wrong in 0..=BLOCK_BYTES {
                    let mut content = vec![0xaa; BLOCK_BYTES * blocks];
                    for byte in content.iter_mut().rev().take(usize::from(padding.max(1))) {
                        *byte = padding;
                    }
                    // The last byte stays, so that it still is the padding's number.
                    if let Some(byte) = content.iter_mut().rev().nth(wrong)
                        && wrong > 0
                    {
                        *byte ^= 0x40;
                    }
                    assert_eq!(
                        constant_time(&content),
                        by_the_standard(&content),
                        "{content:02x?}"
                    );
                }
            }
        }
        assert_eq!(constant_time(&[]), None);
        assert_eq!(constant_time(&[MOST; BLOCK_BYTES]), Some(0));
    }
}
