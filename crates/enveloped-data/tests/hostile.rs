//! Every truncation and every flipped bit of messages by OpenSSL, in DER and BER.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::ops::Range;

use enveloped_data::{OpenError, RecipientKey};

const PLAINTEXT: &[u8] = include_bytes!("vectors/plaintext");
const RECIPIENT: &[u8] = include_bytes!("vectors/recipient.pk8");
const ISSUER: &[u8] = include_bytes!("vectors/issuer.der");
const STREAM: &[u8] = include_bytes!("vectors/stream.ber");
const BLOCK: usize = 16;

/// Where a message has what it does not protect, by `openssl asn1parse`.
struct Malleable {
    /// The recipient's name, which is not compared.
    recipient: Range<usize>,
    /// The initialisation vector, and the content in two pieces.
    chain: [Range<usize>; 3],
}

#[test]
fn truncations_are_refused() {
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    for message in [ISSUER, STREAM] {
        for length in 0..message.len() {
            let error = key.open(&message[..length]).unwrap_err();
            assert!(
                matches!(error, OpenError::Malformed(_)),
                "{length}: {error}"
            );
        }
        let longer = [message, &[0]].concat();
        assert!(matches!(key.open(&longer), Err(OpenError::Malformed(_))));
    }
}

#[test]
fn flipped_bits_of_der_open_to_nothing_that_is_protected() {
    flip_bits(
        ISSUER,
        &Malleable {
            recipient: 39..85,
            chain: [431..447, 449..481, 481..513],
        },
    );
}

#[test]
fn flipped_bits_of_ber_open_to_nothing_that_is_protected() {
    flip_bits(
        STREAM,
        &Malleable {
            recipient: 33..53,
            chain: [399..415, 419..467, 469..485],
        },
    );
}

/// With any bit flipped the message is refused, except where the format gives no
/// protection: CBC decrypts a changed block to noise, the one after it with the same bit
/// flipped, and the others as they were. Only what falls on the padding is noticed.
fn flip_bits(message: &[u8], malleable: &Malleable) {
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    assert_eq!(&*key.open(message).unwrap(), PLAINTEXT);
    for position in 0..message.len() {
        for bit in 0..8 {
            let mut flipped = message.to_vec();
            flipped[position] ^= 1 << bit;
            let opened = key.open(&flipped);
            if malleable.recipient.contains(&position) {
                assert_eq!(&*opened.unwrap(), PLAINTEXT, "{position}.{bit}");
                continue;
            }
            let Ok(opened) = opened else { continue };
            let mut chain = malleable.chain.iter().flat_map(Clone::clone);
            let in_chain = chain.position(|byte| byte == position);
            let in_chain = in_chain.unwrap_or_else(|| panic!("{position}.{bit} was not noticed"));
            let mut expected = PLAINTEXT.to_vec();
            if let Some(byte) = expected.get_mut(in_chain) {
                *byte ^= 1 << bit;
            }
            // A block of the chain is that of the plaintext before the one it is mixed into.
            let end = in_chain / BLOCK * BLOCK;
            let noise = end.saturating_sub(BLOCK)..end;
            for (index, byte) in opened.iter().enumerate() {
                let is_as_expected = Some(byte) == expected.get(index);
                assert!(
                    is_as_expected || noise.contains(&index),
                    "{position}.{bit}, byte {index}"
                );
            }
        }
    }
}
