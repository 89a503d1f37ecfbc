//! A record's bytes as an event's message, so that they can be had back.
//!
//! The service takes UTF-8 that is not empty. A line that is such text, is whole,
//! and does not begin with one of the marks below is sent as it is. Any other
//! begins with a mark:
//!
//! | mark | what follows |
//! |---|---|
//! | `\+ ` | text that goes on in the next event |
//! | `\x ` | escaped bytes |
//! | `\x+ ` | escaped bytes that go on in the next event |
//!
//! Where an enclave has several workloads, each message begins with the record's workload, as
//! in `web | `, before any mark.
//!
//! In escaped bytes `\\` is a backslash and `\xNN` the byte NN; the rest is text.

use link::MAX_NAME;

/// Largest message that is made: the service's older limit of 256 KiB for an
/// event, its 26 bytes of overhead included. (It takes 1 MiB by now.)
pub(super) const MAX_MESSAGE: usize = 256 * 1024 - 26;

const GOES_ON: &str = "\\+ ";
const ESCAPED: &str = "\\x ";
const ESCAPED_GOES_ON: &str = "\\x+ ";

/// What stands between a workload's name and its text.
const OF_WORKLOAD: &str = " | ";
/// Room for a message beside the workload's name.
const MAX_TEXT: usize = MAX_MESSAGE - MAX_NAME - OF_WORKLOAD.len();

/// The messages of a record; more than one only where escapes make it too long.
pub(super) fn encode(workload: Option<&str>, data: &[u8], continues: bool) -> Vec<String> {
    let mut messages = encode_text(data, continues);
    if let Some(name) = workload {
        for message in &mut messages {
            *message = [name, OF_WORKLOAD, message].concat();
        }
    }
    messages
}

fn encode_text(data: &[u8], continues: bool) -> Vec<String> {
    match std::str::from_utf8(data) {
        Ok(text) if is_plain(text) && text.len() + GOES_ON.len() <= MAX_TEXT => {
            let mark = if continues { GOES_ON } else { "" };
            vec![[mark, text].concat()]
        }
        _ => escape(data, continues),
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && ![GOES_ON, ESCAPED, ESCAPED_GOES_ON]
            .iter()
            .any(|mark| text.starts_with(mark))
}

fn escape(data: &[u8], continues: bool) -> Vec<String> {
    let room = MAX_TEXT - ESCAPED_GOES_ON.len();
    let mut bodies = vec![String::new()];
    let mut add = |piece: &str| match bodies.last_mut() {
        Some(body) if body.len() + piece.len() <= room => body.push_str(piece),
        _ => bodies.push(piece.to_owned()),
    };
    for chunk in data.utf8_chunks() {
        let mut buffer = [0; 4];
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => add("\\\\"),
                _ => add(letter.encode_utf8(&mut buffer)),
            }
        }
        for byte in chunk.invalid() {
            add(&format!("\\x{byte:02x}"));
        }
    }
    let count = bodies.len();
    bodies
        .into_iter()
        .enumerate()
        .map(|(index, body)| {
            let goes_on = continues || index + 1 < count;
            [if goes_on { ESCAPED_GOES_ON } else { ESCAPED }, &body].concat()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The way back, as the manual describes it: the bytes, and whether the line
    /// goes on.
    fn decode(message: &str) -> (Vec<u8>, bool) {
        if let Some(text) = message.strip_prefix(GOES_ON) {
            return (text.as_bytes().to_vec(), true);
        }
        let (escaped, goes_on) = if let Some(escaped) = message.strip_prefix(ESCAPED_GOES_ON) {
            (escaped, true)
        } else if let Some(escaped) = message.strip_prefix(ESCAPED) {
            (escaped, false)
        } else {
            return (message.as_bytes().to_vec(), false);
        };
        let mut bytes = Vec::new();
        let mut rest = escaped.as_bytes();
        while let Some((&first, behind)) = rest.split_first() {
            (bytes.push(match (first, behind.first()) {
                (b'\\', Some(b'x')) => {
                    let hex = std::str::from_utf8(&behind[1..3]).unwrap();
                    rest = &behind[3..];
                    u8::from_str_radix(hex, 16).unwrap()
                }
                (b'\\', Some(b'\\')) => {
                    rest = &behind[1..];
                    b'\\'
                }
                _ => {
                    rest = behind;
                    first
                }
            }));
        }
        (bytes, goes_on)
    }

    #[test]
    fn readable_lines_stay_as_they_are() {
        assert_eq!(encode(Some("web"), b"a", true), ["web | \\+ a"]);
        assert_eq!(encode(None, b"C:\\x and more", false), ["C:\\x and more"]);
        assert_eq!(encode(None, "größe".as_bytes(), false), ["größe"]);
        assert_eq!(encode(None, b"first part", true), ["\\+ first part"]);
        assert_eq!(encode(None, b"", false), ["\\x "]);
        assert_eq!(encode(None, b"a\\b\xff", false), ["\\x a\\\\b\\xff"]);
        assert_eq!(encode(None, b"\\x 41", false), ["\\x \\\\x 41"]);
    }

    #[test]
    fn the_largest_record_fits_its_events() {
        let data = vec![0xff; link::logs::MAX_RECORD];
        let messages = encode(None, &data, true);
        assert!(messages.len() > 1);
        let mut back = Vec::new();
        for message in &messages {
            assert!(message.len() <= MAX_MESSAGE);
            let (bytes, goes_on) = decode(message);
            assert!(goes_on);
            back.extend(bytes);
        }
        assert_eq!(back, data);
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"\\x ".to_vec()),
            Just(b"\\+ ".to_vec()),
            Just(b"\\x+ ".to_vec()),
            Just(b"\\".to_vec()),
            Just("ü".as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn every_byte_can_be_had_back(data in lines(), continues: bool) {
            let messages = encode(None, &data, continues);
            prop_assert_eq!(messages.len(), 1);
            prop_assert!(!messages[0].is_empty());
            prop_assert_eq!(decode(&messages[0]), (data, continues));
        }
    }
}
