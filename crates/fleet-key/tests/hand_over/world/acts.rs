//! What the parent may do next.

use std::collections::BTreeSet;

use attestation::Purpose;
use fleet_key::hand_over::{Challenge, Claims, Generation, Gift, Member, Request, register};

use super::{Acts, Enclave, Rule, World, generations, nonce};
use crate::cast::{
    Document, FIRST, From, Image, ModelSeed, OF_PARENT, OTHER_ROLE, ROLE, SIGNER, Sealed,
    fingerprint,
};

impl World {
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
        let seed = ModelSeed {
            number,
            made_by: Some(enclave.image),
            from: None,
        };
        let is_empty = enclave.member.seed().is_none();
        if makes_pinned && is_empty && enclave.image == Image::FirstPinned {
            // As another image of this generation would.
            let mut rules = enclave.member.rules().clone();
            rules.fingerprint = None;
            let mut other = Member::new(rules).unwrap();
            other.create(seed).ok()?;
            enclave.member = other;
            enclave.note();
            world.next[2] += 1;
            return Some(world);
        }
        enclave.member.create(seed).ok()?;
        enclave.note();
        world.next[2] += 1;
        Some(world)
    }

    pub(super) fn challenge(&self, slot: usize) -> Option<Self> {
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

    pub(super) fn request(&self, slot: usize, challenge: Challenge) -> Option<Self> {
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

    pub(super) fn give(
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
            made_by: grant.seed.made_by,
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
                made_by: None,
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

    pub(super) fn take(
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
        let takes_any = match enclave.image {
            Image::Second => self.lacks(Rule::LaterIsPinned),
            _ => self.lacks(Rule::Pinned),
        };
        let pinned = takes_any.then(|| fingerprint(FIRST));
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
