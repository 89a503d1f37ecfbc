//! One certificate of the chain is wrong, at each place, and signed well.

use super::Cases;
use crate::corpus::ACCEPTED;
use crate::der::{
    BASIC_CONSTRAINTS, CERTIFICATE_POLICIES, DIGITAL_SIGNATURE, EXTENDED_KEY_USAGE, Fields,
    KEY_CERT_SIGN, KEY_USAGE, NAME_CONSTRAINTS, UNKNOWN, algorithm, basic_constraints, extension,
    key_usage, name, name_of_type, public_key, sequence, tlv,
};
use crate::world::{CLOCK_SKEW_MS, LEAF, validity};

const PLACES: [&str; LEAF + 1] = ["root", "regional", "zonal", "instance", "leaf"];

type Change = Box<dyn Fn(&mut Fields)>;

/// A name, the rule, and the change that breaks it.
type Mistake = (String, &'static str, Change);

fn mistake(
    name: impl Into<String>,
    rule: &'static str,
    change: impl Fn(&mut Fields) + 'static,
) -> Mistake {
    (name.into(), rule, Box::new(change))
}

pub(super) fn add(cases: &mut Cases<'_>) {
    for (index, place) in PLACES.iter().enumerate() {
        let mut mistakes = fields();
        mistakes.extend(algorithms());
        mistakes.extend(keys(cases.world.keys[index].point()));
        mistakes.extend(extensions());
        mistakes.extend(periods());
        if index == LEAF {
            mistakes.extend(leaf());
        } else {
            mistakes.extend(authority());
        }
        for (name, rule, change) in mistakes {
            let certificate = cases.world.reissue(index, change);
            let chain = cases.world.replaced(index, certificate);
            cases.chain_of_pinned_root(format!("{place}: {name}"), rule, &chain);
            if index > 0
                && let Some(case) = cases.all.last_mut()
            {
                case.root = None;
            }
        }
        if index > 0 {
            encodings(cases, index, place);
            names(cases, index, place);
            signatures(cases, index, place);
        }
    }
    path_lengths(cases);
}

/// Fields that certificates of AWS do not have, or not so.
fn fields() -> Vec<Mistake> {
    const RULE: &str = "certificate.encoding";
    vec![
        mistake("version 1, left out", RULE, |fields| fields.version.clear()),
        mistake("version 1", RULE, |fields| fields.version[4] = 0),
        mistake("version 2", RULE, |fields| fields.version[4] = 1),
        mistake("version 4", RULE, |fields| fields.version[4] = 3),
        mistake("a serial of no bytes", RULE, |fields| {
            fields.serial = vec![2, 0];
        }),
        mistake("a serial with a zero too many", RULE, |fields| {
            fields.serial = vec![2, 2, 0, 1];
        }),
        mistake("a serial that is a text", RULE, |fields| {
            fields.serial = vec![0x0c, 1, b'1'];
        }),
        mistake("a negative serial", ACCEPTED, |fields| {
            fields.serial = vec![2, 1, 0x80];
        }),
        mistake("a serial of 20 bytes", ACCEPTED, |fields| {
            fields.serial = tlv(2, &[0x7f; 20]);
        }),
        mistake("an issuer's unique id", RULE, |fields| {
            fields.unique_ids = vec![0x81, 2, 0, 1];
        }),
        mistake("a subject's unique id", RULE, |fields| {
            fields.unique_ids = vec![0x82, 2, 0, 1];
        }),
        mistake("no extensions", RULE, |fields| fields.extensions.clear()),
        mistake("a field behind the extensions", RULE, |fields| {
            fields.after_extensions = vec![5, 0];
        }),
        mistake("a field behind the signature", RULE, |fields| {
            fields.after_signature = vec![5, 0];
        }),
        mistake("a validity of three instants", RULE, |fields| {
            let mut instants = fields.validity[2..].to_vec();
            instants.extend_from_within(..15);
            fields.validity = tlv(0x30, &instants);
        }),
        mistake("a validity of one instant", RULE, |fields| {
            fields.validity = tlv(0x30, &fields.validity[2..17]);
        }),
        mistake("a key with a third part", RULE, |fields| {
            let content = [fields.public_key[2..].to_vec(), vec![5, 0]].concat();
            fields.public_key = tlv(0x30, &content);
        }),
        mistake("a month of 13", RULE, |fields| {
            fields.validity[6..8].copy_from_slice(b"13");
        }),
    ]
}

fn algorithms() -> Vec<Mistake> {
    const RULE: &str = "certificate.algorithm";
    let mut mistakes = Vec::new();
    for name in [
        "ecdsa-sha256",
        "ecdsa-sha512",
        "ecdsa-sha384-null",
        "rsa-sha384",
        "ed25519",
    ] {
        mistakes.push(mistake(
            format!("signed with {name}"),
            RULE,
            move |fields| {
                fields.inner_algorithm = algorithm(name);
                fields.outer_algorithm = algorithm(name);
            },
        ));
    }
    for name in ["ecdsa-sha256", "rsa-sha384"] {
        mistakes.push(mistake(
            format!("inner algorithm {name}"),
            RULE,
            move |fields| {
                fields.inner_algorithm = algorithm(name);
            },
        ));
        mistakes.push(mistake(
            format!("outer algorithm {name}"),
            RULE,
            move |fields| {
                fields.outer_algorithm = algorithm(name);
            },
        ));
    }
    mistakes
}

fn keys(point: &[u8]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut unused = public_key("p384", point);
    // Behind the algorithm: tag and length of the bit string.
    unused[22] = 1;
    mistakes.push(mistake(
        "a key with an unused bit",
        "certificate.encoding",
        move |fields| {
            fields.public_key.clone_from(&unused);
        },
    ));
    for (rule, kinds) in [
        (
            "certificate.algorithm",
            [
                "p256",
                "p521",
                "rsa",
                "ed25519",
                "p384 without a curve",
                "p384 with a third parameter",
            ]
            .as_slice(),
        ),
        (
            "certificate.public-key",
            &[
                "off the curve",
                "compressed",
                "hybrid",
                "at infinity",
                "of zeros",
                "of ones",
                "empty",
                "one byte short",
                "one byte long",
            ],
        ),
    ] {
        for kind in kinds {
            let key = public_key(kind, point);
            mistakes.push(mistake(format!("a key {kind}"), rule, move |fields| {
                fields.public_key.clone_from(&key);
            }));
        }
    }
    mistakes
}

fn extensions() -> Vec<Mistake> {
    const RULE: &str = "certificate.extensions";
    let added = |name: &str, rule, extension: Vec<u8>| {
        mistake(name, rule, move |fields: &mut Fields| {
            fields.extensions.push(extension.clone());
        })
    };
    let constraints = |name: &str, value: &[u8]| {
        let extension = extension(BASIC_CONSTRAINTS, true, value);
        mistake(name, RULE, move |fields: &mut Fields| {
            fields.extensions[0].clone_from(&extension);
        })
    };
    let usage = |name: &str, value: &[u8]| {
        let extension = extension(KEY_USAGE, true, value);
        mistake(name, RULE, move |fields: &mut Fields| {
            fields.extensions[1].clone_from(&extension);
        })
    };
    let email = sequence(&[&tlv(
        0xa0,
        &sequence(&[&sequence(&[&tlv(0x81, b"example.com")])]),
    )]);
    let purpose = sequence(&[&tlv(
        0x06,
        &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
    )]);
    let policies = sequence(&[&sequence(&[&tlv(0x06, &[0x55, 0x1d, 0x20, 0x00])])]);
    vec![
        added(
            "an unknown extension",
            ACCEPTED,
            extension(UNKNOWN, false, &[5, 0]),
        ),
        added(
            "an unknown critical extension",
            RULE,
            extension(UNKNOWN, true, &[5, 0]),
        ),
        added(
            "critical name constraints",
            RULE,
            extension(NAME_CONSTRAINTS, true, &email),
        ),
        added(
            "a critical extended key usage",
            RULE,
            extension(EXTENDED_KEY_USAGE, true, &purpose),
        ),
        added(
            "critical policies",
            RULE,
            extension(CERTIFICATE_POLICIES, true, &policies),
        ),
        mistake("basic constraints twice", RULE, |fields| {
            fields.extensions.push(fields.extensions[0].clone());
        }),
        mistake("two contradictory basic constraints", RULE, |fields| {
            fields.extensions.insert(0, basic_constraints(true, None));
            fields.extensions.insert(0, basic_constraints(false, None));
        }),
        mistake("key usage twice", RULE, |fields| {
            fields
                .extensions
                .push(key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN));
        }),
        mistake("an unknown extension twice", RULE, |fields| {
            fields.extensions.push(extension(UNKNOWN, false, &[5, 0]));
            fields.extensions.push(extension(UNKNOWN, false, &[5, 0]));
        }),
        constraints("empty basic constraints", &[]),
        constraints("basic constraints that are a text", &[0x0c, 1, b'1']),
        constraints("basic constraints and a byte", &[0x30, 0, 0]),
        constraints("basic constraints of true as 1", &[0x30, 3, 1, 1, 1]),
        constraints(
            "basic constraints of a length in two bytes",
            &[0x30, 0x81, 0],
        ),
        usage("an empty key usage", &[]),
        usage("a key usage that is a number", &[2, 1, 4]),
        usage("a key usage and a byte", &[3, 2, 2, 4, 0]),
        usage("a key usage with an unused bit set", &[3, 2, 3, 4]),
        mistake(
            "an extension of true as 1",
            "certificate.encoding",
            |fields| {
                let at = fields.extensions[0]
                    .windows(3)
                    .position(|part| part == [1, 1, 0xff]);
                fields.extensions[0][at.unwrap() + 2] = 1;
            },
        ),
    ]
}

