//! The payload: every field, signed well.

use super::{Cases, items};
use crate::corpus::ACCEPTED;
use crate::cose::{NULL, array, bytes, flat, head, indefinite_map, long_head, map, text, unsigned};
use crate::world::{LEAF, MODULE_ID, TIME_MS};

/// The fields, whether they are required, and the kind of item that each is.
const FIELDS: [(&str, bool, &str); 9] = [
    ("module_id", true, "a text"),
    ("digest", true, "a text"),
    ("timestamp", true, "an integer"),
    ("pcrs", true, "a map"),
    ("certificate", true, "a byte string"),
    ("cabundle", true, "an array"),
    ("public_key", false, "a byte string"),
    ("user_data", false, "a byte string"),
    ("nonce", false, "a byte string"),
];

pub(super) fn add(cases: &mut Cases<'_>) {
    structure(cases);
    keys(cases);
    types(cases);
    texts(cases);
    certificates(cases);
    bindings(cases);
}

fn structure(cases: &mut Cases<'_>) {
    let payload = cases.world.payload();
    let count = payload.0.len() as u64;
    let entries = flat(&payload.0);
    let with = |head: Vec<u8>| [head, entries.clone()].concat();
    let nested = map(&[(text("payload"), map(&payload.0))]);
    for (name, rule, bytes) in [
        ("an indefinite map", ACCEPTED, indefinite_map(&payload.0)),
        (
            "an indefinite map without an end",
            "cbor.encoding",
            with(vec![0xbf]),
        ),
        (
            "a map of one entry fewer",
            "cbor.trailing",
            [head(5, count - 1), entries.clone()].concat(),
        ),
        (
            "a map of one entry more",
            "cbor.encoding",
            with(head(5, count + 1)),
        ),
        (
            "a map of 2^64-1 entries",
            "cbor.encoding",
            with(head(5, u64::MAX)),
        ),
        (
            "a map's length in two bytes",
            "cbor.encoding",
            with(vec![0xb8, 9]),
        ),
        (
            "a map's length in nine bytes",
            "cbor.encoding",
            with(long_head(5, count)),
        ),
        (
            "a map and a byte",
            "cbor.trailing",
            [map(&payload.0), vec![0]].concat(),
        ),
        (
            "a map and a break",
            "cbor.trailing",
            [map(&payload.0), vec![0xff]].concat(),
        ),
        ("a map twice", "cbor.trailing", map(&payload.0).repeat(2)),
        ("an empty map", "payload.keys", vec![0xa0]),
        ("an empty indefinite map", "payload.keys", vec![0xbf, 0xff]),
        (
            "a map in an array",
            "cbor.encoding",
            [vec![0x81], map(&payload.0)].concat(),
        ),
        (
            "a map in a byte string",
            "cbor.encoding",
            bytes(&map(&payload.0)),
        ),
        (
            "a tagged map",
            "cbor.encoding",
            [vec![0xd9, 0xd9, 0xf7], map(&payload.0)].concat(),
        ),
        ("a map in a map", "payload.keys", nested),
        (
            "an array of keys and values",
            "cbor.encoding",
            with(head(4, 2 * count)),
        ),
        ("10000 nested arrays", "cbor.encoding", vec![0x81; 10_000]),
        ("10000 nested maps", "cbor.encoding", vec![0xa1; 10_000]),
    ] {
        cases.payload_bytes(format!("payload is {name}"), rule, &bytes);
    }
    let reversed = crate::world::Payload(payload.0.into_iter().rev().collect());
    cases.payload("payload in another order", ACCEPTED, &reversed);
}

