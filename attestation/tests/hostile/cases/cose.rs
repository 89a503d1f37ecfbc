//! The outer structure: what the signature covers only in part.

use aws_lc_rs::digest::{SHA384, digest};

use super::{Cases, items};
use crate::corpus::ACCEPTED;
use crate::cose::{Cose, bytes, head, long_head, map, signed_bytes, text};
use crate::world::LEAF;

const HEADER: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

pub(super) fn add(cases: &mut Cases<'_>) {
    let payload = map(&cases.world.payload().0);
    let good = cases.world.cose(&payload);
    cases.document("the good document", ACCEPTED, good.encode());
    start(cases, &good);
    protected(cases, &good, &payload);
    unprotected(cases, &good);
    attached(cases, &good);
    signature(cases, &good, &payload);
    let mut long = cases.world.payload();
    long.0.push((text("padding"), bytes(&vec![0; 17_000])));
    cases.payload("document of more than 16640 bytes", "document.size", &long);
    for (name, end) in [
        ("a zero byte", vec![0]),
        ("a break", vec![0xff]),
        ("a line feed", vec![0x0a]),
        ("another document", good.encode()),
    ] {
        let document = Cose {
            end,
            ..good.clone()
        }
        .encode();
        cases.document(
            format!("{name} behind the document"),
            "cbor.trailing",
            document,
        );
    }
}

fn start(cases: &mut Cases<'_>, good: &Cose) {
    cases.document("no bytes", "cbor.encoding", Vec::new());
    let parts = [
        &good.start,
        &good.protected,
        &good.unprotected,
        &good.payload,
        &good.signature,
    ];
    for count in 1..parts.len() {
        let document: Vec<u8> = parts
            .iter()
            .take(count)
            .copied()
            .flatten()
            .copied()
            .collect();
        cases.document(
            format!("ends after {count} parts"),
            "cbor.encoding",
            document.clone(),
        );
        if count > 1 {
            let cut = document[..document.len() - 1].to_vec();
            cases.document(format!("ends within part {count}"), "cbor.encoding", cut);
        }
    }
    for (name, start, rule) in [
        ("tag 18", vec![0xd2, 0x84], ACCEPTED),
        ("tag 18 in two bytes", vec![0xd8, 18, 0x84], "cbor.encoding"),
        ("tag 18 twice", vec![0xd2, 0xd2, 0x84], "cbor.encoding"),
        ("tag 16", vec![0xd0, 0x84], "cbor.encoding"),
        ("tag 17", vec![0xd1, 0x84], "cbor.encoding"),
        ("tag 98", vec![0xd8, 98, 0x84], "cbor.encoding"),
        (
            "tag 61 around tag 18",
            vec![0xd8, 61, 0xd2, 0x84],
            "cbor.encoding",
        ),
        (
            "tag 55799 around tag 18",
            vec![0xd9, 0xd9, 0xf7, 0xd2, 0x84],
            "cbor.encoding",
        ),
        ("an array of 0", vec![0x80], "cose.structure"),
        ("an array of 3", vec![0x83], "cose.structure"),
        ("an array of 5", vec![0x85], "cose.structure"),
        ("an array of 2^64-1", head(4, u64::MAX), "cose.structure"),
        ("an array of 4 in two bytes", vec![0x98, 4], "cbor.encoding"),
        (
            "an array of 4 in nine bytes",
            long_head(4, 4),
            "cbor.encoding",
        ),
        ("an indefinite array", vec![0x9f], "cbor.encoding"),
        ("a map of 2", vec![0xa2], "cbor.encoding"),
        (
            "a byte string around all",
            vec![0x59, 0x10, 0x00, 0x84],
            "cbor.encoding",
        ),
        (
            "an array around the array",
            vec![0x81, 0x84],
            "cose.structure",
        ),
    ] {
        let document = Cose {
            start,
            ..good.clone()
        }
        .encode();
        cases.document(format!("document begins with {name}"), rule, document);
    }
    for (name, document) in [
        ("text", b"{\"module_id\": \"i-0\"}".to_vec()),
        ("10000 nested arrays", vec![0x81; 10_000]),
        ("10000 nested tags", vec![0xd2; 10_000]),
        ("10000 nested indefinite maps", vec![0xbf; 10_000]),
    ] {
        let rule = if document[0] == 0x81 {
            "cose.structure"
        } else {
            "cbor.encoding"
        };
        cases.document(format!("document is {name}"), rule, document);
    }
}

