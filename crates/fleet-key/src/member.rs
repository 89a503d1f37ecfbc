//! One boot of an enclave, and the rules by which it gives the seed and takes it.

use measurements::Pcr;
use thiserror::Error;

use crate::family::Family;
use crate::message::{Answer, Nonce, Request};
use crate::transcript::Transcript;

/// Nonces that wait for their answer; a further one takes the place of the oldest.
const MAX_WAITING: usize = 8;

/// The registers by which siblings know each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registers {
    /// PCR0, which is zero in debug mode.
    pub image: Pcr,
    /// PCR3: the role of the parent instance.
    pub role: Pcr,
    /// PCR8: who signed the image.
    pub signer: Pcr,
    /// [`FAMILY_PCR`](crate::FAMILY_PCR): family and generation.
    pub family: Pcr,
}

/// What the enclave knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Own {
    /// Its security module.
    pub module_id: String,
    /// Its registers.
    pub registers: Registers,
    /// Its family.
    pub family: Family,
    /// Its generation.
    pub generation: u64,
}

/// What a document was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// To ask for the seed.
    Request,
    /// To hand it over.
    HandOver,
    /// For something else.
    Other,
}

/// What a document says whose signature and certificates were found to be good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Said {
    /// Whose it is.
    pub module_id: String,
    /// What it was made for.
    pub purpose: Use,
    /// Its nonce.
    pub nonce: Vec<u8>,
    /// Its public key, of whatever form.
    pub public_key: Vec<u8>,
    /// Its registers.
    pub registers: Registers,
}

/// What is demanded. Each is needed; the model shows what becomes possible without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Nobody takes a seed who has one.
    OneSeed,
    /// Only who has the seed gives it.
    Seed,
    /// The enclave itself is not in debug mode.
    OwnMode,
    /// Its own image is signed: all unsigned images have the same signer.
    OwnSigner,
    /// The giver's nonce is one that it issued and has not seen again.
    Offer,
    /// The receiver's nonce is one that it issued and has not seen again.
    Ask,
    /// The document was made for this step.
    Purpose,
    /// The document was made for this hand-over.
    Nonce,
    /// The other enclave is not in debug mode.
    Mode,
    /// The same signer.
    Signer,
    /// The same role.
    Role,
    /// The register of family and generation holds the own family and the generation that
    /// is named.
    Register,
    /// The generation does not fall.
    Generation,
    /// What was sealed opens with the receiver's key, for this hand-over.
    Sealed,
}

/// A rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", self.reason())]
pub struct Refusal(pub Rule);

impl Refusal {
    const fn reason(self) -> &'static str {
        match self.0 {
            Rule::OneSeed => {
                "the enclave has a seed already, and keeps it until it ends: restart it to have it take another"
            }
            Rule::Seed => {
                "the enclave has no seed: hand one over to it, or create the family's first one"
            }
            Rule::OwnMode => {
                "the enclave is in debug mode, in which its parent reads its memory: start it without"
            }
            Rule::OwnSigner => {
                "the image is not signed, so nothing tells siblings from others: build it with --signing-key and --signing-certificate"
            }
            Rule::Offer => "the request answers no offer that is still open: begin again",
            Rule::Ask => "the answer is for no request that is still open: begin again",
            Rule::Purpose => "the document was made for another purpose",
            Rule::Nonce => "the document was made for another hand-over: begin again",
            Rule::Mode => {
                "the other enclave is in debug mode, in which its parent reads its memory"
            }
            Rule::Signer => "the other enclave's image has another signer (PCR8)",
            Rule::Role => "the other enclave's parent has another role (PCR3)",
            Rule::Register => {
                "the other enclave is of another family, or of another generation than it says (PCR31)"
            }
            Rule::Generation => "the receiver's generation is lower than the giver's",
            Rule::Sealed => {
                "what was sealed does not open: it is for another enclave, or an earlier boot of this one"
            }
        }
    }
}

/// One boot of an enclave of a family; `S` is how it has the seed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member<S> {
    own: Own,
    seed: Option<S>,
    /// Nonces that were issued as a giver, the oldest first.
    offers: Vec<Nonce>,
    /// And as a receiver, each with the offer that it answers.
    asks: Vec<(Nonce, Nonce)>,
    /// The rule that the model leaves out.
    #[cfg(test)]
    pub(crate) left_out: Option<Rule>,
}

impl<S> Member<S> {
    /// The enclave that has just started: it has no seed.
    pub fn new(own: Own) -> Self {
        Self {
            own,
            seed: None,
            offers: Vec::new(),
            asks: Vec::new(),
            #[cfg(test)]
            left_out: None,
        }
    }

    /// What the enclave knows of itself.
    pub const fn own(&self) -> &Own {
        &self.own
    }

    /// The seed, once there is one.
    pub const fn seed(&self) -> Option<&S> {
        self.seed.as_ref()
    }

