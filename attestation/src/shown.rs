//! Values in reports, for people.

const ABSENT: &str = "absent";
/// What is there and has no bytes.
const EMPTY: &str = "empty";

/// A field of bytes that may be absent.
pub(crate) fn shown(bytes: Option<&[u8]>) -> String {
    or_absent(bytes.map(or_empty))
}

/// Bytes, of which there may be none.
pub(crate) fn or_empty(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        EMPTY.to_owned()
    } else {
        hex::encode(bytes)
    }
}

pub(crate) fn or_absent(value: Option<impl ToString>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_bytes_have_a_word() {
        for (bytes, text) in [
            (None, "absent"),
            (Some(&[][..]), "empty"),
            (Some(&[0, 255]), "00ff"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }
}
