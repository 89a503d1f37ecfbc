//! An enclave of a family, as far as its seed is concerned.

use std::collections::VecDeque;

use attestation::Purpose;

use super::context::{Context, DocumentDigest};
use super::format::{Challenge, Gift, Request};
use super::rules::{Claims, Generation, Refusal, Rules, Unpinned};
use crate::seed::Fingerprint;

/// Challenges that may wait for their requests; a further one takes the oldest's place.
const MAX_CHALLENGES: usize = 16;

/// An enclave of a family: the seed, once it holds one, and what is under way. `S` is the
/// seed, `K` the private half of a request's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member<S, K> {
    rules: Rules,
    held: Option<S>,
    /// Given and not used.
    challenges: VecDeque<Challenge>,
    /// The last request, until it is answered.
    pending: Option<Pending<K>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pending<K> {
    document: DocumentDigest,
    key: K,
}

/// What a request was granted.
#[derive(Debug)]
pub struct Grant<'a, S> {
    /// The seed that is to be encrypted.
    pub seed: &'a S,
    /// The giver's generation, which the gift states.
    pub generation: Generation,
    /// What it is to be encrypted for.
    pub context: Context,
}

impl<S, K> Member<S, K> {
    /// An enclave that holds no seed yet. An image that takes seeds from lower generations
    /// has to say which one: any image of theirs may make another, and may be the one whose
    /// fault the higher generation is there for.
    pub fn new(rules: Rules) -> Result<Self, Unpinned> {
        if rules.generation > Generation::MIN && rules.fingerprint.is_none() {
            return Err(Unpinned(rules.generation));
        }
        Ok(Self {
            rules,
            held: None,
            challenges: VecDeque::new(),
            pending: None,
        })
    }

    /// What its image has measured.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The seed, if one is held.
    pub const fn seed(&self) -> Option<&S> {
        self.held.as_ref()
    }

    /// Whether a seed can be made here.
    pub const fn check_create(&self) -> Result<(), Refusal> {
        if self.held.is_some() {
            return Err(Refusal::Held);
        }
        if self.rules.fingerprint.is_some() {
            return Err(Refusal::Pinned);
        }
        Ok(())
    }

    /// Holds a new seed, because somebody has asked for one.
    pub fn create(&mut self, seed: S) -> Result<(), Refusal> {
        self.check_create()?;
        self.hold(seed);
        Ok(())
    }

    /// Gives a challenge: random bytes that were never given before.
    pub fn challenge(&mut self, challenge: Challenge) -> Result<(), Refusal> {
        if self.held.is_none() {
            return Err(Refusal::Empty);
        }
        if self.challenges.len() >= MAX_CHALLENGES {
            self.challenges.pop_front();
        }
        self.challenges.push_back(challenge);
        Ok(())
    }

    /// Whether a seed can be asked for.
    pub const fn check_request(&self) -> Result<(), Refusal> {
        if self.held.is_some() {
            return Err(Refusal::Held);
        }
        Ok(())
    }

    /// Asks for the seed with this document, which names the key's public half. An earlier
    /// request is not waited for any more.
    pub fn request(&mut self, document: &[u8], key: K) -> Result<(), Refusal> {
        self.check_request()?;
        self.pending = Some(Pending {
            document: DocumentDigest::of(document),
            key,
        });
        Ok(())
    }

