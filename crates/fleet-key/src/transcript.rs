//! What a seed is sealed for: one hand-over, between two enclaves.

use crate::family::Family;
use crate::message::Nonce;

/// The beginning of HPKE's `info`.
const SEALED: &[u8] = b"enclave family seed, version 1\0";

/// One hand-over, as both sides know it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transcript {
    /// The giver's nonce.
    pub offer: Nonce,
    /// The receiver's nonce.
    pub ask: Nonce,
    /// The giver's module.
    pub giver: String,
    /// The receiver's module.
    pub receiver: String,
    /// The giver's generation.
    pub giver_generation: u64,
    /// The receiver's generation.
    pub receiver_generation: u64,
}

impl Transcript {
    /// What HPKE binds the seed to.
    pub fn info(&self, family: &Family) -> Vec<u8> {
        let mut info = SEALED.to_vec();
        for part in [family.as_str(), &self.giver, &self.receiver] {
            info.extend((part.len() as u64).to_be_bytes());
            info.extend(part.as_bytes());
        }
        info.extend(self.offer.as_bytes());
        info.extend(self.ask.as_bytes());
        info.extend(self.giver_generation.to_be_bytes());
        info.extend(self.receiver_generation.to_be_bytes());
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_differ_with_everything_in_them() {
        let transcript = |giver: &str, receiver: &str, numbers: [u8; 4]| {
            let [offer, ask, giver_generation, receiver_generation] = numbers;
            Transcript {
                offer: Nonce::new([offer; 32]),
                ask: Nonce::new([ask; 32]),
                giver: giver.to_owned(),
                receiver: receiver.to_owned(),
                giver_generation: giver_generation.into(),
                receiver_generation: receiver_generation.into(),
            }
        };
        let (a, b): (Family, Family) = ("a".parse().unwrap(), "b".parse().unwrap());
        let all = [
            transcript("i-1", "i-2", [1, 2, 3, 4]).info(&a),
            transcript("i-1", "i-2", [1, 2, 3, 4]).info(&b),
            transcript("i-2", "i-1", [1, 2, 3, 4]).info(&a),
            transcript("i-1i", "-2", [1, 2, 3, 4]).info(&a),
            transcript("i-1", "i-2", [9, 2, 3, 4]).info(&a),
            transcript("i-1", "i-2", [1, 9, 3, 4]).info(&a),
            transcript("i-1", "i-2", [1, 2, 9, 4]).info(&a),
            transcript("i-1", "i-2", [1, 2, 3, 9]).info(&a),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(index));
        }
    }
}
