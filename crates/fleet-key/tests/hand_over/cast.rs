//! Who and what there is: images, seeds, documents, and what is encrypted.

use std::sync::LazyLock;

use attestation::Purpose;
use fleet_key::hand_over::{Claims, Context, Generation, Rules, register};
use fleet_key::{Fingerprint, Seed};
use measurements::Pcr;

/// PCR8 of the family's images, and of the parent's own.
pub(crate) const SIGNER: Pcr = Pcr::new([1; 48]);
const OTHER_SIGNER: Pcr = Pcr::new([2; 48]);
/// PCR3 where the family is to run, and elsewhere.
pub(crate) const ROLE: Pcr = Pcr::new([3; 48]);
pub(crate) const OTHER_ROLE: Pcr = Pcr::new([4; 48]);
/// The parent's key, its seed, and the seed that images pin: the first that is made.
pub(crate) const OF_PARENT: u8 = 0;
pub(crate) const FIRST: u8 = 1;

/// What the parent can boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Image {
    First,
    FirstPinned,
    Second,
    OtherFamily,
}

impl Image {
    pub(crate) const ALL: [Self; 4] = [
        Self::First,
        Self::FirstPinned,
        Self::Second,
        Self::OtherFamily,
    ];

    /// Whether it accepts the first seed only.
    pub(crate) const fn is_pinned(self) -> bool {
        matches!(self, Self::FirstPinned | Self::Second)
    }

    pub(crate) fn rules(self) -> Rules {
        let family = match self {
            Self::OtherFamily => "billing",
            _ => "payments",
        };
        let generation = match self {
            Self::First | Self::FirstPinned | Self::OtherFamily => 1,
            Self::Second => 2,
        };
        Rules {
            family: family.parse().unwrap(),
            generation: Generation::new(generation).unwrap(),
            signer: SIGNER,
            role: Some(ROLE),
            fingerprint: self.is_pinned().then(|| fingerprint(FIRST)),
        }
    }
}

/// A seed, which image has made it, if it is not the parent's own, and who handed it over, if
/// it was not made where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ModelSeed {
    pub(crate) number: u8,
    pub(crate) made_by: Option<Image>,
    pub(crate) from: Option<From>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct From {
    pub(crate) generation: Generation,
    pub(crate) is_payments: bool,
    pub(crate) has_role: bool,
}

/// What a seed of this number is known by, in the family that pins it.
pub(crate) fn fingerprint(number: u8) -> Fingerprint {
    static KNOWN: LazyLock<Vec<Fingerprint>> = LazyLock::new(|| {
        let family = "payments".parse().unwrap();
        let seeds = (0..=u8::MAX).map(|number| Seed::new(&[number; Seed::BYTES]).unwrap());
        seeds.map(|seed| seed.fingerprint(&family)).collect()
    });
    KNOWN[usize::from(number)]
}

/// A document that somebody could have made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Document {
    pub(crate) purpose: String,
    pub(crate) signer: [u8; 48],
    pub(crate) role: [u8; 48],
    pub(crate) register: [u8; 48],
    pub(crate) nonce: Vec<u8>,
    pub(crate) key: Option<Vec<u8>>,
}

impl Document {
    /// Other bytes for every other document.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let key = self.key.as_ref().map_or(0, |key| 1 + u16::from(key[0]));
        [
            self.purpose.as_bytes(),
            &self.signer,
            &self.role,
            &self.register,
            &key.to_be_bytes(),
            &self.nonce,
        ]
        .concat()
    }

    pub(crate) fn claims(&self) -> Claims<'_> {
        Claims {
            purpose: self.purpose.parse().unwrap(),
            signer: Pcr::new(self.signer),
            role: Pcr::new(self.role),
            register: Pcr::new(self.register),
            nonce: &self.nonce,
            public_key: self.key.as_deref(),
        }
    }

    /// Of an enclave with these rules, on a parent with this role.
    pub(crate) fn of(
        rules: &Rules,
        role: Pcr,
        purpose: Purpose,
        nonce: &[u8],
        key: Option<u8>,
    ) -> Self {
        Self {
            purpose: purpose.to_string(),
            signer: *rules.signer.as_bytes(),
            role: *role.as_bytes(),
            register: *register(&rules.family, rules.generation).as_bytes(),
            nonce: nonce.to_vec(),
            key: key.map(|key| vec![key]),
        }
    }

    /// Those that the parent has made: by an image of its own and by one in debug mode, in
    /// which everything else is as it is to be.
    pub(crate) fn forged(purpose: Purpose, nonce: &[u8], generation: Generation) -> [Self; 2] {
        [OTHER_SIGNER, Pcr::ZERO].map(|signer| {
            let rules = Rules {
                signer,
                generation,
                ..Image::First.rules()
            };
            Self::of(&rules, ROLE, purpose, nonce, Some(OF_PARENT))
        })
    }
}

/// A seed that is encrypted to a key, for a context.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sealed {
    pub(crate) key: u8,
    pub(crate) context: Vec<u8>,
    pub(crate) seed: ModelSeed,
}

impl Sealed {
    pub(crate) fn new(key: u8, context: &Context, seed: ModelSeed) -> Self {
        let context = context.as_bytes().to_vec();
        Self { key, context, seed }
    }

    /// Other bytes for every other ciphertext.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // No two images have made seeds of one number.
        let ModelSeed { number, from, .. } = self.seed;
        let generation = from.map_or(0, |from| from.generation.get());
        let of = from.map_or([false; 2], |from| [from.is_payments, from.has_role]);
        [
            [self.key, number].as_slice(),
            &generation.to_be_bytes(),
            &of.map(u8::from),
            &self.context,
        ]
        .concat()
    }
}
