//! A good chain, a good document, and the policy that accepts it.

use std::time::Duration;

use attestation::{Binding, Policy, Purpose};
use measurements::{Measurements, Pcr};

use crate::cose::{Cose, array, bytes, map, text, unsigned};
use crate::der::{
    DIGITAL_SIGNATURE, Fields, KEY_CERT_SIGN, Key, algorithm, basic_constraints, key_usage, name,
    public_key, sequence, utc_time,
};

/// The time of checking, in milliseconds since 1970: 2025-06-15T15:06:40Z.
pub(crate) const TIME_MS: u64 = 1_750_000_000_000;
pub(crate) const MAX_AGE_MS: u64 = 300_000;
pub(crate) const CLOCK_SKEW_MS: u64 = 60_000;

pub(crate) const MODULE_ID: &str = "i-0123456789abcdef0-enc0123456789abcdef";
pub(crate) const NONCE: &[u8] = b"nonce of this challenge";
pub(crate) const USER_DATA: &[u8] = b"user data: release 7";
pub(crate) const PUBLIC_KEY: &[u8] = b"public key";
/// Two images are allowed; documents are of the first.
pub(crate) const IMAGES: [Measurements; 2] = [image(0x10), image(0x20)];
pub(crate) const PCR16: Pcr = Pcr::new([0x16; 48]);

/// Certificates of a chain: root, regional, zonal, instance, leaf.
pub(crate) const LEAF: usize = 4;

const fn image(byte: u8) -> Measurements {
    Measurements {
        pcr0: Pcr::new([byte; 48]),
        pcr1: Pcr::new([byte + 1; 48]),
        pcr2: Pcr::new([byte + 2; 48]),
        pcr8: Some(Pcr::new([byte + 8; 48])),
    }
}

/// Accepts the good document, and demands something of each field.
pub(crate) fn policy() -> Policy {
    Policy::builder()
        .measurements(IMAGES[0])
        .measurements(IMAGES[1])
        .pcr(16, PCR16)
        .nonce(NONCE.to_vec())
        .purpose(Purpose::Workload)
        .bind_user_data(Binding::Prefix(b"user data".to_vec()))
        .public_key(PUBLIC_KEY.to_vec())
        .module_id("i-0123456789abcdef0-enc*")
        .max_age(Duration::from_millis(MAX_AGE_MS))
        .clock_skew(Duration::from_millis(CLOCK_SKEW_MS))
        .build()
        .unwrap()
}

/// Keys and certificates.
pub(crate) struct World {
    pub(crate) keys: Vec<Key>,
    /// A key that signed nothing that is good.
    pub(crate) stranger: Key,
    pub(crate) fields: Vec<Fields>,
    pub(crate) certificates: Vec<Vec<u8>>,
}

impl World {
    /// The world that most cases are of.
    pub(crate) fn new() -> Self {
        Self::of("good")
    }

    /// The world of this name: the same certificates for other keys.
    pub(crate) fn of(name_of_world: &str) -> Self {
        let key = |which: &str| Key::of(&format!("{name_of_world} {which}"));
        let keys: Vec<_> = (0..=LEAF).map(|index| key(&index.to_string())).collect();
        let names = ["root", "regional", "zonal", MODULE_ID_PARENT, MODULE_ID];
        let path_lengths = [None, Some(2), Some(1), Some(0)];
        let fields: Vec<_> = (0..=LEAF)
            .map(|index| {
                let extensions = match path_lengths.get(index) {
                    Some(limit) => vec![basic_constraints(true, *limit), key_usage(KEY_CERT_SIGN)],
                    None => vec![basic_constraints(false, None), key_usage(DIGITAL_SIGNATURE)],
                };
                Fields {
                    version: vec![0xa0, 3, 2, 1, 2],
                    serial: vec![2, 1, u8::try_from(index + 1).unwrap()],
                    inner_algorithm: algorithm("ecdsa-sha384"),
                    issuer: name(names[index.saturating_sub(1)]),
                    validity: validity(-3_600_000, 3_600_000),
                    subject: name(names[index]),
                    public_key: public_key("p384", keys[index].point()),
                    unique_ids: Vec::new(),
                    extensions,
                    after_extensions: Vec::new(),
                    outer_algorithm: algorithm("ecdsa-sha384"),
                    after_signature: Vec::new(),
                }
            })
            .collect();
        let certificates = (0..=LEAF)
            .map(|index| fields[index].sign(&keys[index.saturating_sub(1)]))
            .collect();
        Self {
            keys,
            stranger: key("stranger"),
            fields,
            certificates,
        }
    }