fn keys(cases: &mut Cases<'_>) {
    let good = cases.world.payload();
    for (field, required, _) in FIELDS {
        let rule = match field {
            _ if required => "payload.keys",
            "public_key" => "policy.public-key",
            "user_data" => "policy.user-data",
            _ => "policy.nonce",
        };
        cases.payload(format!("no {field}"), rule, &good.clone().without(field));
        let position = good.position(field);
        let mut twice = good.clone();
        twice.0.push(good.0[position].clone());
        cases.payload(format!("{field} twice"), "payload.keys", &twice);
        for (name, rule, key) in [
            // Another key, so that the field is absent.
            ("in capitals", rule, text(&field.to_uppercase())),
            ("with a space", rule, text(&format!("{field} "))),
            ("with a zero byte", rule, text(&format!("{field}\0"))),
            ("as a byte string", "cbor.encoding", bytes(field.as_bytes())),
            (
                "of a length in nine bytes",
                "cbor.encoding",
                [long_head(3, field.len() as u64), field.into()].concat(),
            ),
            (
                "in pieces",
                "cbor.encoding",
                [vec![0x7f], text(field), vec![0xff]].concat(),
            ),
            (
                "tagged",
                "cbor.encoding",
                [vec![0xd8, 36], text(field)].concat(),
            ),
        ] {
            let mut payload = good.clone();
            payload.0[position].0 = key;
            cases.payload(format!("key {field} {name}"), rule, &payload);
        }
    }
    for (name, rule, key) in [
        ("empty", ACCEPTED, text("")),
        ("unknown", ACCEPTED, text("debug")),
        ("of 10000 characters", ACCEPTED, text(&"x".repeat(10_000))),
        ("of control characters", ACCEPTED, text("\u{1b}[2J\r\n")),
        ("not UTF-8", "cbor.encoding", vec![0x62, 0xc3, 0x28]),
        ("an overlong zero", "cbor.encoding", vec![0x62, 0xc0, 0x80]),
        ("a surrogate", "cbor.encoding", vec![0x63, 0xed, 0xa0, 0x80]),
        ("a number", "cbor.encoding", vec![0x01]),
        ("null", "cbor.encoding", vec![NULL]),
        ("an array", "cbor.encoding", vec![0x80]),
    ] {
        let mut payload = good.clone();
        payload.0.push((key, vec![NULL]));
        cases.payload(format!("another key, {name}"), rule, &payload);
    }
    unknown_values(cases);
    for (name, rule, keys) in [
        ("unknown, twice", "payload.keys", vec!["debug"; 2]),
        ("unknown, 16 of them", ACCEPTED, SEVENTEEN[..16].to_vec()),
        ("unknown, 17 of them", "payload.keys", SEVENTEEN.to_vec()),
    ] {
        let mut payload = good.clone();
        let entries = keys.into_iter().map(|key| (text(key), vec![NULL]));
        payload.0.extend(entries);
        cases.payload(format!("another key, {name}"), rule, &payload);
    }
}

const SEVENTEEN: [&str; 17] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
];

/// What an unknown key may have: any item in one form only, and not too deep.
fn unknown_values(cases: &mut Cases<'_>) {
    for (name, rule, value) in [
        ("a negative integer", ACCEPTED, vec![0x38, 0x22]),
        ("a float", ACCEPTED, vec![0xf9, 0x3c, 0x00]),
        ("a simple value", ACCEPTED, vec![0xf8, 0x20]),
        ("true", ACCEPTED, vec![0xf5]),
        (
            "a tagged text",
            ACCEPTED,
            [vec![0xc0], text("2025")].concat(),
        ),
        ("a map", ACCEPTED, map(&[(text("a"), vec![0x81, 0x01])])),
        ("an indefinite map", ACCEPTED, vec![0xbf, 0x01, 0x02, 0xff]),
        (
            "9 nested arrays",
            ACCEPTED,
            [vec![0x81; 8], vec![0x80]].concat(),
        ),
        (
            "10 nested arrays",
            "cbor.encoding",
            [vec![0x81; 9], vec![0x80]].concat(),
        ),
        ("10000 nested tags", "cbor.encoding", vec![0xc1; 10_000]),
        ("an indefinite array", "cbor.encoding", vec![0x9f, 0xff]),
        ("an indefinite text", "cbor.encoding", vec![0x7f, 0xff]),
        ("an integer in two bytes", "cbor.encoding", vec![0x18, 0x01]),
        (
            "a simple value in two bytes",
            "cbor.encoding",
            vec![0xf8, 0x16],
        ),
        (
            "a text that is not UTF-8",
            "cbor.encoding",
            vec![0x61, 0xff],
        ),
        ("an array of 2^64-1", "cbor.encoding", head(4, u64::MAX)),
        (
            "a map without a value",
            "cbor.encoding",
            vec![0xbf, 0x01, 0xff],
        ),
        ("a break", "cbor.encoding", vec![0xff]),
    ] {
        let mut payload = cases.world.payload();
        payload.0.push((text("debug"), value));
        cases.payload(format!("another key with {name}"), rule, &payload);
    }
}

