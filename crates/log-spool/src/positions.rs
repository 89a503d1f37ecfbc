//! How far each stream of each boot has come.

use link::BootId;
use link::logs::LogStream;

/// How many streams there are.
pub(super) const STREAMS: usize = LogStream::ALL.len();
/// Most boots whose positions are kept; those that stored last stay.
pub(super) const MAX_BOOTS: usize = 16;

/// The boot that records are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Boot(pub [u8; 16]);

impl Boot {
    /// What the agent's own records are of.
    pub const AGENT: Self = Self([0; 16]);

    /// The boot of an enclave: 16 bytes, not all zero.
    pub fn new(id: &BootId) -> Option<Self> {
        let bytes: &[u8] = id;
        let boot = Self(bytes.try_into().ok()?);
        (boot != Self::AGENT).then_some(boot)
    }
}

/// The last number held of each stream, by boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Positions {
    /// The boot that stored last is the last.
    boots: Vec<(Boot, [u64; STREAMS])>,
}

impl Positions {
    pub(super) fn boots(&self) -> &[(Boot, [u64; STREAMS])] {
        &self.boots
    }

    /// The last numbers of a boot; zeros where nothing is held.
    pub(super) fn get(&self, boot: Boot) -> [u64; STREAMS] {
        self.boots
            .iter()
            .find(|(known, _)| *known == boot)
            .map_or([0; STREAMS], |(_, last)| *last)
    }

    /// Sets the last numbers of a boot; the oldest boot gives way where there
    /// are too many.
    pub(super) fn set(&mut self, boot: Boot, last: [u64; STREAMS]) {
        self.boots.retain(|(known, _)| *known != boot);
        if self.boots.len() >= MAX_BOOTS {
            let oldest = self
                .boots
                .iter()
                .position(|(known, _)| *known != Boot::AGENT);
            self.boots.remove(oldest.unwrap_or(0));
        }
        self.boots.push((boot, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_position_outlives_many_boots() {
        let mut positions = Positions::default();
        positions.set(Boot::AGENT, [0, 7, 0, 0]);
        for number in 1..=40 {
            positions.set(Boot([number; 16]), [u64::from(number); STREAMS]);
        }
        assert_eq!(positions.boots().len(), MAX_BOOTS);
        assert_eq!(positions.get(Boot::AGENT), [0, 7, 0, 0]);
        assert_eq!(positions.get(Boot([40; 16])), [40; STREAMS]);
        assert_eq!(positions.get(Boot([2; 16])), [0; STREAMS]);
    }

    #[test]
    fn a_boot_has_sixteen_bytes_that_are_not_all_zero() {
        let id = |bytes: Vec<u8>| BootId::new(bytes).unwrap();
        assert_eq!(Boot::new(&id(vec![1; 16])), Some(Boot([1; 16])));
        assert_eq!(Boot::new(&id(vec![0; 16])), None);
        assert_eq!(Boot::new(&id(vec![1; 15])), None);
        assert_eq!(Boot::new(&id(vec![])), None);
    }
}
