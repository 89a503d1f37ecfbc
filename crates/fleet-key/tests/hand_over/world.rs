//! Enclaves, what was sent, and what holds of them.

mod acts;

use std::collections::BTreeSet;

use attestation::Purpose;
use fleet_key::hand_over::{Challenge, Generation, Member};
use measurements::Pcr;

use crate::cast::{Document, FIRST, Image, ModelSeed, OF_PARENT, ROLE, Sealed, fingerprint};

/// How often the parent may do what gives it new material. Everything else it may do at any
/// time, and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) boots: u8,
    pub(crate) creations: u8,
    pub(crate) challenges: u8,
    pub(crate) requests: u8,
}

/// A rule that can be left out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    Signer,
    Role,
    Family,
    GiverPurpose,
    ReceiverPurpose,
    LowerGeneration,
    ChallengeOnce,
    KeyOfDocument,
    GiftOfRequest,
    HeldStays,
    Pinned,
    LaterIsPinned,
    PinnedIsNotMade,
}

impl Rule {
    pub(crate) const ALL: [Self; 13] = [
        Self::Signer,
        Self::Role,
        Self::Family,
        Self::GiverPurpose,
        Self::ReceiverPurpose,
        Self::LowerGeneration,
        Self::ChallengeOnce,
        Self::KeyOfDocument,
        Self::GiftOfRequest,
        Self::HeldStays,
        Self::Pinned,
        Self::LaterIsPinned,
        Self::PinnedIsNotMade,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Enclave {
    image: Image,
    role: Pcr,
    member: Member<ModelSeed, u8>,
    /// The number of the seed that it held first.
    first: Option<u8>,
    challenged: u8,
    given: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    enclaves: Vec<Option<Enclave>>,
    budget: Budget,
    /// Of nonces, keys and seeds: the next of each.
    next: [u8; 3],
    challenges: BTreeSet<Challenge>,
    requests: BTreeSet<(Document, Generation)>,
    gifts: BTreeSet<(Document, Generation)>,
    sealed: BTreeSet<Sealed>,
    without: Option<Rule>,
}

type Acts = Vec<(String, World)>;

fn nonce(number: u8) -> Challenge {
    [number; 32]
}

fn generations() -> [Generation; 2] {
    [1, 2].map(|number| Generation::new(number).unwrap())
}

impl Enclave {
    fn boot(image: Image, role: Pcr) -> Self {
        Self {
            image,
            role,
            member: Member::new(image.rules()).unwrap(),
            first: None,
            challenged: 0,
            given: 0,
        }
    }

    fn document(&self, purpose: Purpose, nonce: &[u8], key: Option<u8>) -> Document {
        Document::of(self.member.rules(), self.role, purpose, nonce, key)
    }

    fn generation(&self) -> Generation {
        self.member.rules().generation
    }

    /// Forgets what it holds, as no rule allows.
    fn empty(&mut self) {
        self.member = Member::new(self.member.rules().clone()).unwrap();
    }

    fn note(&mut self) {
        let number = self.member.seed().map(|seed| seed.number);
        self.first = self.first.or(number);
    }
}

impl World {
    pub(crate) fn new(slots: usize, budget: Budget) -> Self {
        Self {
            enclaves: vec![None; slots],
            budget,
            next: [1, 1, FIRST],
            challenges: BTreeSet::new(),
            requests: BTreeSet::new(),
            gifts: BTreeSet::new(),
            sealed: BTreeSet::new(),
            without: None,
        }
    }

    pub(crate) fn without(mut self, rule: Rule) -> Self {
        self.without = Some(rule);
        self
    }

    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Enclave)> {
        let enclaves = self.enclaves.iter().enumerate();
        enclaves.filter_map(|(slot, enclave)| Some((slot, enclave.as_ref()?)))
    }

    /// What holds in every state.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (slot, enclave) in self.running() {
            let rules = enclave.member.rules();
            if enclave.given > enclave.challenged {
                return Err(format!("{slot} gave more often than it was to"));
            }
            let Some(seed) = enclave.member.seed() else {
                if enclave.first.is_some() {
                    return Err(format!("{slot} has lost its seed"));
                }
                continue;
            };
            if seed.number == OF_PARENT {
                return Err(format!("{slot} holds a seed that the parent knows"));
            }
            if enclave.first != Some(seed.number) {
                return Err(format!("the seed of {slot} was replaced"));
            }
            // A fault of the first generation, at its worst: the parent has read every seed
            // that its enclaves have made. The pinned one is what the family stands on.
            let is_of_retired = seed.made_by.is_some_and(|image| image != Image::Second);
            let is_later = enclave.generation() > Generation::MIN;
            if is_later && is_of_retired && seed.number != FIRST {
                return Err(format!("{slot} holds a seed that a retired image planted"));
            }
            if enclave.image.is_pinned() && seed.number != FIRST {
                return Err(format!("{slot} holds another seed than it accepts"));
            }
            let Some(from) = seed.from else {
                continue;
            };
            if from.is_payments != (enclave.image != Image::OtherFamily) {
                return Err(format!("{slot} holds another family's seed"));
            }
            if !from.has_role || enclave.role != ROLE {
                return Err(format!("a seed went over to {slot} under another role"));
            }
            if from.generation > rules.generation {
                return Err(format!("{slot} has a seed of a higher generation"));
            }
        }
        if self.sealed.iter().any(|sealed| sealed.key == OF_PARENT) {
            return Err("the parent knows a seed".to_owned());
        }
        Ok(())
    }

    /// From every state, an honest parent can hand over wherever the rules allow it,
    /// whatever was done before. How many hand-overs that are.
    pub(crate) fn progress(&self) -> Result<usize, String> {
        let mut count = 0;
        if self.without.is_some() {
            return Ok(count);
        }
        for (giver, from) in self.running() {
            let Some(seed) = from.member.seed() else {
                continue;
            };
            for (receiver, to) in self.running() {
                let rules = to.member.rules();
                let is_allowed = to.member.seed().is_none()
                    && rules.family == from.member.rules().family
                    && rules.generation >= from.generation()
                    && from.role == ROLE
                    && to.role == ROLE
                    && rules
                        .fingerprint
                        .is_none_or(|pinned| pinned == fingerprint(seed.number));
                if is_allowed {
                    self.hand_over(giver, receiver)
                        .ok_or_else(|| format!("{giver} cannot hand over to {receiver}"))?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    fn hand_over(&self, giver: usize, receiver: usize) -> Option<Self> {
        let mut world = self.clone();
        let challenge = nonce(world.next[0]);
        world = world.challenge(giver)?;
        world = world.request(receiver, challenge)?;
        let asked: Vec<_> = world.requests.difference(&self.requests).cloned().collect();
        let (document, generation) = asked.first()?;
        let known = world.clone();
        world = world.give(giver, challenge, document, *generation)?;
        let gift: Vec<_> = world.gifts.difference(&known.gifts).cloned().collect();
        let sealed: Vec<_> = world.sealed.difference(&known.sealed).cloned().collect();
        let (document, generation) = gift.first()?;
        world.take(receiver, document, *generation, sealed.first()?)
    }
}
