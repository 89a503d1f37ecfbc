//! What the cases are held against: each policy, and the same in words of no verifier
//! in particular.

use std::collections::BTreeMap;

use attestation::{Document, Policy, Profile};
use measurements::{Measurements, Pcr};
use serde_json::{Value, json};

use super::TWO_IMAGES;
use crate::corpus::Demands;
use crate::world::{self, CLOCK_SKEW_MS, IMAGES, MAX_AGE_MS, NONCE, PCR16, PUBLIC_KEY};

/// The name of the policy for documents of a NitroTPM.
pub(super) const NITRO_TPM: &str = "nitro-tpm";
/// What a TPM measures of how an instance starts.
pub(super) const TPM_REGISTERS: [(u8, Pcr); 3] = [
    (4, Pcr::new([0x24; 48])),
    (7, Pcr::new([0x27; 48])),
    (12, Pcr::new([0x2c; 48])),
];

/// Those of the generated documents.
pub(super) fn of_images() -> BTreeMap<String, Demands> {
    let of_image = |image: Measurements| {
        let registers = [
            (0, image.pcr0),
            (1, image.pcr1),
            (2, image.pcr2),
            (8, image.pcr8.unwrap_or(Pcr::ZERO)),
            (16, PCR16),
        ];
        let mut expectations = expectations(&registers);
        expectations["nonce"] = json!(hex::encode(NONCE));
        expectations["user_data_prefix"] = json!(hex::encode(b"user data"));
        expectations["public_key"] = json!(hex::encode(PUBLIC_KEY));
        expectations["module_id"] = json!("i-0123456789abcdef0-enc*");
        expectations
    };
    let mut tpm = Policy::builder()
        .profile(Profile::NitroTpm)
        .nonce(NONCE.to_vec());
    for (index, value) in TPM_REGISTERS {
        tpm = tpm.pcr(index, value);
    }
    let mut of_tpm = expectations(&TPM_REGISTERS);
    of_tpm["profile"] = json!("nitro-tpm");
    of_tpm["nonce"] = json!(hex::encode(NONCE));
    let pair = |policy, expectations| Demands {
        policy,
        expectations,
    };
    let demands = [
        (TWO_IMAGES, pair(Some(world::policy()), of_image(IMAGES[0]))),
        // The same policy, for a verifier that is told of one image.
        ("second-image", pair(None, of_image(IMAGES[1]))),
        (NITRO_TPM, pair(Some(tpm.build().unwrap()), of_tpm)),
    ];
    demands
        .map(|(name, demands)| (name.to_owned(), demands))
        .into()
}

/// Those of a document that AWS signed: every register, and every other field that it has.
pub(super) fn of_document(document: &Document<'_>) -> Demands {
    let registers: Vec<(u8, Pcr)> = (0..32)
        .filter_map(|index| {
            let value = document.unverified_pcr(usize::from(index))?;
            Some((index, Pcr::new(*value)))
        })
        .collect();
    let debug = is_debug(document);
    let mut policy = Policy::builder().module_id(document.unverified_module_id());
    let mut expectations = expectations(&registers);
    for (index, value) in &registers {
        policy = policy.pcr(*index, *value);
    }
    if debug {
        policy = policy.allow_any_image().allow_debug();
        expectations["allow_debug"] = json!(true);
    }
    expectations["module_id"] = json!(document.unverified_module_id());
    if let Some(nonce) = document.unverified_nonce() {
        policy = policy.nonce(nonce.to_vec());
        expectations["nonce"] = json!(hex::encode(nonce));
    }
    if let Some(user_data) = document.unverified_user_data() {
        policy = policy.user_data(user_data.to_vec());
        expectations["user_data_prefix"] = json!(hex::encode(user_data));
    }
    if let Some(key) = document.unverified_public_key() {
        policy = policy.public_key(key.to_vec());
        expectations["public_key"] = json!(hex::encode(key));
    }
    Demands {
        policy: Some(policy.build().unwrap()),
        expectations,
    }
}

/// The same with one demand that no document of AWS's meets, or without any but that it
/// is of no debug mode.
pub(super) fn unmet() -> BTreeMap<String, Demands> {
    let any = || Policy::builder().allow_any_image();
    let pcr0 = Pcr::new([7; 48]);
    let another_pcr0 = Policy::builder().pcr(0, pcr0).allow_debug();
    let mut nonce = expectations(&[]);
    nonce["nonce"] = json!(hex::encode(b"another nonce"));
    nonce["allow_debug"] = json!(true);
    let mut register = expectations(&[(0, pcr0)]);
    register["allow_debug"] = json!(true);
    let demands = [
        (
            "another-nonce",
            any().allow_debug().nonce(b"another nonce".to_vec()),
            nonce,
        ),
        ("another-pcr0", another_pcr0, register),
        ("any-image", any(), expectations(&[])),
    ];
    demands
        .map(|(name, policy, expectations)| {
            let demands = Demands {
                policy: Some(policy.build().unwrap()),
                expectations,
            };
            (name.to_owned(), demands)
        })
        .into()
}

pub(super) fn is_debug(document: &Document<'_>) -> bool {
    document.unverified_pcr(0) == Some(&[0; 48])
}

/// Expectations of these registers and nothing else.
fn expectations(registers: &[(u8, Pcr)]) -> Value {
    let pcrs: BTreeMap<String, String> = registers
        .iter()
        .map(|(index, value)| (index.to_string(), hex::encode(value.as_bytes())))
        .collect();
    json!({
        "profile": "enclave",
        "pcrs": pcrs,
        "allow_debug": false,
        "nonce": null,
        "user_data_prefix": null,
        "public_key": null,
        "module_id": null,
        "max_age_ms": MAX_AGE_MS,
        "clock_skew_ms": CLOCK_SKEW_MS,
    })
}