fn periods() -> Vec<Mistake> {
    const RULE: &str = "certificate.validity";
    let hour = 3_600_000;
    let skew = i64::try_from(CLOCK_SKEW_MS).unwrap();
    [
        (
            "expired while the clock may be ahead",
            ACCEPTED,
            -hour,
            -skew,
        ),
        ("expired a second before that", RULE, -hour, -skew - 1000),
        ("expired an hour ago", RULE, -2 * hour, -hour),
        ("valid once the clock may be behind", ACCEPTED, skew, hour),
        ("valid a second after that", RULE, skew + 1000, hour),
        ("valid in an hour", RULE, hour, 2 * hour),
        ("an end before the beginning", RULE, hour, -hour),
        ("an end a second before the beginning", RULE, 0, -1000),
        ("valid to this second", ACCEPTED, -hour, 0),
        ("valid from this second", ACCEPTED, 0, hour),
    ]
    .into_iter()
    .map(|(name, rule, from, to)| {
        mistake(name, rule, move |fields| {
            fields.validity = validity(from, to);
        })
    })
    .collect()
}

fn authority() -> Vec<Mistake> {
    const AUTHORITY: &str = "certificate.authority";
    const USAGE: &str = "certificate.key-usage";
    let no_authority = |fields: &mut Fields| fields.extensions[0] = basic_constraints(false, None);
    vec![
        mistake("no authority", AUTHORITY, no_authority),
        mistake("no authority, but a path length", AUTHORITY, |fields| {
            fields.extensions[0] = basic_constraints(false, Some(3));
        }),
        mistake("no basic constraints", AUTHORITY, |fields| {
            fields.extensions.remove(0);
        }),
        mistake("no key usage", USAGE, |fields| {
            fields.extensions.remove(1);
        }),
        mistake("a key for signatures only", USAGE, |fields| {
            fields.extensions[1] = key_usage(DIGITAL_SIGNATURE);
        }),
        mistake("a key for revocation lists only", USAGE, |fields| {
            fields.extensions[1] = key_usage(0x02);
        }),
        mistake("a key for key agreement only", USAGE, |fields| {
            fields.extensions[1] = key_usage(0x08);
        }),
    ]
}

