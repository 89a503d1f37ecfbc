//! Times and values for people.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest hexadecimal value that is shown whole in a table.
const MAX_HEX: usize = 24;
/// Digits of a longer one that are shown.
const HEX_SHOWN: usize = 16;

/// An instant, in milliseconds since 1970, as RFC 3339 has it.
pub(crate) fn instant(milliseconds: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{milliseconds} ms"))
}

/// How far an instant is from now: `3 days ago`, `in 2 hours`.
pub(crate) fn distance_from_now(milliseconds: u64) -> String {
    let length = length(now().abs_diff(milliseconds));
    if is_past(milliseconds) {
        format!("{length} ago")
    } else {
        format!("in {length}")
    }
}

/// Whether an instant is over.
pub(crate) fn is_past(milliseconds: u64) -> bool {
    milliseconds <= now()
}

fn now() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A length of time in the largest unit that it has two of.
pub(crate) fn length(milliseconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("years", 31_556_952_000),
        ("days", 86_400_000),
        ("hours", 3_600_000),
        ("minutes", 60_000),
    ];
    for (unit, size) in UNITS {
        if milliseconds >= 2 * size {
            return format!("{} {unit}", milliseconds / size);
        }
    }
    format!("{} seconds", milliseconds / 1000)
}

/// A text with its long hexadecimal values cut.
pub(crate) fn short_hex(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let other = rest
            .bytes()
            .skip(digits)
            .take_while(|byte| !byte.is_ascii_hexdigit())
            .count();
        let (hex, after) = rest.split_at(digits);
        let (text, after) = after.split_at(other);
        match hex.get(..HEX_SHOWN) {
            Some(start) if digits > MAX_HEX => {
                short.push_str(start);
                short.push('…');
            }
            _ => short.push_str(hex),
        }
        short.push_str(text);
        rest = after;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_hexadecimal_values_are_cut_and_all_else_stays() {
        let long = "ab".repeat(48);
        for (text, expected) in [
            ("", ""),
            ("absent", "absent"),
            (
                "i-0123456789abcdef0-enc0123456789abcdef",
                "i-0123456789abcdef0-enc0123456789abcdef",
            ),
            ("é — ü", "é — ü"),
        ] {
            assert_eq!(short_hex(text), expected);
        }
        assert_eq!(
            short_hex(&format!("PCR0 is {long}, not {long}")),
            "PCR0 is abababababababab…, not abababababababab…"
        );
    }

    #[test]
    fn lengths_are_in_the_largest_unit_that_says_enough() {
        for (milliseconds, expected) in [
            (0, "0 seconds"),
            (119_999, "119 seconds"),
            (120_000, "2 minutes"),
            (3 * 3_600_000, "3 hours"),
            (40 * 3_600_000, "40 hours"),
            (20 * 86_400_000, "20 days"),
            (30 * 365 * 86_400_000 + 8 * 86_400_000, "30 years"),
        ] {
            assert_eq!(length(milliseconds), expected);
        }
    }
}
