//! Documents, CBOR by hand: every item can be wrong.

use crate::der::Key;

/// An item's first bytes: major type and argument in the shortest form.
pub(crate) fn head(major: u8, argument: u64) -> Vec<u8> {
    let major = major << 5;
    match argument {
        0..24 => vec![major | u8::try_from(argument).unwrap()],
        24..0x100 => vec![major | 0x18, u8::try_from(argument).unwrap()],
        0x100..0x1_0000 => {
            let argument = u16::try_from(argument).unwrap();
            [&[major | 0x19], argument.to_be_bytes().as_slice()].concat()
        }
        0x1_0000..0x1_0000_0000 => {
            let argument = u32::try_from(argument).unwrap();
            [&[major | 0x1a], argument.to_be_bytes().as_slice()].concat()
        }
        _ => [&[major | 0x1b], argument.to_be_bytes().as_slice()].concat(),
    }
}

/// An item's first bytes with the argument in eight bytes, whatever it is.
pub(crate) fn long_head(major: u8, argument: u64) -> Vec<u8> {
    [&[(major << 5) | 0x1b], argument.to_be_bytes().as_slice()].concat()
}

pub(crate) fn unsigned(value: u64) -> Vec<u8> {
    head(0, value)
}

pub(crate) fn bytes(content: &[u8]) -> Vec<u8> {
    [head(2, content.len() as u64), content.to_vec()].concat()
}

pub(crate) fn text(content: &str) -> Vec<u8> {
    [head(3, content.len() as u64), content.as_bytes().to_vec()].concat()
}

pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

pub(crate) fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    [head(5, entries.len() as u64), flat(entries)].concat()
}

pub(crate) fn indefinite_map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    [vec![0xbf], flat(entries), vec![0xff]].concat()
}

/// The entries of a map, without its head.
pub(crate) fn flat(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(key, value)| [key.clone(), value.clone()].concat())
        .collect()
}

pub(crate) const NULL: u8 = 0xf6;

/// A `COSE_Sign1`, part by part, each as CBOR.
#[derive(Clone)]
pub(crate) struct Cose {
    pub(crate) start: Vec<u8>,
    pub(crate) protected: Vec<u8>,
    pub(crate) unprotected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Cose {
    /// A good one.
    pub(crate) fn sign(payload: &[u8], key: &Key) -> Self {
        Self::sign_with_header(payload, &[0xa1, 0x01, 0x38, 0x22], key)
    }

    /// One with this protected header.
    pub(crate) fn sign_with_header(payload: &[u8], header: &[u8], key: &Key) -> Self {
        let signature = key.sign_fixed(&signed_bytes("Signature1", header, &[], payload));
        Self {
            start: vec![0x84],
            protected: bytes(header),
            unprotected: vec![0xa0],
            payload: bytes(payload),
            signature: bytes(&signature),
            end: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [
            &*self.start,
            &self.protected,
            &self.unprotected,
            &self.payload,
            &self.signature,
            &self.end,
        ]
        .concat()
    }
}

/// What a signature covers (RFC 9052, section 4.4).
pub(crate) fn signed_bytes(context: &str, header: &[u8], aad: &[u8], payload: &[u8]) -> Vec<u8> {
    array(&[text(context), bytes(header), bytes(aad), bytes(payload)])
}
