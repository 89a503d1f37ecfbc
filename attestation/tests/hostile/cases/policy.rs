//! Good documents that are not what the policy wants.

use measurements::Pcr;

use super::Cases;
use crate::corpus::ACCEPTED;
use crate::cose::{bytes, map, text, unsigned};
use crate::world::{
    CLOCK_SKEW_MS, IMAGES, MAX_AGE_MS, NONCE, PUBLIC_KEY, TIME_MS, USER_DATA, entries, pcrs,
};

type Pcrs = Vec<(u64, Vec<u8>)>;

pub(super) fn add(cases: &mut Cases<'_>) {
    images(cases);
    values(cases);
    for (name, rule, timestamp) in [
        ("as old as it may be", ACCEPTED, TIME_MS - MAX_AGE_MS),
        (
            "a millisecond too old",
            "freshness.age",
            TIME_MS - MAX_AGE_MS - 1,
        ),
        ("a day old", "freshness.age", TIME_MS - 86_400_000),
        (
            "as far ahead as it may be",
            ACCEPTED,
            TIME_MS + CLOCK_SKEW_MS,
        ),
        (
            "a millisecond too far ahead",
            "freshness.future",
            TIME_MS + CLOCK_SKEW_MS + 1,
        ),
        ("a day ahead", "freshness.future", TIME_MS + 86_400_000),
    ] {
        let payload = cases.world.payload().with("timestamp", unsigned(timestamp));
        cases.payload(name, rule, &payload);
    }
}

fn images(cases: &mut Cases<'_>) {
    let of = |image: usize, register: usize| -> Vec<u8> {
        let image = IMAGES[image];
        let registers = [
            image.pcr0,
            image.pcr1,
            image.pcr2,
            image.pcr8.unwrap_or(Pcr::ZERO),
        ];
        registers[register].as_bytes().to_vec()
    };
    // Every mixture of the two allowed images.
    for mixture in 0..16_usize {
        let mut registers = pcrs();
        for (bit, index) in [0, 1, 2, 8].into_iter().enumerate() {
            registers[index].1 = of(mixture >> bit & 1, bit);
        }
        let rule = if [0, 15].contains(&mixture) {
            ACCEPTED
        } else {
            "policy.image"
        };
        let payload = cases
            .world
            .payload()
            .with("pcrs", map(&entries(&registers)));
        let case = cases.payload(
            format!("registers of both images, {mixture:04b}"),
            rule,
            &payload,
        );
        if mixture == 15 {
            case.expectations = Some("second-image".to_owned());
        }
    }
    let change = |change: &dyn Fn(&mut Pcrs)| {
        let mut registers = pcrs();
        change(&mut registers);
        map(&entries(&registers))
    };
    let mut documents = Vec::new();
    for index in [0, 1, 2, 8, 16] {
        let rule = |absent: bool| match index {
            0 if absent => "policy.debug".to_owned(),
            16 => "policy.pcr.16".to_owned(),
            _ => "policy.image".to_owned(),
        };
        let flipped = change(&|registers| registers[index].1[47] ^= 1);
        documents.push((
            format!("PCR{index} with a bit flipped"),
            rule(false),
            flipped,
        ));
        let zero = change(&|registers| registers[index].1 = vec![0; 48]);
        documents.push((format!("PCR{index} of zeros"), rule(true), zero));
        let absent = change(&|registers| {
            registers.remove(index);
        });
        documents.push((format!("PCR{index} absent"), rule(true), absent));
    }
    let debug = change(&|registers| {
        for (_, value) in registers.iter_mut() {
            *value = vec![0; 48];
        }
    });
    documents.push(("debug mode".to_owned(), "policy.debug".to_owned(), debug));
    let only_others = map(&entries(&[(5, vec![5; 48])]));
    documents.push((
        "only PCR5".to_owned(),
        "policy.debug".to_owned(),
        only_others,
    ));
    let shifted = change(&|registers| {
        registers.remove(0);
        for (index, _) in registers.iter_mut() {
            *index -= 1;
        }
    });
    documents.push((
        "registers one place lower".to_owned(),
        "policy.image".to_owned(),
        shifted,
    ));
    for (name, rule, registers) in documents {
        let payload = cases.world.payload().with("pcrs", registers);
        cases.payload(name, &rule, &payload);
    }
}

