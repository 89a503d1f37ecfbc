//! Every case, from a fresh chain.

mod certificate;
mod chain;
mod cose;
mod payload;
mod policy;
mod registers;

use crate::corpus::{Case, Corpus};
use crate::world::{Payload, World};

/// Collects cases.
pub(crate) struct Cases<'a> {
    world: &'a World,
    cases: Vec<Case>,
}

/// A corpus under new keys.
pub(crate) fn generate() -> Corpus {
    let world = World::new();
    let mut cases = Cases {
        world: &world,
        cases: Vec::new(),
    };
    cose::add(&mut cases);
    payload::add(&mut cases);
    registers::add(&mut cases);
    certificate::add(&mut cases);
    chain::add(&mut cases);
    policy::add(&mut cases);
    let cases = cases.cases;
    Corpus {
        root: world.certificates[0].clone(),
        base: world.document(&world.payload()),
        cases,
    }
}

impl Cases<'_> {
    /// A document that this rule refuses.
    fn document(&mut self, name: impl Into<String>, rule: &str, document: Vec<u8>) {
        self.cases.push(Case {
            name: name.into(),
            rule: rule.to_owned(),
            document,
            root: None,
        });
    }

    /// A payload, signed well.
    fn payload(&mut self, name: impl Into<String>, rule: &str, payload: &Payload) {
        let document = self.world.document(payload);
        self.document(name, rule, document);
    }

    /// A payload of any bytes, signed well.
    fn payload_bytes(&mut self, name: impl Into<String>, rule: &str, payload: &[u8]) {
        let document = self.world.signed(payload);
        self.document(name, rule, document);
    }

    /// A chain in a document that its leaf signs.
    fn chain(&mut self, name: impl Into<String>, rule: &str, chain: &[Vec<u8>]) {
        let payload = Payload::of(chain);
        self.payload(name, rule, &payload);
    }

    /// The same, with the chain's root pinned.
    fn chain_of_pinned_root(&mut self, name: impl Into<String>, rule: &str, chain: &[Vec<u8>]) {
        self.chain(name, rule, chain);
        if let Some(case) = self.cases.last_mut() {
            case.root = chain.first().cloned();
        }
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
