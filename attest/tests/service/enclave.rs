//! Enclaves in software, under one root.

use std::sync::Mutex;
use std::time::SystemTime;

use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use serde_bytes::ByteBuf;
use software_nsm::{Identity, SoftwareNsm, TestRoot};

/// What the policy `payments` allows.
pub(crate) const MEASUREMENTS: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

pub(crate) struct Enclave {
    module: Mutex<SoftwareNsm>,
    pub(crate) root_pem: String,
}

impl Enclave {
    pub(crate) fn new(measurements: Option<Measurements>) -> Self {
        Self::with_clock(measurements, SystemTime::now)
    }

    /// An enclave whose hypervisor has this clock.
    pub(crate) fn with_clock(
        measurements: Option<Measurements>,
        clock: fn() -> SystemTime,
    ) -> Self {
        let root = TestRoot::generate().unwrap();
        let root_pem = root.certificate_pem().to_owned();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".into(),
            enclave_id: "enc0123456789abcdef".into(),
            measurements,
        };
        Self {
            module: Mutex::new(SoftwareNsm::with_clock(identity, root, clock).unwrap()),
            root_pem,
        }
    }

    pub(crate) fn attest(&self, nonce: &[u8]) -> Vec<u8> {
        let request = Request::Attestation {
            user_data: Some(ByteBuf::from(b"user data".to_vec())),
            nonce: Some(ByteBuf::from(nonce.to_vec())),
            public_key: Some(ByteBuf::from(b"public key".to_vec())),
        };
        match self.module.lock().unwrap().answer(request) {
            Response::Attestation { document } => document,
            other => panic!("{other:?}"),
        }
    }
}
