//! What a key is known by.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;

pub(crate) const ID_BYTES: usize = 16;

/// A key's identifier, a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyId([u8; ID_BYTES]);

impl KeyId {
    pub(crate) fn random() -> Result<Self, Unspecified> {
        let mut bytes = [0; ID_BYTES];
        rand::fill(&mut bytes)?;
        // Version 4, variant 1 (RFC 9562, section 5.4).
        let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
        *version = *version & 0x0f | 0x40;
        *variant = *variant & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; ID_BYTES]> for KeyId {
    fn from(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = hex::encode(self.0);
        let mut rest = digits.as_str();
        for length in [8, 4, 4, 4] {
            let (group, others) = rest.split_at(length);
            write!(f, "{group}-")?;
            rest = others;
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_uuids_of_version_4() {
        let id = KeyId([0xff; ID_BYTES]).to_string();
        assert_eq!(id, "ffffffff-ffff-ffff-ffff-ffffffffffff");
        let id = KeyId::random().unwrap().to_string();
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
    }
}
