//! The hand-over, explored to the end: two enclaves, everything that a hostile carrier can
//! do with their messages, and restarts, in every order.
//!
//! The enclaves are [`Member`]s, with the rules that are in force. Cryptography is taken to
//! be perfect: nobody makes a document of another enclave, and what is sealed to a key is
//! opened with that key alone. The carrier knows every message, mixes their parts, sends
//! them as often as it likes or never, and seals a seed of its own. It has documents of its
//! choice from enclaves whose init is another one (another signer's, debug mode), and the
//! workload of every enclave makes it documents of the workload's purpose.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use measurements::Pcr;

use crate::family::Family;
use crate::member::{Member, Own, Registers, Rule, Said, Use};
use crate::message::{Answer, Nonce, Request, challenge};
use crate::transcript::Transcript;

/// The seed that the carrier makes, and its key.
const OF_CARRIER: u8 = 255;
/// A nonce that the carrier chooses.
const CHOSEN: Nonce = Nonce::new([200; 32]);
/// Nonces that an enclave issues: as a giver in all, as a receiver in each boot.
const OFFERS: u8 = 1;
const ASKS: u8 = 1;
/// Seeds that are created, in all.
const SEEDS: usize = 2;

/// An enclave of the model.
#[derive(Clone, Copy, PartialEq)]
struct Spec {
    signer: u8,
    role: u8,
    family: &'static str,
    generation: u64,
    is_debug: bool,
    /// Its init is not this one: it has any document made, and tells what it opens.
    is_hostile: bool,
}

const GOOD: Spec = Spec {
    signer: 8,
    role: 3,
    family: "a",
    generation: 2,
    is_debug: false,
    is_hostile: false,
};

impl Spec {
    fn own(&self, index: usize) -> Own {
        let family: Family = self.family.parse().unwrap();
        let register = |byte: u8| Pcr::new([byte; 48]);
        Own {
            module_id: format!("i-{index}"),
            registers: Registers {
                image: register(u8::from(!self.is_debug)),
                role: register(self.role),
                signer: register(self.signer),
                family: family.register(self.generation),
            },
            family,
            generation: self.generation,
        }
    }

    /// Whether it may hold a seed at all.
    fn may_hold(&self) -> bool {
        !self.is_debug && self.signer != 0
    }

    /// Whether it may have a seed that the other one has.
    fn may_have(&self, other: &Self) -> bool {
        self.may_hold()
            && other.may_hold()
            && (self.signer, self.role, self.family) == (other.signer, other.role, other.family)
            && self.generation >= other.generation
    }
}

/// A document; whose registers it holds, its maker says.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Document {
    maker: usize,
    purpose: u8,
    nonce: Vec<u8>,
    key: [u8; 2],
}

const REQUEST: u8 = 0;
const HAND_OVER: u8 = 1;
const OTHER: u8 = 2;

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    members: Vec<Member<u8>>,
    boots: Vec<u8>,
    offered: Vec<u8>,
    asked: Vec<u8>,
    /// Seeds that were created, by whom.
    origins: Vec<usize>,
    documents: BTreeSet<Document>,
    /// What was sealed, by whom.
    sealed: BTreeSet<(Vec<u8>, usize)>,
    /// How often an offer was followed.
    given: BTreeMap<Nonce, u8>,
    /// The asks of this boot that were not followed yet.
    open_asks: BTreeSet<(usize, Nonce)>,
}

/// What went wrong.
type Violation = &'static str;

const OUTSIDE: Violation = "an enclave outside the policy has the seed";
const SEALED_OUTSIDE: Violation = "the seed is sealed to an enclave outside the policy";
const FOREIGN: Violation = "an enclave takes a seed that its giver has not sealed";
const CHANGED: Violation = "an enclave's seed has changed";
const UNASKED: Violation = "a seed is given or taken that was not asked for";
const OFFER_TWICE: Violation = "a giver's nonce is not its own, or is used twice";

struct World {
    specs: Vec<Spec>,
    owns: Vec<Own>,
    /// How often one of the two restarts.
    restarts: u8,
    left_out: Option<Rule>,
}

/// What an exploration comes to.
struct Explored {
    states: usize,
    /// Whether both have one seed in some state.
    is_shared: bool,
}

impl World {
    fn new(specs: [Spec; 2], restarts: u8, left_out: Option<Rule>) -> Self {
        let owns = specs.iter().enumerate();
        Self {
            owns: owns.map(|(index, spec)| spec.own(index)).collect(),
            specs: specs.to_vec(),
            restarts,
            left_out,
        }
    }

