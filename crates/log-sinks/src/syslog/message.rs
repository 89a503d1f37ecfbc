//! A record as messages of RFC 5424.
//!
//! `<PRI>1 TIME HOST APP - STREAM [meta sequenceId="N"] TEXT`: the host is
//! the enclave's name, the application's name that of its workload where there are several
//! and else `enclave`, the message's identifier its stream, and the text the record's bytes
//! as they are (the RFC's MSG-ANY).

use link::logs::LogStream;
use log_spool::{Stored, timestamp};

/// Bytes of a datagram: receivers should take 2048 (RFC 5424, section 6.1).
pub(super) const MAX_DATAGRAM: usize = 2048;
/// The facility local0.
const FACILITY: u8 = 16;
/// The longest application's name in characters.
const MAX_APP_NAME: usize = 48;
/// The largest sequenceId (RFC 5424, section 7.3.1); the next one is 1.
const MAX_SEQUENCE_ID: u64 = 2_147_483_647;

/// The messages of a record; more than one only where it must fit datagrams.
pub(super) fn encode(record: &Stored<'_>, host: &str, longest: Option<usize>) -> Vec<Vec<u8>> {
    let severity = match record.stream {
        LogStream::Errors => 3,
        LogStream::Health => 5,
        LogStream::Application | LogStream::System => 6,
    };
    let header = format!(
        "<{}>1 {} {host} {} - {} [meta sequenceId=\"{}\"] ",
        FACILITY * 8 + severity,
        time(record.time_us),
        record.workload.map_or("enclave", short),
        record.stream.name(),
        record.sequence.saturating_sub(1) % MAX_SEQUENCE_ID + 1,
    );
    let room = longest.map_or(usize::MAX, |longest| {
        longest.saturating_sub(header.len()).max(1)
    });
    let message = |text: &[u8]| [header.as_bytes(), text].concat();
    if record.data.len() <= room {
        return vec![message(record.data)];
    }
    record.data.chunks(room).map(message).collect()
}

/// A name as far as the application's may go (RFC 5424, section 6: 48 characters).
fn short(name: &str) -> &str {
    name.get(..MAX_APP_NAME).unwrap_or(name)
}

/// A time that RFC 3339 cannot express is left out.
fn time(microseconds: u64) -> String {
    let time = timestamp(microseconds);
    if time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z') {
        time
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log_spool::Source;

    fn record(data: &[u8]) -> Stored<'_> {
        Stored {
            stream: LogStream::Errors,
            sequence: 2_147_483_648,
            time_us: 1_767_225_600_123_456,
            source: Source::Stderr,
            continues: false,
            workload: None,
            data,
        }
    }

    #[test]
    fn a_message_is_as_the_rfc_wants_it() {
        let messages = encode(&record(b"no \xff memory"), "payments", None);
        let expected = b"<131>1 2026-01-01T00:00:00.123456Z payments enclave - errors [meta sequenceId=\"1\"] no \xff memory";
        assert_eq!(messages, [expected.to_vec()]);
        let mut named = record(b"x");
        named.workload = Some("web");
        let named = encode(&named, "payments", None);
        let named = String::from_utf8(named.concat()).unwrap();
        assert!(named.contains(" payments web - errors "), "{named}");
        let mut late = record(b"");
        late.time_us = u64::MAX;
        assert!(encode(&late, "p", None)[0].starts_with(b"<131>1 - p "));
    }

    #[test]
    fn a_long_line_takes_several_datagrams() {
        let data: Vec<u8> = (0..10_000_u32).map(|byte| byte.to_be_bytes()[3]).collect();
        let messages = encode(&record(&data), "payments", Some(MAX_DATAGRAM));
        let header = encode(&record(b""), "payments", None)[0].len();
        assert!(messages.len() > 4);
        assert!(messages.iter().all(|message| message.len() <= MAX_DATAGRAM));
        let texts: Vec<_> = messages
            .iter()
            .flat_map(|message| &message[header..])
            .copied()
            .collect();
        assert_eq!(texts, data);
    }
}
