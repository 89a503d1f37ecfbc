//! Enclaves, what was sent, and what the parent may do next.

use std::collections::BTreeSet;

use attestation::Purpose;
use fleet_key::hand_over::{Challenge, Claims, Generation, Gift, Member, Request, register};
use measurements::Pcr;

use crate::cast::{
    Document, FIRST, From, Image, ModelSeed, OF_PARENT, OTHER_ROLE, ROLE, SIGNER, Sealed,
    fingerprint,
};

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
    PinnedIsNotMade,
}

impl Rule {
    pub(crate) const ALL: [Self; 12] = [
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
            member: Member::new(image.rules()),
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
        self.member = Member::new(self.member.rules().clone());
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
            if enclave.image == Image::SecondPinned && seed.number != FIRST {
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

    /// What the parent may do next. What changes nothing is left out.
    pub(crate) fn acts(&self) -> Acts {
        let mut acts = Acts::new();
        self.boots(&mut acts);
        for (slot, _) in self.running() {
            if self.budget.creations > 0 {
                let world = self.create(slot);
                acts.extend(world.map(|world| (format!("{slot} makes a seed"), world)));
            }
            if self.budget.challenges > 0 {
                let world = self.challenge(slot);
                acts.extend(world.map(|world| (format!("{slot} gives a challenge"), world)));
            }
            if self.budget.requests > 0 {
                // Also with a nonce that no enclave has given.
                for challenge in self.challenges.iter().copied().chain([nonce(0)]) {
                    let what = || format!("{slot} is asked with the nonce {}", challenge[0]);
                    let world = self.request(slot, challenge);
                    acts.extend(world.map(|world| (what(), world)));
                }
            }
            self.gives(slot, &mut acts);
            self.takes(slot, &mut acts);
        }
        acts
    }

    /// Boots in the first free place, or in place of another enclave.
    fn boots(&self, acts: &mut Acts) {
        if self.budget.boots == 0 {
            return;
        }
        let free = self.enclaves.iter().position(Option::is_none);
        let running = self.running().map(|(slot, _)| slot);
        for slot in running.chain(free) {
            let images = Image::ALL.map(|image| (image, ROLE));
            for (image, role) in images.into_iter().chain([(Image::First, OTHER_ROLE)]) {
                let mut world = self.clone();
                world.budget.boots -= 1;
                world.enclaves[slot] = Some(Enclave::boot(image, role));
                let place = if role == ROLE { "" } else { " elsewhere" };
                acts.push((format!("{slot} boots {image:?}{place}"), world));
            }
        }
    }

    fn create(&self, slot: usize) -> Option<Self> {
        let mut world = self.clone();
        world.budget.creations = world.budget.creations.saturating_sub(1);
        let number = world.next[2];
        let (replaces, makes_pinned) = (
            self.lacks(Rule::HeldStays),
            self.lacks(Rule::PinnedIsNotMade),
        );
        let enclave = world.enclaves[slot].as_mut()?;
        if replaces {
            enclave.empty();
        }
        let seed = ModelSeed { number, from: None };
        let is_empty = enclave.member.seed().is_none();
        if makes_pinned && is_empty && enclave.image == Image::SecondPinned {
            // As another image of this generation would.
            let mut rules = enclave.member.rules().clone();
            rules.fingerprint = None;
            let mut other = Member::new(rules);
            other.create(seed, fingerprint(number)).ok()?;
            enclave.member = other;
            enclave.note();
            world.next[2] += 1;
            return Some(world);
        }
        enclave.member.create(seed, fingerprint(number)).ok()?;
        enclave.note();
        world.next[2] += 1;
        Some(world)
    }

    fn challenge(&self, slot: usize) -> Option<Self> {
        let mut world = self.clone();
        world.budget.challenges = world.budget.challenges.saturating_sub(1);
        let challenge = nonce(world.next[0]);
        let enclave = world.enclaves[slot].as_mut()?;
        enclave.member.challenge(challenge).ok()?;
        enclave.challenged += 1;
        world.next[0] += 1;
        world.challenges.insert(challenge);
        Some(world)
    }

    fn request(&self, slot: usize, challenge: Challenge) -> Option<Self> {
        let mut world = self.clone();
        world.budget.requests = world.budget.requests.saturating_sub(1);
        let key = world.next[1];
        let enclave = world.enclaves[slot].as_mut()?;
        let document = enclave.document(Purpose::KeyRequest, &challenge, Some(key));
        let generation = enclave.generation();
        enclave.member.request(&document.bytes(), key).ok()?;
        world.next[1] += 1;
        world.requests.insert((document, generation));
        Some(world)
    }

    /// Every request that the parent can put together.
    fn gives(&self, slot: usize, acts: &mut Acts) {
        let giver = self.enclaves[slot].as_ref();
        if giver.is_none_or(|giver| giver.member.seed().is_none()) {
            return;
        }
        for challenge in &self.challenges {
            let mut documents: BTreeSet<Document> = self
                .requests
                .iter()
                .map(|(document, _)| document.clone())
                .collect();
            for generation in generations() {
                documents.extend(Document::forged(Purpose::KeyRequest, challenge, generation));
            }
            // What the workloads of honest images and whoever challenges them can have made.
            for (_, enclave) in self.running() {
                for purpose in [Purpose::Workload, Purpose::RelayedChallenge] {
                    documents.insert(enclave.document(purpose, challenge, Some(OF_PARENT)));
                }
            }
            for document in documents {
                for generation in generations() {
                    let world = self.give(slot, *challenge, &document, generation);
                    let what = || format!("{slot} is given {document:?}, stated {generation}");
                    acts.extend(world.map(|world| (what(), world)));
                }
            }
        }
    }

    fn give(
        &self,
        slot: usize,
        challenge: Challenge,
        document: &Document,
        generation: Generation,
    ) -> Option<Self> {
        // What a verifier that demands this nonce lets pass.
        if document.nonce != challenge {
            return None;
        }
        let before = self.enclaves[slot].as_ref()?;
        let mut after = before.clone();
        let enclave = &mut after;
        let mut claims = document.claims();
        self.weaken(
            &mut claims,
            enclave,
            Rule::GiverPurpose,
            Purpose::KeyRequest,
        );
        let mut stated = generation;
        if self.lacks(Rule::LowerGeneration) && generation < enclave.generation() {
            // Whatever it proves to be, it is taken for one of the giver's.
            let rules = enclave.member.rules();
            if claims.register == register(&rules.family, generation) {
                claims.register = register(&rules.family, rules.generation);
                stated = rules.generation;
            }
        }
        let request = Request {
            challenge,
            generation: stated,
            document: document.bytes(),
        };
        let rules = enclave.member.rules().clone();
        let grant = enclave.member.give(&request, &claims).ok()?;
        let seed = ModelSeed {
            number: grant.seed.number,
            from: Some(From {
                generation: rules.generation,
                is_payments: enclave.image != Image::OtherFamily,
                has_role: enclave.role == ROLE,
            }),
        };
        let key = if self.lacks(Rule::KeyOfDocument) {
            OF_PARENT
        } else {
            *document.key.as_ref()?.first()?
        };
        let sealed = Sealed::new(key, &grant.context, seed);
        let nonce = grant.context.gift_nonce(&sealed.bytes());
        let document = enclave.document(Purpose::KeyGift, &nonce, None);
        if self.lacks(Rule::ChallengeOnce) {
            enclave.member = before.member.clone();
        }
        enclave.given += 1;
        let mut world = self.clone();
        world.enclaves[slot] = Some(after);
        world.gifts.insert((document, rules.generation));
        world.sealed.insert(sealed);
        Some(world)
    }

    /// Every gift that the parent can put together.
    fn takes(&self, slot: usize, acts: &mut Acts) {
        let Some(enclave) = &self.enclaves[slot] else {
            return;
        };
        for generation in generations() {
            let probe = Gift {
                generation,
                sealed: Vec::new(),
                document: Vec::new(),
            };
            let Ok(context) = enclave.member.context(&probe) else {
                return;
            };
            // The parent can encrypt a seed of its own to each key that was asked with.
            let mut sealed = self.sealed.clone();
            let seed = ModelSeed {
                number: OF_PARENT,
                from: None,
            };
            let keys = self
                .requests
                .iter()
                .filter_map(|(document, _)| document.key.clone());
            sealed.extend(keys.map(|key| Sealed::new(key[0], &context, seed)));
            for sealed in &sealed {
                let nonce = context.gift_nonce(&sealed.bytes());
                let mut documents: BTreeSet<Document> = self
                    .gifts
                    .iter()
                    .map(|(document, _)| document.clone())
                    .collect();
                documents.extend(Document::forged(Purpose::KeyGift, &nonce, generation));
                for (_, other) in self.running() {
                    for purpose in [Purpose::Workload, Purpose::RelayedChallenge] {
                        documents.insert(other.document(purpose, &nonce, Some(OF_PARENT)));
                    }
                }
                for document in documents {
                    let world = self.take(slot, &document, generation, sealed);
                    let what = || {
                        format!("{slot} takes {sealed:?} with {document:?}, stated {generation}")
                    };
                    acts.extend(world.map(|world| (what(), world)));
                }
            }
        }
    }

    fn take(
        &self,
        slot: usize,
        document: &Document,
        generation: Generation,
        sealed: &Sealed,
    ) -> Option<Self> {
        let mut after = self.enclaves[slot].clone()?;
        let enclave = &mut after;
        let mut claims = document.claims();
        self.weaken(
            &mut claims,
            enclave,
            Rule::ReceiverPurpose,
            Purpose::KeyGift,
        );
        let gift = Gift {
            generation,
            sealed: sealed.bytes(),
            document: document.bytes(),
        };
        let expected = enclave.member.context(&gift).ok()?.gift_nonce(&gift.sealed);
        if self.lacks(Rule::GiftOfRequest) {
            claims.nonce = &expected;
        }
        // It gives the same whatever the receiver finds, where this rule is left out.
        let mut stated = gift;
        let own = enclave.generation();
        let context_of_stated = enclave.member.context(&stated).ok()?;
        if self.lacks(Rule::LowerGeneration) && generation > own {
            let family = enclave.member.rules().family.clone();
            if claims.register == register(&family, generation) && claims.nonce == expected {
                stated.generation = own;
                claims.register = register(&family, own);
            }
        }
        let renamed = enclave
            .member
            .context(&stated)
            .ok()?
            .gift_nonce(&stated.sealed);
        if stated.generation != generation {
            claims.nonce = &renamed;
        }
        let pinned = self.lacks(Rule::Pinned).then(|| fingerprint(FIRST));
        let taken = enclave.member.take(&stated, &claims, |key, _| {
            let opens = sealed.key == *key && sealed.context == context_of_stated.as_bytes();
            opens.then(|| {
                let found = pinned.unwrap_or_else(|| fingerprint(sealed.seed.number));
                (sealed.seed, found)
            })
        });
        taken.ok()?;
        enclave.note();
        let mut world = self.clone();
        world.enclaves[slot] = Some(after);
        Some(world)
    }

    /// Leaves a rule out: the claims are as it demands.
    fn weaken(
        &self,
        claims: &mut Claims<'_>,
        enclave: &Enclave,
        of_purpose: Rule,
        purpose: Purpose,
    ) {
        if self.lacks(of_purpose) {
            claims.purpose = purpose;
        }
        if self.lacks(Rule::Signer) {
            claims.signer = SIGNER;
        }
        if self.lacks(Rule::Role) {
            claims.role = ROLE;
        }
        if self.lacks(Rule::Family) {
            let own = enclave.member.rules();
            for generation in generations() {
                for image in Image::ALL {
                    if claims.register == register(&image.rules().family, generation) {
                        claims.register = register(&own.family, generation);
                        break;
                    }
                }
            }
        }
    }
}