    /// Grants a request whose document says this. Its challenge is used with that.
    pub fn give(
        &mut self,
        request: &Request,
        claims: &Claims<'_>,
    ) -> Result<Grant<'_, S>, Refusal> {
        let Some(seed) = &self.held else {
            return Err(Refusal::Empty);
        };
        let mut challenges = self.challenges.iter();
        let place = challenges.position(|challenge| *challenge == request.challenge);
        let place = place.ok_or(Refusal::Challenge)?;
        if claims.nonce != request.challenge.as_slice() {
            return Err(Refusal::Challenge);
        }
        self.rules
            .check(claims, Purpose::KeyRequest, request.generation)?;
        if request.generation < self.rules.generation {
            return Err(Refusal::Generation);
        }
        if claims.public_key.is_none() {
            return Err(Refusal::NoKey);
        }
        self.challenges.remove(place);
        let generation = self.rules.generation;
        Ok(Grant {
            seed,
            generation,
            context: Context::new(DocumentDigest::of(&request.document), generation),
        })
    }

    /// What a gift that answers the open request is bound to.
    pub fn context(&self, gift: &Gift) -> Result<Context, Refusal> {
        let pending = self.pending.as_ref().ok_or(Refusal::Request)?;
        Ok(Context::new(pending.document, gift.generation))
    }

    /// Takes the seed in a gift whose document says this. `open` decrypts it, and says what
    /// it is known by.
    pub fn take(
        &mut self,
        gift: &Gift,
        claims: &Claims<'_>,
        open: impl FnOnce(&K, &Context) -> Option<(S, Fingerprint)>,
    ) -> Result<Fingerprint, Refusal> {
        self.check_request()?;
        let context = self.context(gift)?;
        let pending = self.pending.as_ref().ok_or(Refusal::Request)?;
        self.rules
            .check(claims, Purpose::KeyGift, gift.generation)?;
        if gift.generation > self.rules.generation {
            return Err(Refusal::Generation);
        }
        if claims.nonce != context.gift_nonce(&gift.sealed) {
            return Err(Refusal::Request);
        }
        let (seed, fingerprint) = open(&pending.key, &context).ok_or(Refusal::Sealed)?;
        let pinned = self.rules.fingerprint;
        if pinned.is_some_and(|pinned| pinned != fingerprint) {
            return Err(Refusal::Fingerprint);
        }
        self.hold(seed);
        Ok(fingerprint)
    }

    fn hold(&mut self, seed: S) {
        self.held = Some(seed);
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use measurements::Pcr;

    use super::*;
    use crate::hand_over::{CHALLENGE_BYTES, register};

    const KEY: &[u8] = b"a key";

    fn rules() -> Rules {
        Rules {
            family: "payments".parse().unwrap(),
            generation: Generation::MIN,
            signer: Pcr::new([8; 48]),
            role: None,
            fingerprint: None,
        }
    }

    fn fingerprint() -> Fingerprint {
        "e9903d08a8b5bf5439229e7432653e04".parse().unwrap()
    }

    #[test]
    fn hand_over_to_a_later_generation_is_of_one_seed_only() {
        let member = |generation, fingerprint| {
            Member::<(), ()>::new(Rules {
                generation: Generation::new(generation).unwrap(),
                fingerprint,
                ..rules()
            })
        };
        for generation in [2, u32::MAX] {
            let error = member(generation, None).unwrap_err();
            assert_eq!(error.0.get(), generation);
            let mut pinned = member(generation, Some(fingerprint())).unwrap();
            assert_eq!(pinned.create(()), Err(Refusal::Pinned));
        }
        assert_eq!(member(1, Some(fingerprint())).unwrap().seed(), None);
        let mut first = member(1, None).unwrap();
        assert_eq!(first.create(()), Ok(()));
    }

    #[test]
    fn hand_over_challenges_are_bounded_and_used_once() {
        let mut giver = Member::<_, ()>::new(rules()).unwrap();
        giver.create("seed").unwrap();
        let challenge = |number: usize| [u8::try_from(number).unwrap(); CHALLENGE_BYTES];
        for number in 0..=MAX_CHALLENGES {
            giver.challenge(challenge(number)).unwrap();
        }
        let mut give = |number| {
            let request = Request {
                challenge: challenge(number),
                generation: Generation::MIN,
                document: vec![1],
            };
            let claims = Claims {
                purpose: Purpose::KeyRequest,
                signer: rules().signer,
                role: Pcr::ZERO,
                register: register(&rules().family, Generation::MIN),
                nonce: &request.challenge,
                public_key: Some(KEY),
            };
            let grant = giver.give(&request, &claims);
            grant.map(|grant| *grant.seed)
        };
        // The oldest has made room.
        assert_eq!(give(0), Err(Refusal::Challenge));
        for number in 1..=MAX_CHALLENGES {
            assert_eq!(give(number), Ok("seed"));
            assert_eq!(give(number), Err(Refusal::Challenge));
        }
    }
}
