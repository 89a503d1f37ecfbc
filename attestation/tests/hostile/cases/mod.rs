//! Every case, from a fresh chain.

mod aws;
mod certificate;
mod chain;
mod cose;
mod demands;
mod nitro_tpm;
mod partitions;
mod payload;
mod policy;
mod registers;

use std::collections::BTreeMap;

use crate::corpus::{AWS_ROOT, Case, Demands, Files, TEST_ROOT, files};
use crate::world::{Payload, TIME_MS, World};

/// The policy that most cases are held against.
const TWO_IMAGES: &str = "two-images";

/// Collects cases.
pub(crate) struct Cases<'a> {
    world: &'a World,
    roots: BTreeMap<&'static str, Vec<Vec<u8>>>,
    demands: BTreeMap<String, Demands>,
    all: Vec<Case>,
}

/// The corpus, the same each time.
pub(crate) fn generate() -> Files {
    let world = World::new();
    let mut cases = Cases {
        world: &world,
        roots: BTreeMap::from([
            (TEST_ROOT, vec![world.certificates[0].clone()]),
            (AWS_ROOT, vec![aws::ROOT.to_vec()]),
        ]),
        demands: demands::of_images(),
        all: Vec::new(),
    };
    cose::add(&mut cases);
    payload::add(&mut cases);
    registers::add(&mut cases);
    certificate::add(&mut cases);
    chain::add(&mut cases);
    policy::add(&mut cases);
    partitions::add(&mut cases);
    nitro_tpm::add(&mut cases);
    aws::add(&mut cases);
    files(&cases.roots, &cases.demands, &cases.all)
}

impl Cases<'_> {
    /// A document that this rule refuses, or that is accepted.
    fn document(&mut self, name: impl Into<String>, rule: &str, document: Vec<u8>) -> &mut Case {
        self.all.push(Case {
            name: name.into(),
            rule: rule.to_owned(),
            document,
            root: None,
            root_file: TEST_ROOT,
            policy: TWO_IMAGES.to_owned(),
            expectations: None,
            time_ms: TIME_MS,
            aws: None,
        });
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    /// A payload, signed well.
    fn payload(&mut self, name: impl Into<String>, rule: &str, payload: &Payload) -> &mut Case {
        let document = self.world.document(payload);
        self.document(name, rule, document)
    }

    /// A payload of any bytes, signed well.
    fn payload_bytes(&mut self, name: impl Into<String>, rule: &str, payload: &[u8]) {
        let document = self.world.signed(payload);
        self.document(name, rule, document);
    }

    /// A chain in a document that its leaf signs.
    fn chain(&mut self, name: impl Into<String>, rule: &str, chain: &[Vec<u8>]) -> &mut Case {
        let payload = Payload::of(chain);
        self.payload(name, rule, &payload)
    }

    /// The same, with the chain's root pinned.
    fn chain_of_pinned_root(&mut self, name: impl Into<String>, rule: &str, chain: &[Vec<u8>]) {
        self.chain(name, rule, chain).root = chain.first().cloned();
    }
}

/// One item of each kind that CBOR has, by name.
fn items() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("an integer", vec![0x07]),
        ("a negative integer", vec![0x26]),
        ("a byte string", vec![0x41, 0x07]),
        ("an indefinite byte string", vec![0x5f, 0x41, 0x07, 0xff]),
        ("a text", vec![0x61, 0x61]),
        ("an indefinite text", vec![0x7f, 0x61, 0x61, 0xff]),
        ("an array", vec![0x81, 0x07]),
        ("an indefinite array", vec![0x9f, 0x07, 0xff]),
        ("a map", vec![0xa1, 0x07, 0x07]),
        ("a tag", vec![0xc0, 0x61, 0x61]),
        ("false", vec![0xf4]),
        ("null", vec![0xf6]),
        ("undefined", vec![0xf7]),
        ("a simple value", vec![0xe0]),
        ("a half float", vec![0xf9, 0x3c, 0x00]),
        ("a double float", vec![0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("a break", vec![0xff]),
        ("a reserved length", vec![0x5c]),
    ]
}