fn values(cases: &mut Cases<'_>) {
    let longer = |value: &[u8]| [value, b"x"].concat();
    for (field, rule, name, value) in [
        ("nonce", "policy.nonce", "another", b"another".to_vec()),
        ("nonce", "policy.nonce", "longer", longer(NONCE)),
        ("nonce", "policy.nonce", "shorter", NONCE[1..].to_vec()),
        (
            "nonce",
            "policy.nonce",
            "in capitals",
            NONCE.to_ascii_uppercase(),
        ),
        (
            "nonce",
            "policy.nonce",
            "in hexadecimal",
            hex::encode(NONCE).into_bytes(),
        ),
        ("nonce", "policy.nonce", "of zeros", vec![0; NONCE.len()]),
        ("user_data", ACCEPTED, "longer", longer(USER_DATA)),
        (
            "user_data",
            ACCEPTED,
            "only the prefix",
            b"user data".to_vec(),
        ),
        (
            "user_data",
            "policy.user-data",
            "a byte short of the prefix",
            b"user dat".to_vec(),
        ),
        (
            "user_data",
            "policy.user-data",
            "another",
            b"User data".to_vec(),
        ),
        (
            "user_data",
            "policy.user-data",
            "the prefix at the end",
            b" user data".to_vec(),
        ),
        (
            "public_key",
            "policy.public-key",
            "longer",
            longer(PUBLIC_KEY),
        ),
        (
            "public_key",
            "policy.public-key",
            "shorter",
            PUBLIC_KEY[..9].to_vec(),
        ),
        (
            "public_key",
            "policy.public-key",
            "another",
            b"Public key".to_vec(),
        ),
    ] {
        let payload = cases.world.payload().with(field, bytes(&value));
        cases.payload(format!("{field}: {name}"), rule, &payload);
    }
    // What looks like the init's is not the workload's; what only nearly does is.
    for (name, rule, value) in [
        (
            "of a relayed challenge",
            "policy.purpose",
            b"enclave-purpose:relayed-challenge".to_vec(),
        ),
        (
            "of a self-check",
            "policy.purpose",
            b"enclave-purpose:self-check".to_vec(),
        ),
        (
            "of a purpose that is called workload",
            "policy.purpose",
            b"enclave-purpose:workload".to_vec(),
        ),
        (
            "of a purpose that is not known",
            "policy.purpose",
            b"enclave-purpose:key-release".to_vec(),
        ),
        (
            "of a purpose without a name",
            "policy.purpose",
            b"enclave-purpose:".to_vec(),
        ),
        (
            "of a purpose with user data behind it",
            "policy.purpose",
            [b"enclave-purpose:".as_slice(), USER_DATA].concat(),
        ),
        (
            "a byte short of a purpose",
            "policy.user-data",
            b"enclave-purpose".to_vec(),
        ),
        (
            "of a purpose in capitals",
            "policy.user-data",
            b"ENCLAVE-PURPOSE:self-check".to_vec(),
        ),
        (
            "a purpose behind the prefix",
            ACCEPTED,
            b"user data enclave-purpose:self-check".to_vec(),
        ),
    ] {
        let payload = cases.world.payload().with("user_data", bytes(&value));
        cases.payload(format!("user_data: {name}"), rule, &payload);
    }
    for (name, id) in [
        (
            "of another instance",
            "i-1123456789abcdef0-enc0123456789abcdef",
        ),
        (
            "of an instance with a longer id",
            "i-0123456789abcdef00-enc0123456789abcdef",
        ),
        ("of no enclave", "i-0123456789abcdef0"),
        (
            "with the right one behind it",
            "i-1-i-0123456789abcdef0-enc0123456789abcdef",
        ),
        ("in capitals", "I-0123456789ABCDEF0-ENC0123456789ABCDEF"),
    ] {
        let payload = cases.world.payload().with("module_id", text(id));
        cases.payload(format!("module id {name}"), "policy.module-id", &payload);
    }
}
