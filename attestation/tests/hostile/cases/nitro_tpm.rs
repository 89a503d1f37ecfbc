//! Documents of a NitroTPM, and of an enclave where a NitroTPM's are expected.

use super::Cases;
use super::demands::{NITRO_TPM, TPM_REGISTERS};
use crate::corpus::ACCEPTED;
use crate::cose::{map, text};
use crate::world::{Payload, entries};

/// How many registers such documents have.
const REGISTERS: u64 = 24;

pub(super) fn add(cases: &mut Cases<'_>) {
    let good = cases.world.payload();
    let with = |change: Option<(u8, Option<[u8; 48]>)>| {
        let mut registers: Vec<(u64, Vec<u8>)> = (0..REGISTERS)
            .map(|index| {
                let value = TPM_REGISTERS
                    .iter()
                    .find(|(known, _)| u64::from(*known) == index);
                let value = value.map_or([0; 48], |(_, value)| *value.as_bytes());
                (index, value.to_vec())
            })
            .collect();
        match change {
            Some((index, Some(value))) => registers[usize::from(index)].1 = value.to_vec(),
            Some((index, None)) => {
                registers.remove(usize::from(index));
            }
            None => {}
        }
        of_tpm(good.clone(), &registers)
    };
    let mut add = |name: String, rule: &str, payload: &Payload| {
        let case = cases.payload(name, rule, payload);
        NITRO_TPM.clone_into(&mut case.policy);
    };
    add("NitroTPM".to_owned(), ACCEPTED, &with(None));
    for (index, _) in TPM_REGISTERS {
        let rule = format!("policy.pcr.{index}");
        for (name, value) in [
            ("of another value", Some([7; 48])),
            ("of zeros", Some([0; 48])),
            ("absent", None),
        ] {
            let name = format!("NitroTPM: PCR{index} {name}");
            add(name, &rule, &with(Some((index, value))));
        }
    }
    let name = "an enclave where a NitroTPM is expected";
    add(name.to_owned(), "policy.profile", &good);
    let name = "a NitroTPM where an enclave is expected";
    cases.payload(name, "policy.profile", &with(None));
}

/// The payload with registers of a TPM in place of an enclave's.
fn of_tpm(mut payload: Payload, registers: &[(u64, Vec<u8>)]) -> Payload {
    let position = payload.position("pcrs");
    payload.0[position] = (text("nitrotpm_pcrs"), map(&entries(registers)));
    payload.with("module_id", text("i-0123456789abcdef0-tpm0123456789abcdef"))
}