fn types(cases: &mut Cases<'_>) {
    for (field, required, kind) in FIELDS {
        for (name, item) in items() {
            // An absent optional may be null; an item of the right kind is
            // wrong in other ways, and has its own cases.
            if name == kind || (name == "null" && !required) {
                continue;
            }
            let payload = cases.world.payload().with(field, item);
            cases.payload(format!("{field} is {name}"), "cbor.encoding", &payload);
        }
    }
    for (field, rule) in [
        ("public_key", "policy.public-key"),
        ("user_data", "policy.user-data"),
        ("nonce", "policy.nonce"),
    ] {
        let payload = cases.world.payload().with(field, vec![NULL]);
        cases.payload(format!("{field} is null"), rule, &payload);
    }
}

fn texts(cases: &mut Cases<'_>) {
    let good = cases.world.payload();
    let long = format!("i-0123456789abcdef0-enc{}", "0".repeat(233));
    for (name, id) in [
        ("empty", ""),
        ("of 256 characters", &long),
        ("with a space", "i-0123456789abcdef0-enc 0"),
        ("with a line feed", "i-0123456789abcdef0-enc0\n"),
        ("with a zero byte", "i-0123456789abcdef0-enc0\0"),
        ("with an escape", "i-0123456789abcdef0-enc0\u{1b}[2J"),
        (
            "with a letter that looks the same",
            "i-0123456789abcdef0-\u{435}nc0",
        ),
        (
            "that turns the direction",
            "i-0123456789abcdef0-enc\u{202e}0",
        ),
        ("of a NitroTPM", "i-0123456789abcdef0-tpm0123456789abcdef"),
    ] {
        let payload = good.clone().with("module_id", text(id));
        cases.payload(format!("module id {name}"), "payload.module-id", &payload);
    }
    let longest = text(&long[..255]);
    let payload = good.clone().with("module_id", longest);
    cases.payload("module id of 255 characters", ACCEPTED, &payload);
    let payload = good.clone().with("module_id", vec![0x62, 0xc3, 0x28]);
    cases.payload("module id not UTF-8", "cbor.encoding", &payload);
    let id = [long_head(3, MODULE_ID.len() as u64), MODULE_ID.into()].concat();
    let payload = good.clone().with("module_id", id);
    cases.payload(
        "module id of a length in nine bytes",
        "cbor.encoding",
        &payload,
    );
    for digest in [
        "", "SHA256", "SHA512", "sha384", "SHA-384", "SHA384 ", "SHA384\0", "SHA3-384",
    ] {
        let payload = good.clone().with("digest", text(digest));
        cases.payload(format!("digest {digest:?}"), "payload.digest", &payload);
    }
    for (name, rule, timestamp) in [
        ("zero", "payload.timestamp", unsigned(0)),
        ("2^63", "payload.timestamp", unsigned(1 << 63)),
        ("2^64-1", "payload.timestamp", unsigned(u64::MAX)),
        ("2^63-1", "freshness.future", unsigned(u64::MAX >> 1)),
        ("one", "freshness.age", unsigned(1)),
        ("in seconds", "freshness.age", unsigned(TIME_MS / 1000)),
        (
            "in microseconds",
            "freshness.future",
            unsigned(TIME_MS * 1000),
        ),
        ("one in two bytes", "cbor.encoding", vec![0x18, 1]),
        ("one in nine bytes", "cbor.encoding", long_head(0, 1)),
        (
            "a big number",
            "cbor.encoding",
            vec![0xc2, 0x46, 1, 0x97, 0x74, 0x20, 0xdc, 0],
        ),
        ("cut off", "cbor.encoding", vec![0x1b, 0, 0]),
    ] {
        let payload = good.clone().with("timestamp", timestamp);
        cases.payload(format!("timestamp is {name}"), rule, &payload);
    }
}