fn leaf() -> Vec<Mistake> {
    const AUTHORITY: &str = "certificate.authority";
    const USAGE: &str = "certificate.key-usage";
    vec![
        mistake("no basic constraints", ACCEPTED, |fields| {
            fields.extensions.remove(0);
        }),
        mistake("an authority", AUTHORITY, |fields| {
            fields.extensions[0] = basic_constraints(true, None);
        }),
        mistake("an authority over nobody", AUTHORITY, |fields| {
            fields.extensions[0] = basic_constraints(true, Some(0));
        }),
        mistake("a path length", "certificate.path-length", |fields| {
            fields.extensions[0] = basic_constraints(false, Some(0));
        }),
        mistake("no key usage", USAGE, |fields| {
            fields.extensions.remove(1);
        }),
        mistake("a key for certificates only", USAGE, |fields| {
            fields.extensions[1] = key_usage(KEY_CERT_SIGN);
        }),
        mistake("a key for non-repudiation only", USAGE, |fields| {
            fields.extensions[1] = key_usage(0x40);
        }),
    ]
}

/// Bytes that are no certificate in DER.
fn encodings(cases: &mut Cases<'_>, index: usize, place: &str) {
    let good = cases.world.certificates[index].clone();
    let content = &good[4..];
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut wrong_tag = good.clone();
    wrong_tag[0] = 0x31;
    let fields = &cases.world.fields[index];
    let body = fields.body();
    let signature = cases.world.issuer(index).sign_asn1(&body);
    for (name, certificate) in [
        ("a byte behind it", [&*good, &[0]].concat()),
        ("cut off", good[..good.len() - 1].to_vec()),
        ("its first half", good[..good.len() / 2].to_vec()),
        ("empty but for its tag", vec![0x30, 0]),
        ("a set", wrong_tag),
        (
            "of a length in three bytes",
            [&[0x30, 0x83, 0], length.as_slice(), content].concat(),
        ),
        (
            "of an indefinite length",
            [&[0x30, 0x80], content, &[0, 0]].concat(),
        ),
        ("in a sequence", sequence(&[&good])),
        ("PEM", b"-----BEGIN CERTIFICATE-----".to_vec()),
        ("random bytes", signature.clone()),
        ("200 nested sequences", nested(200)),
        (
            "a signature with an unused bit",
            fields.assemble(&body, &signature, 1),
        ),
        (
            "a signature with 8 unused bits",
            fields.assemble(&body, &signature, 8),
        ),
    ] {
        let chain = cases.world.replaced(index, certificate);
        cases.chain(format!("{place}: {name}"), "certificate.encoding", &chain);
    }
}

fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![5, 0], |inner, _| sequence(&[&inner]))
}

fn names(cases: &mut Cases<'_>, index: usize, place: &str) {
    let issuer = ["root", "root", "regional", "zonal", "i-0123456789abcdef0"][index];
    for (name, issuer) in [
        ("a stranger's name as issuer", name("stranger")),
        ("no name as issuer", sequence(&[])),
        ("the issuer in capitals", name(&issuer.to_uppercase())),
        ("the issuer and a space", name(&format!("{issuer} "))),
        ("the issuer and a zero byte", name(&format!("{issuer}\0"))),
        (
            "the issuer as a printable string",
            name_of_type(0x13, issuer),
        ),
        (
            "the issuer's name twice",
            sequence(&[&name(issuer)[2..], &name(issuer)[2..]]),
        ),
        (
            "its own name as issuer",
            cases.world.fields[index].subject.clone(),
        ),
    ] {
        let certificate = cases.world.reissue(index, |fields| fields.issuer = issuer);
        let chain = cases.world.replaced(index, certificate);
        cases.chain(format!("{place}: {name}"), "chain.names", &chain);
    }
    let subject = name("\u{1b}[2J\r\nroot");
    let certificate = cases.world.reissue(index, |fields| {
        fields.subject = subject;
        fields.validity = validity(-7_200_000, -3_600_000);
    });
    let chain = cases.world.replaced(index, certificate);
    cases.chain(
        format!("{place}: expired, a name that clears the screen"),
        "certificate.validity",
        &chain,
    );
}

fn signatures(cases: &mut Cases<'_>, index: usize, place: &str) {
    let world = cases.world;
    let fields = &world.fields[index];
    let body = fields.body();
    let good = world.issuer(index).sign_asn1(&body);
    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let zeros = sequence(&[&[2, 1, 0], &[2, 1, 0]]);
    let ones = sequence(&[&[2, 1, 1], &[2, 1, 1]]);
    let other_body = world.fields[LEAF - 1].body();
    let mut of_other = world.issuer(index).sign_asn1(&other_body);
    if index == LEAF - 1 {
        of_other = world.issuer(index).sign_asn1(b"another");
    }
    for (name, signature) in [
        ("by a stranger", world.stranger.sign_asn1(&body)),
        ("by itself", world.keys[index].sign_asn1(&body)),
        ("with a bit flipped", flipped),
        ("empty", Vec::new()),
        ("of zeros", zeros),
        ("of ones", ones),
        ("of two numbers", world.issuer(index).sign_fixed(&body)),
        ("and a byte", [&*good, &[0]].concat()),
        ("of another certificate", of_other),
    ] {
        let certificate = fields.assemble(&body, &signature, 0);
        let chain = world.replaced(index, certificate);
        cases.chain(
            format!("{place}: signature {name}"),
            "chain.signature",
            &chain,
        );
    }
    let mut changed = fields.clone();
    changed.serial = vec![2, 1, 99];
    let certificate = changed.assemble(&changed.body(), &good, 0);
    let chain = world.replaced(index, certificate);
    cases.chain(
        format!("{place}: changed after it was signed"),
        "chain.signature",
        &chain,
    );
}

fn path_lengths(cases: &mut Cases<'_>) {
    for (index, place) in PLACES.iter().enumerate().take(LEAF - 1) {
        let below = u8::try_from(LEAF - 1 - index).unwrap();
        for limit in 0..=below + 1 {
            let certificate = cases.world.reissue(index, |fields| {
                fields.extensions[0] = basic_constraints(true, Some(limit));
            });
            let rule = if limit < below {
                "certificate.path-length"
            } else {
                ACCEPTED
            };
            let chain = cases.world.replaced(index, certificate);
            let name = format!("{place}: {limit} allowed below, {below} are");
            cases.chain_of_pinned_root(name, rule, &chain);
        }
    }
}