fn protected(cases: &mut Cases<'_>, good: &Cose, payload: &[u8]) {
    let key = &cases.world.keys[LEAF];
    let mut documents = Vec::new();
    for (name, header) in [
        ("empty", vec![]),
        ("an empty map", vec![0xa0]),
        ("ES256", vec![0xa1, 0x01, 0x26]),
        ("ES512", vec![0xa1, 0x01, 0x38, 0x23]),
        ("EdDSA", vec![0xa1, 0x01, 0x27]),
        ("PS384", vec![0xa1, 0x01, 0x38, 0x25]),
        ("HMAC", vec![0xa1, 0x01, 0x06]),
        ("ESP384", vec![0xa1, 0x01, 0x38, 0x32]),
        (
            "ES384 as text",
            [&[0xa1, 0x01, 0x65], b"ES384".as_slice()].concat(),
        ),
        ("ES384 in three bytes", vec![0xa1, 0x01, 0x39, 0x00, 0x22]),
        (
            "ES384 under a key in two bytes",
            vec![0xa1, 0x18, 0x01, 0x38, 0x22],
        ),
        (
            "ES384 in an indefinite map",
            vec![0xbf, 0x01, 0x38, 0x22, 0xff],
        ),
        (
            "ES384 twice",
            vec![0xa2, 0x01, 0x38, 0x22, 0x01, 0x38, 0x22],
        ),
        (
            "ES384 and a key id",
            vec![0xa2, 0x01, 0x38, 0x22, 0x04, 0x41, 0x00],
        ),
        (
            "ES384 and a critical header",
            vec![0xa2, 0x01, 0x38, 0x22, 0x02, 0x81, 0x01],
        ),
        ("ES384 and a byte", vec![0xa1, 0x01, 0x38, 0x22, 0x00]),
        ("null in a byte string", vec![0xf6]),
    ] {
        let document = Cose::sign_with_header(payload, &header, key).encode();
        documents.push((name.to_owned(), "cose.protected-header", document));
    }
    for (name, item) in items() {
        let rule = if name == "a byte string" {
            "cose.protected-header"
        } else {
            "cbor.encoding"
        };
        let protected = Cose {
            protected: item,
            ..good.clone()
        };
        documents.push((name.to_owned(), rule, protected.encode()));
    }
    for (name, protected) in [
        ("a map without its byte string", HEADER.to_vec()),
        (
            "in a length of two bytes",
            [&[0x58, 4], HEADER.as_slice()].concat(),
        ),
        (
            "in a length of nine bytes",
            [long_head(2, 4), HEADER.to_vec()].concat(),
        ),
        (
            "of an absurd length",
            [head(2, u64::MAX), HEADER.to_vec()].concat(),
        ),
    ] {
        let document = Cose {
            protected,
            ..good.clone()
        }
        .encode();
        documents.push((name.to_owned(), "cbor.encoding", document));
    }
    for (name, rule, document) in documents {
        cases.document(format!("protected header is {name}"), rule, document);
    }
}

fn unprotected(cases: &mut Cases<'_>, good: &Cose) {
    let mut headers = vec![
        ("ES384", HEADER.to_vec(), "cose.unprotected-header"),
        (
            "a key id",
            vec![0xa1, 0x04, 0x41, 0x00],
            "cose.unprotected-header",
        ),
        (
            "a map of 2^64-1",
            head(5, u64::MAX),
            "cose.unprotected-header",
        ),
        ("an empty indefinite map", vec![0xbf, 0xff], "cbor.encoding"),
        ("an empty map in two bytes", vec![0xb8, 0], "cbor.encoding"),
        (
            "an empty map in nine bytes",
            long_head(5, 0),
            "cbor.encoding",
        ),
        ("an empty array", vec![0x80], "cbor.encoding"),
        ("an empty byte string", vec![0x40], "cbor.encoding"),
    ];
    for (name, item) in items() {
        let rule = if name == "a map" {
            "cose.unprotected-header"
        } else {
            "cbor.encoding"
        };
        headers.push((name, item, rule));
    }
    for (name, unprotected, rule) in headers {
        let document = Cose {
            unprotected,
            ..good.clone()
        }
        .encode();
        cases.document(format!("unprotected header is {name}"), rule, document);
    }
}