    /// Begins a family, with a seed that was never used before.
    pub fn create(&mut self, seed: S) -> Result<(), Refusal> {
        self.check_own()?;
        self.demand(Rule::OneSeed, self.seed.is_none())?;
        self.seed = Some(seed);
        Ok(())
    }

    /// Offers the seed, under a nonce that was never used before.
    pub fn offer(&mut self, nonce: Nonce) -> Result<(), Refusal> {
        self.check_own()?;
        if self.seed.is_none() {
            return Err(Refusal(Rule::Seed));
        }
        push(&mut self.offers, nonce);
        Ok(())
    }

    /// Asks for the seed that was offered, under a nonce that was never used before. A
    /// [`Request`] with a document over the offer is to follow.
    pub fn ask(&mut self, offer: Nonce, nonce: Nonce) -> Result<(), Refusal> {
        self.check_own()?;
        self.demand(Rule::OneSeed, self.seed.is_none())?;
        push(&mut self.asks, (nonce, offer));
        Ok(())
    }

    /// Gives the seed to whoever made the request, whose document says this: what the
    /// hand-over is, and what is to be sealed to the document's key. An [`Answer`] with a
    /// document over what was sealed is to follow.
    pub fn give(&mut self, request: &Request, said: &Said) -> Result<(Transcript, &S), Refusal> {
        self.check_own()?;
        let was_issued = self.offers.contains(&request.offer);
        self.demand(Rule::Offer, was_issued)?;
        if self.is_kept(Rule::Offer) {
            // Whatever comes of this request: there is no second one.
            self.offers.retain(|offer| *offer != request.offer);
        }
        self.demand(Rule::Purpose, said.purpose == Use::Request)?;
        self.demand(Rule::Nonce, said.nonce == request.offer.as_bytes())?;
        self.check_sibling(said, request.generation)?;
        let falls = request.generation < self.own.generation;
        self.demand(Rule::Generation, !falls)?;
        let transcript = Transcript {
            offer: request.offer,
            ask: request.ask,
            giver: self.own.module_id.clone(),
            receiver: said.module_id.clone(),
            giver_generation: self.own.generation,
            receiver_generation: request.generation,
        };
        let seed = self.seed.as_ref().ok_or(Refusal(Rule::Seed))?;
        Ok((transcript, seed))
    }

    /// Takes the seed of whoever made the answer, whose document says this; `open` opens
    /// what was sealed, if it was for this hand-over.
    pub fn take(
        &mut self,
        answer: &Answer,
        said: &Said,
        open: impl FnOnce(&Transcript) -> Option<S>,
    ) -> Result<(), Refusal> {
        self.check_own()?;
        self.demand(Rule::OneSeed, self.seed.is_none())?;
        let asked = (answer.ask, answer.offer);
        self.demand(Rule::Ask, self.asks.contains(&asked))?;
        if self.is_kept(Rule::Ask) {
            self.asks.retain(|ask| *ask != asked);
        }
        self.demand(Rule::Purpose, said.purpose == Use::HandOver)?;
        self.demand(Rule::Nonce, said.nonce == answer.challenge())?;
        self.check_sibling(said, answer.generation)?;
        let falls = self.own.generation < answer.generation;
        self.demand(Rule::Generation, !falls)?;
        let transcript = Transcript {
            offer: answer.offer,
            ask: answer.ask,
            giver: said.module_id.clone(),
            receiver: self.own.module_id.clone(),
            giver_generation: answer.generation,
            receiver_generation: self.own.generation,
        };
        self.seed = Some(open(&transcript).ok_or(Refusal(Rule::Sealed))?);
        self.offers.clear();
        self.asks.clear();
        Ok(())
    }

    fn check_own(&self) -> Result<(), Refusal> {
        let Registers { image, signer, .. } = self.own.registers;
        self.demand(Rule::OwnMode, image != Pcr::ZERO)?;
        self.demand(Rule::OwnSigner, signer != Pcr::ZERO)
    }

    fn check_sibling(&self, said: &Said, generation: u64) -> Result<(), Refusal> {
        let (own, other) = (&self.own.registers, &said.registers);
        self.demand(Rule::Mode, other.image != Pcr::ZERO)?;
        self.demand(Rule::Signer, other.signer == own.signer)?;
        self.demand(Rule::Role, other.role == own.role)?;
        let register = self.own.family.register(generation);
        self.demand(Rule::Register, other.family == register)
    }

    fn demand(&self, rule: Rule, holds: bool) -> Result<(), Refusal> {
        if holds || !self.is_kept(rule) {
            Ok(())
        } else {
            Err(Refusal(rule))
        }
    }

    #[cfg(test)]
    fn is_kept(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the model's members leave one out")]
    const fn is_kept(&self, _: Rule) -> bool {
        true
    }
}

/// Adds to what waits, in place of the oldest if that is too many.
fn push<T>(waiting: &mut Vec<T>, item: T) {
    if waiting.len() >= MAX_WAITING {
        waiting.remove(0);
    }
    waiting.push(item);
}