    fn start(&self) -> State {
        let none = vec![0; self.specs.len()];
        State {
            members: (0..self.specs.len())
                .map(|index| self.boot(index))
                .collect(),
            boots: none.clone(),
            offered: none.clone(),
            asked: none,
            origins: Vec::new(),
            documents: BTreeSet::new(),
            sealed: BTreeSet::new(),
            given: BTreeMap::new(),
            open_asks: BTreeSet::new(),
        }
    }

    fn boot(&self, index: usize) -> Member<u8> {
        let mut member = Member::new(self.owns[index].clone());
        member.left_out = self.left_out;
        member
    }

    /// Explores all states; the error is the first violation.
    fn explore(&self) -> Result<Explored, Violation> {
        let mut known = HashSet::from([self.start()]);
        let mut queue = VecDeque::from([self.start()]);
        let mut is_shared = false;
        while let Some(state) = queue.pop_front() {
            let seeds: Vec<_> = state.members.iter().filter_map(Member::seed).collect();
            is_shared |= seeds.len() == 2 && seeds[0] == seeds[1];
            for next in self.next(&state)? {
                self.check(&state, &next)?;
                if !known.contains(&next) {
                    known.insert(next.clone());
                    queue.push_back(next);
                }
            }
        }
        Ok(Explored {
            states: known.len(),
            is_shared,
        })
    }

    /// What holds of every state and step.
    fn check(&self, before: &State, after: &State) -> Result<(), Violation> {
        for (index, member) in after.members.iter().enumerate() {
            let Some(&seed) = member.seed() else { continue };
            if seed == OF_CARRIER {
                return Err(FOREIGN);
            }
            let origin = &self.specs[after.origins[usize::from(seed)]];
            if !self.specs[index].may_have(origin) {
                return Err(OUTSIDE);
            }
            let is_same_boot = before.boots[index] == after.boots[index];
            let earlier = before.members[index].seed();
            if is_same_boot && earlier.is_some_and(|earlier| *earlier != seed) {
                return Err(CHANGED);
            }
        }
        Ok(())
    }

    fn next(&self, state: &State) -> Result<Vec<State>, Violation> {
        let mut all = Vec::new();
        for index in 0..self.specs.len() {
            // A hostile one does as it likes: its documents are below.
            if self.specs[index].is_hostile {
                continue;
            }
            create(state, index, &mut all);
            offer(state, index, &mut all);
            ask(state, index, &mut all);
            self.give(state, index, &mut all)?;
            self.take(state, index, &mut all)?;
            if state.boots.iter().sum::<u8>() < self.restarts {
                let mut next = state.clone();
                next.boots[index] += 1;
                next.members[index] = self.boot(index);
                next.open_asks.retain(|(of, _)| *of != index);
                all.push(next);
            }
        }
        Ok(all)
    }

    fn give(&self, state: &State, index: usize, all: &mut Vec<State>) -> Result<(), Violation> {
        for offer in offers(state) {
            for document in self.documents(state, offer.as_bytes()) {
                let said = self.said(&document);
                for (ask, generation) in self.asks_and_generations(state) {
                    let request = Request {
                        offer,
                        ask,
                        generation,
                        document: Vec::new(),
                    };
                    let mut member = state.members[index].clone();
                    let given = member.give(&request, &said);
                    let given = given.map(|(transcript, seed)| (transcript, *seed)).ok();
                    if given.is_none() && member == state.members[index] {
                        continue;
                    }
                    let mut next = state.clone();
                    next.members[index] = member;
                    if let Some((transcript, seed)) = given {
                        self.check_given(state, index, &request, &document)?;
                        *next.given.entry(offer).or_default() += 1;
                        let info = transcript.info(&self.owns[index].family);
                        let sealed = [&document.key[..], &[seed], &info].concat();
                        next.documents.insert(Document {
                            maker: index,
                            purpose: HAND_OVER,
                            nonce: challenge(&ask, &sealed),
                            key: [0, 0],
                        });
                        next.sealed.insert((sealed, index));
                    }
                    all.push(next);
                }
            }
        }
        Ok(())
    }

    /// What holds when a seed is given.
    fn check_given(
        &self,
        state: &State,
        giver: usize,
        request: &Request,
        document: &Document,
    ) -> Result<(), Violation> {
        let receiver = &self.specs[document.maker];
        if document.key[0] == OF_CARRIER || !receiver.may_have(&self.specs[giver]) {
            return Err(SEALED_OUTSIDE);
        }
        let is_for_offer =
            document.purpose == REQUEST && document.nonce == request.offer.as_bytes();
        if !is_for_offer {
            return Err(UNASKED);
        }
        let mut issued = (0..state.offered[giver]).map(|count| nonce(giver, count));
        let is_issued = issued.any(|offer| offer == request.offer);
        if !is_issued || state.given.contains_key(&request.offer) {
            return Err(OFFER_TWICE);
        }
        Ok(())
    }

