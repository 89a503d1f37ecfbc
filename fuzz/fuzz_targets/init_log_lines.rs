//! The workload's output on its way to records: without redactions nothing is
//! lost or changed, however the output was read; with them no part of a secret
//! leaves. The first bytes are the seed of the cuts and what is configured.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use enclave_init::Records;
use fuzz::within;
use libfuzzer_sys::fuzz_target;
use link::logs::MAX_RECORD;
use manifest::Logs;
use serde_json::json;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 2048;

/// In an output, a secret is this, and a letter more.
const SECRET: &str = "s:[A-Z]+";

static CONFIGURATIONS: LazyLock<[Logs; 4]> = LazyLock::new(|| {
    let multiline = json!({"start": "^[^ ]"});
    let redact = json!([
        {"pattern": SECRET, "with": "-"},
        {"json_fields": ["p", "q.r"]},
    ]);
    [
        json!({}),
        json!({ "multiline": multiline }),
        json!({ "redact": redact }),
        json!({"multiline": multiline, "redact": redact}),
    ]
    .map(|config| serde_json::from_value(config).expect("a configuration"))
});

fn check(bytes: &[u8]) {
    let Some(([seed, kind], output)) = bytes.split_first_chunk().map(|(a, b)| (*a, b)) else {
        return;
    };
    let kind = usize::from(kind % 4);
    let Some(config) = CONFIGURATIONS.get(kind) else {
        return;
    };
    let mut records = Records::new(config);
    let mut text = Vec::new();
    let mut take = |records: &mut Records, mut bytes: Bytes| {
        while let Some(piece) = records.next(&mut bytes, 1) {
            assert!(piece.data.len() <= MAX_RECORD);
            text.extend_from_slice(&piece.data);
            if !piece.continues {
                text.push(b'\n');
            }
        }
        assert!(bytes.is_empty());
    };
    let mut random = u32::from(seed);
    let mut rest = output;
    while !rest.is_empty() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (random >> 24) as usize + 1;
        let (part, others) = rest.split_at(length.min(rest.len()));
        take(&mut records, Bytes::copy_from_slice(part));
        if random & 0x10_0000 != 0 && records.is_joining() {
            records.flush();
            take(&mut records, Bytes::new());
        }
        rest = others;
    }
    records.finish();
    take(&mut records, Bytes::new());
    if kind < 2 {
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        assert_eq!(text, output.strip_suffix(b"\n").unwrap_or(output));
    } else {
        let secret = text
            .windows(3)
            .any(|part| matches!(part, [b's', b':', b'A'..=b'Z']));
        assert!(!secret, "{}", String::from_utf8_lossy(&text));
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
