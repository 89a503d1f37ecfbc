//! Documents that AWS signed, as they are and as somebody without AWS's keys would forge
//! them.

use attestation::Document;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Cases;
use super::demands::{is_debug, of_document, unmet};
use crate::corpus::{ACCEPTED, AWS_ROOT, TEST_ROOT, folder};
use crate::cose::{Cose, NULL, bytes, map, text, unsigned};
use crate::der::{Fields, Key};
use crate::world::{CLOCK_SKEW_MS, LEAF, MAX_AGE_MS, Payload, World, entries, validity_at};

pub(super) const ROOT: &[u8] = include_bytes!("../../../src/aws-nitro-root.der");
/// The one that forgeries are of.
const FORGED: &str = "3a4a0301e6aa2839";
const DAY_MS: u64 = 86_400_000;

pub(super) fn add(cases: &mut Cases<'_>) {
    cases.demands.extend(unmet());
    for (id, document) in documents() {
        genuine(cases, &id, &document);
        if id == FORGED {
            unsigned_changes(cases, &id, &document);
            forged_chains(cases, &id, &document);
        }
    }
    let document = cases.world.document(&cases.world.payload());
    let name = "a chain of its own where AWS's root is pinned";
    cases.document(name, "chain.root", document).root_file = AWS_ROOT;
}

/// By the first half of their SHA-256, which is their file's name.
fn documents() -> Vec<(String, Vec<u8>)> {
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(folder().join("aws")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "cbor")
        {
            let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
            documents.push((id, std::fs::read(path).unwrap()));
        }
    }
    documents.sort();
    documents
}

/// The document as it is, at several times and under several policies.
fn genuine(cases: &mut Cases<'_>, id: &str, document: &[u8]) {
    let parsed = Document::parse(document).unwrap();
    let own = format!("aws-{id}");
    let made = parsed.unverified_timestamp_ms();
    let leaf = parsed.unverified_certificates().last().unwrap();
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    let begins = 1000 * u64::try_from(leaf.validity().not_before.timestamp()).unwrap();
    cases.demands.insert(own.clone(), of_document(&parsed));
    // Where the leaf, too, begins later than the tolerance allows, it is refused first.
    let ahead = |skew_ms: u64| {
        if begins > made - skew_ms + CLOCK_SKEW_MS {
            "certificate.validity"
        } else {
            "freshness.future"
        }
    };
    let mut add = |name: &str, rule: &str, policy: &str, root: &'static str, time_ms| {
        let case = cases.document(format!("{id} {name}"), rule, document.to_vec());
        policy.clone_into(&mut case.policy);
        case.root_file = root;
        case.time_ms = time_ms;
        case.aws = Some(id.to_owned());
    };
    add("at its own time", ACCEPTED, &own, AWS_ROOT, made);
    for (name, rule, time_ms) in [
        ("59 s before its time", ACCEPTED, made - 59_000),
        ("61 s before its time", ahead(61_000), made - 61_000),
        (
            "a day before its time",
            "certificate.validity",
            made - DAY_MS,
        ),
        ("as old as it may be", ACCEPTED, made + MAX_AGE_MS),
        (
            "a millisecond too old",
            "freshness.age",
            made + MAX_AGE_MS + 1,
        ),
        (
            "a day after its time",
            "certificate.validity",
            made + DAY_MS,
        ),
    ] {
        add(name, rule, &own, AWS_ROOT, time_ms);
    }
    add("under another root", "chain.root", &own, TEST_ROOT, made);
    for (name, rule, policy) in [
        (
            "with another nonce expected",
            "policy.nonce",
            "another-nonce",
        ),
        ("with another PCR0 expected", "policy.pcr.0", "another-pcr0"),
    ] {
        add(name, rule, policy, AWS_ROOT, made);
    }
    if is_debug(&parsed) {
        let name = "of debug mode, which is not allowed";
        add(name, "policy.debug", "any-image", AWS_ROOT, made);
    }
}

