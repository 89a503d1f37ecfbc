//! The payload's registers.

use super::Cases;
use crate::corpus::ACCEPTED;
use crate::cose::{NULL, array, bytes, flat, head, indefinite_map, long_head, map, text};
use crate::world::{PCR16, entries, pcrs};

type Pcrs = Vec<(u64, Vec<u8>)>;

pub(super) fn add(cases: &mut Cases<'_>) {
    let good = cases.world.payload();
    let with_last = |index: u64, value: &[u8]| {
        let mut pcrs = pcrs();
        pcrs.push((index, value.to_vec()));
        map(&entries(&pcrs))
    };
    let first_of_length = |length: usize| {
        let mut pcrs = pcrs();
        pcrs[0].1 = vec![0x10; length];
        map(&entries(&pcrs))
    };
    let of_range = |range: std::ops::Range<u64>| {
        let mut all = pcrs();
        all.extend((17..).map(|index| (index, vec![0; 48])).take(16));
        let chosen: Vec<_> = all
            .into_iter()
            .filter(|(index, _)| range.contains(index))
            .collect();
        map(&entries(&chosen))
    };
    let in_order = |order: &dyn Fn(&mut Pcrs)| {
        let mut pcrs = pcrs();
        order(&mut pcrs);
        map(&entries(&pcrs))
    };
    let good_entries = entries(&pcrs());
    let with_first = |key: Vec<u8>, value: Vec<u8>| {
        let mut entries = good_entries.clone();
        entries[0] = (key, value);
        map(&entries)
    };
    let zero = bytes(&[0x10; 48]);
    for (name, rule, pcrs) in [
        (
            "in an indefinite map",
            ACCEPTED,
            indefinite_map(&good_entries),
        ),
        ("32 of them", ACCEPTED, of_range(0..32)),
        ("33 of them", "payload.pcrs", of_range(0..33)),
        ("none", "payload.pcrs", vec![0xa0]),
        (
            "none in an indefinite map",
            "payload.pcrs",
            vec![0xbf, 0xff],
        ),
        ("index 32", "payload.pcrs", with_last(32, &[0; 48])),
        ("index 255", "payload.pcrs", with_last(255, &[0; 48])),
        ("index 256", "payload.pcrs", with_last(256, &[0; 48])),
        ("index 2^32", "payload.pcrs", with_last(1 << 32, &[0; 48])),
        (
            "index 2^64-1",
            "payload.pcrs",
            with_last(u64::MAX, &[0; 48]),
        ),
        (
            "the last twice",
            "payload.pcrs",
            with_last(16, PCR16.as_bytes()),
        ),
        (
            "the first twice",
            "payload.pcrs",
            in_order(&|pcrs| pcrs.insert(1, pcrs[0].clone())),
        ),
        ("reversed", "payload.pcrs", in_order(&|pcrs| pcrs.reverse())),
        (
            "two swapped",
            "payload.pcrs",
            in_order(&|pcrs| pcrs.swap(3, 4)),
        ),
        ("a value of 0 bytes", "payload.pcrs", first_of_length(0)),
        ("a value of 32 bytes", "payload.pcrs", first_of_length(32)),
        ("a value of 47 bytes", "payload.pcrs", first_of_length(47)),
        ("a value of 49 bytes", "payload.pcrs", first_of_length(49)),
        ("a value of 64 bytes", "payload.pcrs", first_of_length(64)),
        ("a value of 96 bytes", "payload.pcrs", first_of_length(96)),
        (
            "a text as index",
            "cbor.encoding",
            with_first(text("0"), zero.clone()),
        ),
        (
            "a negative index",
            "cbor.encoding",
            with_first(vec![0x20], zero.clone()),
        ),
        (
            "a float as index",
            "cbor.encoding",
            with_first(vec![0xf9, 0, 0], zero.clone()),
        ),
        (
            "an index in two bytes",
            "cbor.encoding",
            with_first(vec![0x18, 0], zero.clone()),
        ),
        (
            "an index in nine bytes",
            "cbor.encoding",
            with_first(long_head(0, 0), zero.clone()),
        ),
        (
            "a null as value",
            "cbor.encoding",
            with_first(vec![0], vec![NULL]),
        ),
        (
            "a text as value",
            "cbor.encoding",
            with_first(vec![0], text(&"0".repeat(48))),
        ),
        (
            "a value in hexadecimal",
            "cbor.encoding",
            with_first(vec![0], text(&"10".repeat(48))),
        ),
        (
            "a value in an array",
            "cbor.encoding",
            with_first(vec![0], array(std::slice::from_ref(&zero))),
        ),
        (
            "a tagged value",
            "cbor.encoding",
            with_first(vec![0], [vec![0xc2], zero.clone()].concat()),
        ),
        (
            "a map of one more",
            "cbor.encoding",
            [head(5, 18), flat(&good_entries)].concat(),
        ),
        (
            "a map of one fewer",
            "cbor.encoding",
            [head(5, 16), flat(&good_entries)].concat(),
        ),
        (
            "a map of 2^64-1",
            "cbor.encoding",
            [head(5, u64::MAX), flat(&good_entries)].concat(),
        ),
        (
            "a map's length in two bytes",
            "cbor.encoding",
            [vec![0xb8, 17], flat(&good_entries)].concat(),
        ),
        (
            "an indefinite map without an end",
            "cbor.encoding",
            [vec![0xbf], flat(&good_entries)].concat(),
        ),
    ] {
        cases.payload(
            format!("pcrs: {name}"),
            rule,
            &good.clone().with("pcrs", pcrs),
        );
    }
    let mut both = good.clone();
    both.0.push((text("nitrotpm_pcrs"), map(&good_entries)));
    cases.payload("pcrs and nitrotpm_pcrs", "payload.keys", &both);
    let mut of_tpm = good.clone();
    let position = of_tpm.position("pcrs");
    of_tpm.0[position].0 = text("nitrotpm_pcrs");
    cases.payload("nitrotpm_pcrs of an enclave", "payload.module-id", &of_tpm);
    let of_tpm = of_tpm.with("module_id", text("i-0123456789abcdef0-tpm0123456789abcdef"));
    cases.payload("a NitroTPM's document", "policy.profile", &of_tpm);
}
