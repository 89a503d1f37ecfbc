//! Instants as items have them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An instant as items have it: RFC 3339, UTC, whole seconds.
pub fn timestamp(instant: OffsetDateTime) -> String {
    instant
        .replace_nanosecond(0)
        .expect("zero is a nanosecond")
        .format(&Rfc3339)
        .expect("a year of four digits")
}

/// The instant of a [`timestamp`].
pub fn parse_timestamp(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_utc_and_whole_seconds() {
        let text = timestamp(OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(1500));
        assert_eq!(text, "1970-01-01T00:00:01Z");
        assert!(parse_timestamp(&text).is_some());
    }
}