fn certificates(cases: &mut Cases<'_>) {
    let good = cases.world.payload();
    let ders = &cases.world.certificates;
    let bundle: Vec<_> = ders[..LEAF].iter().map(|der| bytes(der)).collect();
    let with = |der: Vec<u8>| {
        let mut bundle = bundle.clone();
        bundle[1] = der;
        array(&bundle)
    };
    for (name, rule, cabundle) in [
        ("empty", "payload.cabundle", vec![0x80]),
        (
            "of 9",
            "payload.cabundle",
            array(&vec![bundle[0].clone(); 9]),
        ),
        (
            "of 2^32",
            "payload.cabundle",
            [head(4, 1 << 32), bundle.concat()].concat(),
        ),
        (
            "of 2^64-1",
            "payload.cabundle",
            [head(4, u64::MAX), bundle.concat()].concat(),
        ),
        (
            "with an empty certificate",
            "payload.cabundle",
            with(bytes(&[])),
        ),
        (
            "with a certificate of 1025 bytes",
            "payload.cabundle",
            with(bytes(&[0x30; 1025])),
        ),
        (
            "indefinite",
            "cbor.encoding",
            [vec![0x9f], bundle.concat(), vec![0xff]].concat(),
        ),
        (
            "of a length in two bytes",
            "cbor.encoding",
            [vec![0x98, 4], bundle.concat()].concat(),
        ),
        (
            "of one more",
            "cbor.encoding",
            [vec![0x85], bundle.concat()].concat(),
        ),
        (
            "of one fewer",
            "cbor.encoding",
            [vec![0x83], bundle.concat()].concat(),
        ),
        ("in an array", "cbor.encoding", array(&[array(&bundle)])),
        (
            "with a text",
            "cbor.encoding",
            with(text("-----BEGIN CERTIFICATE-----")),
        ),
        ("with null", "cbor.encoding", with(vec![NULL])),
        (
            "with an absurd length",
            "cbor.encoding",
            with(head(2, u64::MAX)),
        ),
        (
            "with a length in nine bytes",
            "cbor.encoding",
            with([long_head(2, ders[1].len() as u64), ders[1].clone()].concat()),
        ),
        (
            "with a certificate in pieces",
            "cbor.encoding",
            with([vec![0x5f], bytes(&ders[1]), vec![0xff]].concat()),
        ),
        (
            "one byte string of all",
            "cbor.encoding",
            bytes(&ders[..LEAF].concat()),
        ),
    ] {
        cases.payload(
            format!("cabundle {name}"),
            rule,
            &good.clone().with("cabundle", cabundle),
        );
    }
    for (name, rule, certificate) in [
        ("empty", "payload.certificate", bytes(&[])),
        ("of 1025 bytes", "payload.certificate", bytes(&[0x30; 1025])),
        ("of an absurd length", "cbor.encoding", head(2, 1 << 40)),
        (
            "of 1024 bytes, no certificate",
            "certificate.encoding",
            bytes(&[0x30; 1024]),
        ),
        ("of one byte", "certificate.encoding", bytes(&[0])),
    ] {
        let payload = good.clone().with("certificate", certificate);
        cases.payload(format!("certificate {name}"), rule, &payload);
    }
}

fn bindings(cases: &mut Cases<'_>) {
    let good = cases.world.payload();
    for (field, limit, rule, policy) in [
        (
            "public_key",
            1024,
            "payload.public-key",
            "policy.public-key",
        ),
        ("user_data", 1024, "payload.user-data", "policy.user-data"),
        ("nonce", 1024, "payload.nonce", "policy.nonce"),
    ] {
        for (name, rule, value) in [
            ("empty", policy, bytes(&[])),
            ("of the most bytes", policy, bytes(&vec![7; limit])),
            ("of one byte too many", rule, bytes(&vec![7; limit + 1])),
            ("of a length of 2^32", "cbor.encoding", head(2, 1 << 32)),
            ("of a length of 2^64-1", "cbor.encoding", head(2, u64::MAX)),
            (
                "of a length in nine bytes",
                "cbor.encoding",
                [long_head(2, 1), vec![7]].concat(),
            ),
        ] {
            let payload = good.clone().with(field, value);
            cases.payload(format!("{field} {name}"), rule, &payload);
        }
    }
}