/// Changes that need no key.
fn unsigned_changes(cases: &mut Cases<'_>, id: &str, document: &[u8]) {
    let parsed = Document::parse(document).unwrap();
    let cose = split(document);
    let signature = &cose.signature[2..];
    let mut flipped = signature.to_vec();
    flipped[95] ^= 1;
    let replaced = |from: &[u8], to: &[u8]| {
        let at = document
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        let mut document = document.to_vec();
        document[at..at + to.len()].copy_from_slice(to);
        document
    };
    let signed = |signature: &[u8]| {
        Cose {
            signature: bytes(signature),
            ..cose.clone()
        }
        .encode()
    };
    let content = &cose.payload[3..];
    let stranger = Cose::sign(content, &cases.world.stranger).encode();
    let swapped = [&signature[48..], &signature[..48]].concat();
    let pcr0 = parsed.unverified_pcr(0).unwrap();
    let key = parsed.unverified_public_key().unwrap();
    let tagged = [&[0xd2], document].concat();
    let longer = [document, &[0]].concat();
    let made = parsed.unverified_timestamp_ms();
    for (name, rule, document) in [
        ("signature of zeros", "document.signature", signed(&[0; 96])),
        (
            "signature with a bit flipped",
            "document.signature",
            signed(&flipped),
        ),
        (
            "signature with r and s swapped",
            "document.signature",
            signed(&swapped),
        ),
        ("signature by a stranger", "document.signature", stranger),
        ("no signature", "cose.signature-size", signed(&[])),
        (
            "another PCR0",
            "document.signature",
            replaced(pcr0, &[7; 48]),
        ),
        (
            "another public key",
            "document.signature",
            replaced(key, &[7; 32]),
        ),
        ("another timestamp", "document.signature", {
            let time = made.to_be_bytes();
            replaced(&time, &(made + 1).to_be_bytes())
        }),
        ("under tag 18", ACCEPTED, tagged),
        ("with a zero byte behind it", "cbor.trailing", longer),
    ] {
        forgery(cases, id, name, rule, document, made);
    }
}

/// Chains that end in a key of the forger's.
fn forged_chains(cases: &mut Cases<'_>, id: &str, document: &[u8]) {
    let parsed = Document::parse(document).unwrap();
    let made = parsed.unverified_timestamp_ms();
    let chain: Vec<Vec<u8>> = parsed
        .unverified_certificates()
        .map(<[u8]>::to_vec)
        .collect();
    let (leaf, authorities) = chain.split_last().unwrap();
    let forger = World::of("forger");
    let key = &forger.keys[LEAF];
    let fields = |index: usize, from_ms: i64, to_ms: i64| Fields {
        validity: validity_at(made, from_ms, to_ms),
        ..forger.fields[index].clone()
    };
    let hour = 3_600_000;
    // A leaf that names this certificate as its issuer, which has not signed it.
    let below = |issuer: &[u8], from_ms: i64, to_ms: i64| {
        let mut fields = fields(LEAF, from_ms, to_ms);
        fields.issuer = subject(issuer);
        fields.sign(key)
    };
    let with = |authorities: &[Vec<u8>], leaf: Vec<u8>| {
        let mut chain = authorities.to_vec();
        chain.push(leaf);
        chain
    };
    // A chain of the forger's, whose root has this issuer and subject.
    let own = |issuer: &[u8], from_ms: i64, to_ms: i64| -> Vec<Vec<u8>> {
        (0..=LEAF)
            .map(|index| {
                let mut fields = fields(index, from_ms, to_ms);
                match index {
                    0 => {
                        fields.issuer = subject(issuer);
                        fields.subject = subject(issuer);
                    }
                    1 => fields.issuer = subject(issuer),
                    _ => {}
                }
                fields.sign(forger.issuer(index))
            })
            .collect()
    };
    let instance = &authorities[authorities.len() - 1];
    let mut other_key = leaf.clone();
    let (_, parsed_leaf) = X509Certificate::from_der(leaf).unwrap();
    let point = parsed_leaf.public_key().subject_public_key.data.to_vec();
    let at = leaf
        .windows(point.len())
        .position(|window| window == point)
        .unwrap();
    other_key[at..at + point.len()].copy_from_slice(key.point());
    let behind_root = {
        let mut chain = own(ROOT, -hour, hour);
        chain[0] = ROOT.to_vec();
        chain
    };
    let behind_chain = {
        let mut chain = authorities.to_vec();
        chain.extend(own(instance, -hour, hour).split_off(1));
        chain
    };
    for (name, rule, chain) in [
        (
            "forged leaf",
            "chain.signature",
            with(authorities, below(instance, -hour, hour)),
        ),
        (
            "forged leaf that has expired",
            "certificate.validity",
            with(authorities, below(instance, -2 * hour, -hour)),
        ),
        (
            "forged leaf that is not valid yet",
            "certificate.validity",
            with(authorities, below(instance, hour, 2 * hour)),
        ),
        (
            "forged leaf below the root alone",
            "chain.signature",
            with(&authorities[..1], below(ROOT, -hour, hour)),
        ),
        (
            "leaf with another key in it",
            "chain.signature",
            with(authorities, other_key),
        ),
        (
            "forged chain below AWS's root",
            "chain.signature",
            behind_root,
        ),
        (
            "forged chain below AWS's instance",
            "certificate.path-length",
            behind_chain,
        ),
        (
            "forged chain whose root has AWS's name",
            "chain.root",
            own(ROOT, -hour, hour),
        ),
        (
            "forged chain whose root has AWS's name, expired",
            "chain.root",
            own(ROOT, -2 * hour, -hour),
        ),
        (
            "forged chain whose root has AWS's name, not valid yet",
            "chain.root",
            own(ROOT, hour, 2 * hour),
        ),
        (
            "forged leaf that is the whole chain",
            "payload.cabundle",
            vec![below(ROOT, -hour, hour)],
        ),
        (
            "AWS's instance in place of the leaf",
            "certificate.authority",
            authorities.to_vec(),
        ),
        (
            "one authority missing",
            "chain.names",
            with(
                &[&authorities[..2], &authorities[3..]].concat(),
                leaf.clone(),
            ),
        ),
    ] {
        let document = signed(&parsed, &chain, key);
        forgery(cases, id, name, rule, document, made);
    }
}