    /// The key that signs the certificate at this place.
    pub(crate) fn issuer(&self, index: usize) -> &Key {
        &self.keys[index.saturating_sub(1)]
    }

    /// The certificate at this place with some fields changed, signed well.
    pub(crate) fn reissue(&self, index: usize, change: impl FnOnce(&mut Fields)) -> Vec<u8> {
        let mut fields = self.fields[index].clone();
        change(&mut fields);
        fields.sign(self.issuer(index))
    }

    /// The good chain with another certificate at this place.
    pub(crate) fn replaced(&self, index: usize, certificate: Vec<u8>) -> Vec<Vec<u8>> {
        let mut chain = self.certificates.clone();
        chain[index] = certificate;
        chain
    }

    /// The chain with limits on the path's length only where AWS's root has
    /// them: nowhere.
    pub(crate) fn unlimited(&self) -> Vec<Vec<u8>> {
        (0..=LEAF)
            .map(|index| match index {
                0 | LEAF => self.certificates[index].clone(),
                _ => self.reissue(index, |fields| {
                    fields.extensions[0] = basic_constraints(true, None);
                }),
            })
            .collect()
    }

    pub(crate) fn payload(&self) -> Payload {
        Payload::of(&self.certificates)
    }

    /// A payload as a document, signed by the leaf's key.
    pub(crate) fn document(&self, payload: &Payload) -> Vec<u8> {
        self.signed(&map(&payload.0))
    }

    pub(crate) fn signed(&self, payload: &[u8]) -> Vec<u8> {
        self.cose(payload).encode()
    }

    pub(crate) fn cose(&self, payload: &[u8]) -> Cose {
        Cose::sign(payload, &self.keys[LEAF])
    }
}

const MODULE_ID_PARENT: &str = "i-0123456789abcdef0";

/// Validity from and to some milliseconds around the time of checking.
pub(crate) fn validity(from_ms: i64, to_ms: i64) -> Vec<u8> {
    validity_at(TIME_MS, from_ms, to_ms)
}

/// The same around another time.
pub(crate) fn validity_at(time_ms: u64, from_ms: i64, to_ms: i64) -> Vec<u8> {
    let time = i64::try_from(time_ms).unwrap();
    sequence(&[&utc_time(time + from_ms), &utc_time(time + to_ms)])
}

/// A payload's entries, keys and values as CBOR.
#[derive(Clone)]
pub(crate) struct Payload(pub(crate) Vec<(Vec<u8>, Vec<u8>)>);

impl Payload {
    /// A good document's, with this chain, root first, leaf last.
    pub(crate) fn of(chain: &[Vec<u8>]) -> Self {
        let (leaf, cabundle) = chain.split_last().unwrap();
        let cabundle: Vec<_> = cabundle.iter().map(|der| bytes(der)).collect();
        let fields = [
            ("module_id", text(MODULE_ID)),
            ("digest", text("SHA384")),
            ("timestamp", unsigned(TIME_MS - 1000)),
            ("pcrs", map(&entries(&pcrs()))),
            ("certificate", bytes(leaf)),
            ("cabundle", array(&cabundle)),
            ("public_key", bytes(PUBLIC_KEY)),
            ("user_data", bytes(USER_DATA)),
            ("nonce", bytes(NONCE)),
        ];
        Self(fields.map(|(key, value)| (text(key), value)).to_vec())
    }

    pub(crate) fn position(&self, key: &str) -> usize {
        let key = text(key);
        self.0.iter().position(|(found, _)| *found == key).unwrap()
    }

    pub(crate) fn set(&mut self, key: &str, value: Vec<u8>) {
        let position = self.position(key);
        self.0[position].1 = value;
    }

    pub(crate) fn with(mut self, key: &str, value: Vec<u8>) -> Self {
        self.set(key, value);
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        let position = self.position(key);
        self.0.remove(position);
        self
    }
}

/// The good document's registers.
pub(crate) fn pcrs() -> Vec<(u64, Vec<u8>)> {
    let image = IMAGES[0];
    (0..=16)
        .map(|index| {
            let value = match index {
                0 => image.pcr0,
                1 => image.pcr1,
                2 => image.pcr2,
                8 => image.pcr8.unwrap(),
                16 => PCR16,
                _ => Pcr::ZERO,
            };
            (index, value.as_bytes().to_vec())
        })
        .collect()
}

pub(crate) fn entries(pcrs: &[(u64, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pcrs.iter()
        .map(|(index, value)| (unsigned(*index), bytes(value)))
        .collect()
}