    fn take(&self, state: &State, index: usize, all: &mut Vec<State>) -> Result<(), Violation> {
        let own = &self.owns[index];
        for (ask, generation) in self.asks_and_generations(state) {
            for offer in offers(state) {
                for sealed in self.sealed(state, index, ask, offer, generation) {
                    let answer = Answer {
                        offer,
                        ask,
                        generation,
                        sealed,
                        document: Vec::new(),
                    };
                    for document in self.documents(state, &answer.challenge()) {
                        let open = |transcript: &Transcript| {
                            let info = transcript.info(&own.family);
                            let (head, bound) = answer.sealed.split_at(3);
                            let is_mine = head[..2] == key(state, index) && bound == info;
                            is_mine.then_some(head[2])
                        };
                        let mut member = state.members[index].clone();
                        let taken = member.take(&answer, &self.said(&document), open);
                        if taken.is_err() && member == state.members[index] {
                            continue;
                        }
                        let mut next = state.clone();
                        next.members[index] = member;
                        if taken.is_ok() {
                            let made = (answer.sealed.clone(), document.maker);
                            if !state.sealed.contains(&made) {
                                return Err(FOREIGN);
                            }
                            if !next.open_asks.remove(&(index, ask)) {
                                return Err(UNASKED);
                            }
                        }
                        all.push(next);
                    }
                }
            }
        }
        Ok(())
    }

    /// What can be handed to a receiver: what was sealed, and a seed of the carrier's, for
    /// whichever giver it names.
    fn sealed(
        &self,
        state: &State,
        index: usize,
        ask: Nonce,
        offer: Nonce,
        generation: u64,
    ) -> Vec<Vec<u8>> {
        let own = &self.owns[index];
        let known = state.sealed.iter().map(|(sealed, _)| sealed.clone());
        let makers = self.owns.iter().map(|maker| {
            let transcript = Transcript {
                offer,
                ask,
                giver: maker.module_id.clone(),
                receiver: own.module_id.clone(),
                giver_generation: generation,
                receiver_generation: own.generation,
            };
            let info = transcript.info(&own.family);
            [&key(state, index)[..], &[OF_CARRIER], &info].concat()
        });
        known.chain(makers).collect()
    }

    /// The documents that the carrier has, or has made with this nonce.
    fn documents(&self, state: &State, nonce: &[u8]) -> Vec<Document> {
        let mut documents: Vec<_> = state.documents.iter().cloned().collect();
        for (maker, spec) in self.specs.iter().enumerate() {
            let mut make = |purpose| {
                documents.push(Document {
                    maker,
                    purpose,
                    nonce: nonce.to_vec(),
                    key: [OF_CARRIER, 0],
                });
            };
            make(OTHER);
            if spec.is_hostile {
                make(REQUEST);
                make(HAND_OVER);
            }
        }
        documents
    }

    fn said(&self, document: &Document) -> Said {
        let own = &self.owns[document.maker];
        Said {
            module_id: own.module_id.clone(),
            purpose: match document.purpose {
                REQUEST => Use::Request,
                HAND_OVER => Use::HandOver,
                _ => Use::Other,
            },
            nonce: document.nonce.clone(),
            public_key: document.key.to_vec(),
            registers: own.registers.clone(),
        }
    }

    /// What a carrier can write beside a document.
    fn asks_and_generations(&self, state: &State) -> Vec<(Nonce, u64)> {
        let issued = state.asked.iter().enumerate();
        let issued =
            issued.flat_map(|(index, count)| (0..*count).map(move |n| nonce(index, 10 + n)));
        let generations: BTreeSet<u64> = self.specs.iter().map(|spec| spec.generation).collect();
        let pairs = issued
            .chain([CHOSEN])
            .flat_map(|ask| generations.iter().map(move |generation| (ask, *generation)));
        pairs.collect()
    }
}

fn create(state: &State, index: usize, all: &mut Vec<State>) {
    let mut next = state.clone();
    let seed = u8::try_from(state.origins.len()).unwrap();
    if state.origins.len() < SEEDS && next.members[index].create(seed).is_ok() {
        next.origins.push(index);
        all.push(next);
    }
}