fn forgery(
    cases: &mut Cases<'_>,
    id: &str,
    name: &str,
    rule: &str,
    document: Vec<u8>,
    time_ms: u64,
) {
    let case = cases.document(format!("forged from {id}: {name}"), rule, document);
    case.policy = format!("aws-{id}");
    case.root_file = AWS_ROOT;
    case.time_ms = time_ms;
}

/// What the document says, with this chain, signed by this key.
fn signed(document: &Document<'_>, chain: &[Vec<u8>], key: &Key) -> Vec<u8> {
    let registers: Vec<(u64, Vec<u8>)> = (0..32)
        .filter_map(|index| {
            let value = document.unverified_pcr(usize::try_from(index).unwrap())?;
            Some((index, value.to_vec()))
        })
        .collect();
    let optional = |value: Option<&[u8]>| value.map_or(vec![NULL], bytes);
    let payload = Payload::of(chain)
        .with("module_id", text(document.unverified_module_id()))
        .with("timestamp", unsigned(document.unverified_timestamp_ms()))
        .with("pcrs", map(&entries(&registers)))
        .with("public_key", optional(document.unverified_public_key()))
        .with("user_data", optional(document.unverified_user_data()))
        .with("nonce", optional(document.unverified_nonce()));
    Cose::sign(&map(&payload.0), key).encode()
}

/// A document's parts: AWS writes them in one form.
fn split(document: &[u8]) -> Cose {
    let (rest, signature) = document.split_at(document.len() - 98);
    let cose = Cose {
        start: rest[..1].to_vec(),
        protected: rest[1..6].to_vec(),
        unprotected: rest[6..7].to_vec(),
        payload: rest[7..].to_vec(),
        signature: signature.to_vec(),
        end: Vec::new(),
    };
    assert_eq!(cose.encode(), document);
    cose
}

/// A certificate's subject, as DER.
fn subject(certificate: &[u8]) -> Vec<u8> {
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    certificate.subject().as_raw().to_vec()
}
