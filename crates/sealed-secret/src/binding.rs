//! The state of the enclave that a secret is for.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA384, SHA384_OUTPUT_LEN};
use measurements::{PCR_COUNT, Pcr};

/// The module and the registers that a secret is bound to. It opens only where all of
/// them are as they were when it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    module_id: String,
    registers: BTreeMap<u8, Pcr>,
}

impl Binding {
    /// The binding to this module and these registers, of which those above the last are
    /// left out: no enclave has them.
    pub fn new(
        module_id: impl Into<String>,
        registers: impl IntoIterator<Item = (u8, Pcr)>,
    ) -> Self {
        Self {
            module_id: module_id.into(),
            registers: registers
                .into_iter()
                .filter(|(index, _)| usize::from(*index) < PCR_COUNT)
                .collect(),
        }
    }

    /// Which registers are bound: bit *n* stands for register *n*.
    pub(crate) fn mask(&self) -> u32 {
        self.registers
            .keys()
            .fold(0, |mask, index| mask | 1 << index)
    }

    /// SHA-384 over the module's id, which its length precedes, and each register's index
    /// and value, in order.
    pub(crate) fn digest(&self) -> [u8; SHA384_OUTPUT_LEN] {
        let mut context = Context::new(&SHA384);
        context.update(&(self.module_id.len() as u64).to_be_bytes());
        context.update(self.module_id.as_bytes());
        for (index, value) in &self.registers {
            context.update(&[*index]);
            context.update(value.as_bytes());
        }
        let mut digest = [0; SHA384_OUTPUT_LEN];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(module_id: &str, registers: &[(u8, u8)]) -> Binding {
        let registers = registers
            .iter()
            .map(|(index, byte)| (*index, Pcr::new([*byte; 48])));
        Binding::new(module_id, registers)
    }

    #[test]
    fn binding_differs_with_everything_in_it() {
        let all = [
            binding("i-1-enc1", &[]),
            binding("i-1-enc2", &[]),
            binding("i-1-enc1", &[(0, 1)]),
            binding("i-1-enc1", &[(0, 2)]),
            binding("i-1-enc1", &[(1, 1)]),
            binding("i-1-enc1", &[(0, 1), (31, 0)]),
            binding("i-1-enc1", &[(0, 1), (30, 0)]),
        ];
        for (index, one) in all.iter().enumerate() {
            for (other_index, other) in all.iter().enumerate() {
                assert_eq!(one.digest() == other.digest(), index == other_index);
            }
        }
        // Their order is the registers' own.
        let ordered = binding("i", &[(0, 1), (3, 2)]);
        assert_eq!(binding("i", &[(3, 2), (0, 1)]).digest(), ordered.digest());
    }

    #[test]
    fn binding_names_its_registers_and_no_others() {
        let mask = binding("i", &[(0, 1), (4, 0), (31, 9), (32, 1), (255, 1)]).mask();
        assert_eq!(mask, 1 | 1 << 4 | 1 << 31);
    }
}