fn offer(state: &State, index: usize, all: &mut Vec<State>) {
    let mut next = state.clone();
    let nonce = nonce(index, state.offered[index]);
    if state.offered[index] < OFFERS && next.members[index].offer(nonce).is_ok() {
        next.offered[index] += 1;
        all.push(next);
    }
}

fn ask(state: &State, index: usize, all: &mut Vec<State>) {
    if state.asked[index] == ASKS * (1 + state.boots[index]) {
        return;
    }
    let nonce = nonce(index, 10 + state.asked[index]);
    for offer in offers(state) {
        let mut next = state.clone();
        if next.members[index].ask(offer, nonce).is_ok() {
            next.asked[index] += 1;
            next.open_asks.insert((index, nonce));
            next.documents.insert(Document {
                maker: index,
                purpose: REQUEST,
                nonce: offer.as_bytes().to_vec(),
                key: key(state, index),
            });
            all.push(next);
        }
    }
}

fn nonce(index: usize, count: u8) -> Nonce {
    Nonce::new([u8::try_from(index).unwrap() * 30 + count; 32])
}

/// The key of this boot.
fn key(state: &State, index: usize) -> [u8; 2] {
    [u8::try_from(index).unwrap(), state.boots[index]]
}

/// The offers that there were, and one that the carrier makes up.
fn offers(state: &State) -> Vec<Nonce> {
    let issued = state.offered.iter().enumerate();
    let issued = issued.flat_map(|(index, count)| (0..*count).map(move |n| nonce(index, n)));
    issued.chain([CHOSEN]).collect()
}

/// Enclaves beside a good one, and whether the two come to share a seed.
fn others() -> [(Spec, bool); 8] {
    let hostile = Spec {
        is_hostile: true,
        ..GOOD
    };
    [
        (GOOD, true),
        (
            Spec {
                generation: 3,
                ..GOOD
            },
            true,
        ),
        // It gives to the good one, and takes nothing of it.
        (
            Spec {
                generation: 1,
                ..GOOD
            },
            true,
        ),
        (Spec { role: 4, ..GOOD }, false),
        (
            Spec {
                family: "b",
                ..GOOD
            },
            false,
        ),
        (
            Spec {
                is_debug: true,
                ..GOOD
            },
            false,
        ),
        (
            Spec {
                signer: 9,
                ..hostile
            },
            false,
        ),
        (
            Spec {
                is_debug: true,
                ..hostile
            },
            false,
        ),
    ]
}

const UNSIGNED: Spec = Spec { signer: 0, ..GOOD };

#[test]
fn hand_over_keeps_the_seed_within_the_policy() {
    let mut states = 0;
    for (other, is_shared) in others() {
        let restarts = u8::from(other == GOOD);
        let explored = World::new([GOOD, other], restarts, None).explore().unwrap();
        assert_eq!(explored.is_shared, is_shared);
        states += explored.states;
    }
    let hostile = Spec {
        is_hostile: true,
        ..UNSIGNED
    };
    let explored = World::new([UNSIGNED, hostile], 0, None).explore().unwrap();
    assert_eq!(
        explored.states, 1,
        "an image that is not signed has no seed"
    );
    assert!(states > 1_000, "{states}");
}

#[test]
fn hand_over_fails_without_any_of_its_rules() {
    let [_, _, lower, role, family, debug, signer, hostile_debug] = others().map(|(spec, _)| spec);
    for (rule, specs, violation) in [
        (Rule::OneSeed, [GOOD, GOOD], CHANGED),
        (Rule::OwnMode, [GOOD, debug], OUTSIDE),
        (Rule::OwnSigner, [GOOD, UNSIGNED], OUTSIDE),
        (Rule::Offer, [GOOD, GOOD], OFFER_TWICE),
        (Rule::Ask, [GOOD, GOOD], UNASKED),
        (Rule::Purpose, [GOOD, GOOD], FOREIGN),
        (Rule::Nonce, [GOOD, GOOD], UNASKED),
        (Rule::Mode, [GOOD, hostile_debug], FOREIGN),
        (Rule::Signer, [GOOD, signer], FOREIGN),
        (Rule::Role, [GOOD, role], SEALED_OUTSIDE),
        (Rule::Register, [GOOD, family], SEALED_OUTSIDE),
        (Rule::Register, [GOOD, lower], SEALED_OUTSIDE),
        (Rule::Generation, [GOOD, lower], SEALED_OUTSIDE),
    ] {
        let found = World::new(specs, 0, Some(rule)).explore().err();
        assert_eq!(found, Some(violation), "without {rule:?}");
    }
}