fn attached(cases: &mut Cases<'_>, good: &Cose) {
    let content = &good.payload[3..];
    let with = |head: Vec<u8>| [head, content.to_vec()].concat();
    let length = content.len() as u64;
    let mut payloads = vec![
        ("without its byte string", content.to_vec(), "cbor.encoding"),
        (
            "a text of the same bytes",
            with(head(3, length)),
            "cbor.encoding",
        ),
        (
            "of a length in nine bytes",
            with(long_head(2, length)),
            "cbor.encoding",
        ),
        (
            "of a length of 2^32",
            with(head(2, 1 << 32)),
            "cbor.encoding",
        ),
        (
            "of a length of 2^63",
            with(head(2, 1 << 63)),
            "cbor.encoding",
        ),
        (
            "of a length of 2^64-1",
            with(head(2, u64::MAX)),
            "cbor.encoding",
        ),
        (
            "of a length beyond the end",
            with(head(2, length + 200)),
            "cbor.encoding",
        ),
        (
            "in two pieces",
            [
                &[0x5f],
                &*bytes(&content[..100]),
                &bytes(&content[100..]),
                &[0xff],
            ]
            .concat(),
            "cbor.encoding",
        ),
        (
            "tagged as CBOR",
            [&[0xd8, 24], &*good.payload].concat(),
            "cbor.encoding",
        ),
    ];
    for (name, item) in items() {
        // The byte string is there, but what is in it is no map.
        let rule = if name == "null" {
            "cose.payload"
        } else {
            "cbor.encoding"
        };
        payloads.push((name, item, rule));
    }
    for (name, payload, rule) in payloads {
        let document = Cose {
            payload,
            ..good.clone()
        }
        .encode();
        cases.document(format!("payload is {name}"), rule, document);
    }
    cases.payload_bytes("payload is empty", "cose.payload", &[]);
    cases.payload_bytes(
        "payload is of 16385 bytes",
        "cose.payload",
        &vec![0xa0; 16_385],
    );
}

fn signature(cases: &mut Cases<'_>, good: &Cose, payload: &[u8]) {
    let world = cases.world;
    let key = &world.keys[LEAF];
    let fixed = &good.signature[2..];
    let sign = |context, header: &[u8], aad: &[u8]| {
        key.sign_fixed(&signed_bytes(context, header, aad, payload))
    };
    let swapped = [&fixed[48..], &fixed[..48]].concat();
    let zero_s = [&fixed[..48], &[0; 48]].concat();
    let zero_r = [&[0; 48], &fixed[48..]].concat();
    let message = signed_bytes("Signature1", &HEADER, &[], payload);
    for (name, signature) in [
        ("of zeros", vec![0; 96]),
        ("of ones", vec![0xff; 96]),
        ("with r and s swapped", swapped),
        ("with s of zero", zero_s),
        ("with r of zero", zero_r),
        ("by a stranger", world.stranger.sign_fixed(&message)),
        ("by the instance's key", world.keys[3].sign_fixed(&message)),
        ("by the root's key", world.keys[0].sign_fixed(&message)),
        ("over the payload alone", key.sign_fixed(payload)),
        ("over nothing", key.sign_fixed(&[])),
        (
            "over a digest of the message",
            key.sign_fixed(digest(&SHA384, &message).as_ref()),
        ),
        ("in the context Signature", sign("Signature", &HEADER, &[])),
        (
            "in the context CounterSignature",
            sign("CounterSignature", &HEADER, &[]),
        ),
        (
            "over another header",
            sign("Signature1", &[0xa1, 0x01, 0x26], &[]),
        ),
        ("over no header", sign("Signature1", &[], &[])),
        ("with external data", sign("Signature1", &HEADER, &[0])),
        ("over another payload", {
            let other = world.payload().with("nonce", bytes(b"another"));
            key.sign_fixed(&signed_bytes("Signature1", &HEADER, &[], &map(&other.0)))
        }),
    ] {
        let document = Cose {
            signature: bytes(&signature),
            ..good.clone()
        }
        .encode();
        cases.document(format!("signature {name}"), "document.signature", document);
    }
    for (name, signature) in [
        ("none", vec![]),
        ("in DER", key.sign_asn1(&message)),
        ("of 32 bytes", fixed[..32].to_vec()),
        ("of 48 bytes", fixed[..48].to_vec()),
        ("of 64 bytes", fixed[..64].to_vec()),
        ("of 95 bytes", fixed[..95].to_vec()),
        ("of 97 bytes", [fixed, &[0]].concat()),
        (
            "of 132 bytes",
            [&[0; 18], &fixed[..48], &[0; 18], &fixed[48..]].concat(),
        ),
        ("twice", [fixed, fixed].concat()),
    ] {
        let document = Cose {
            signature: bytes(&signature),
            ..good.clone()
        }
        .encode();
        cases.document(format!("signature {name}"), "cose.signature-size", document);
    }
    for (name, item) in items() {
        let rule = if name == "a byte string" {
            "cose.signature-size"
        } else {
            "cbor.encoding"
        };
        let document = Cose {
            signature: item,
            ..good.clone()
        }
        .encode();
        cases.document(format!("signature is {name}"), rule, document);
    }
    for (name, head) in [("two", vec![0x59, 0, 96]), ("eight", long_head(2, 96))] {
        let document = Cose {
            signature: [head, fixed.to_vec()].concat(),
            ..good.clone()
        };
        let name = format!("signature of a length in {name} bytes more");
        cases.document(name, "cbor.encoding", document.encode());
    }
}
