//! Who may give to whom, by what an image has measured and what a document holds.

use std::num::NonZeroU32;

use attestation::Purpose;
use aws_lc_rs::digest::{SHA384, SHA384_OUTPUT_LEN, digest};
use measurements::Pcr;
use thiserror::Error;

use crate::family::Family;
use crate::seed::Fingerprint;

/// The register that family and generation are measured into.
pub const REGISTER: u8 = 31;
/// How what is measured into it begins.
const MEASURED: &[u8] = b"enclave key family and generation, version 1\0";

/// Which generation of its family an image is of; a seed never goes to a lower one.
pub type Generation = NonZeroU32;

/// What an image has measured of its family.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rules {
    /// The family.
    pub family: Family,
    /// The image's generation.
    pub generation: Generation,
    /// PCR8 of the family's images: the certificate under which they are signed.
    pub signer: Pcr,
    /// PCR3 of the family's enclaves, if they are bound to a role.
    pub role: Option<Pcr>,
    /// The only seed that is accepted, if there is one. Without one the image is of the
    /// first generation.
    pub fingerprint: Option<Fingerprint>,
}

/// What a document says whose signature, certificates, age and nonce were verified, and
/// that is of no enclave in debug mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims<'a> {
    /// What the document was made for.
    pub purpose: Purpose,
    /// PCR8.
    pub signer: Pcr,
    /// PCR3.
    pub role: Pcr,
    /// PCR31.
    pub register: Pcr,
    /// The nonce.
    pub nonce: &'a [u8],
    /// The public key, if there is one.
    pub public_key: Option<&'a [u8]>,
}

/// An image of a later generation than the first accepts any seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "generation {0} takes the seed that the family has, and no `fingerprint` in [keys] says which: a retired generation could put another one in its place"
)]
pub struct Unpinned(pub Generation);

/// Why a seed is not made, given or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A seed is never replaced.
    #[error("this enclave has a seed already, and keeps it until it ends")]
    Held,
    /// There is nothing to give.
    #[error("this enclave has no seed to give: ask one of its family that has")]
    Empty,
    /// A new seed would be another one.
    #[error(
        "the image accepts one seed only (`fingerprint` in [keys]): have it handed over, a new one would be another"
    )]
    Pinned,
    /// The nonce in the request was not given, or was used.
    #[error(
        "the request answers no challenge of this enclave's, or one that was used already: begin again with a new challenge"
    )]
    Challenge,
    /// The enclave waits for no gift, or for the answer to another request.
    #[error("the gift answers no open request of this enclave's: begin again with a new challenge")]
    Request,
    /// A document of another purpose.
    #[error(
        "the document was not made for this step: pass on what the other enclave has answered to the step before, or begin again with a new challenge"
    )]
    Purpose,
    /// The other image was signed under another certificate, or not at all.
    #[error(
        "the other enclave's image was not signed under the family's certificate (PCR8, `signer` in [keys]), or runs in debug mode"
    )]
    Signer,
    /// The other enclave's parent has another role.
    #[error(
        "the other enclave's parent does not have the family's role (PCR3, `role` in [keys]): run the enclave on an instance that has it"
    )]
    Role,
    /// The other image is of another family, or not of the generation that is stated.
    #[error(
        "the other enclave is of another family, or of another generation than is stated (PCR31, `family` and `generation` in [keys])"
    )]
    Family,
    /// The receiver is of a lower generation.
    #[error(
        "the receiver's image is of a lower generation than the giver's: a seed only goes to the same or a higher one"
    )]
    Generation,
    /// The request names no key.
    #[error(
        "the request's document has no key to encrypt to: have the receiver make a new request for a new challenge"
    )]
    NoKey,
    /// The seed was not encrypted for this request.
    #[error(
        "the seed does not open: it was not encrypted for this request; begin again with a new challenge"
    )]
    Sealed,
    /// It is another seed than the pinned one.
    #[error(
        "it is another seed than the image accepts (`fingerprint` in [keys]): have it handed over by an enclave that has this one"
    )]
    Fingerprint,
}

impl Rules {
    /// Whether a document is of an enclave of this family and the stated generation, and was
    /// made for this purpose.
    pub(super) fn check(
        &self,
        claims: &Claims<'_>,
        purpose: Purpose,
        stated: Generation,
    ) -> Result<(), Refusal> {
        if claims.purpose != purpose {
            return Err(Refusal::Purpose);
        }
        if claims.signer != self.signer {
            return Err(Refusal::Signer);
        }
        if self.role.is_some_and(|role| claims.role != role) {
            return Err(Refusal::Role);
        }
        if claims.register != register(&self.family, stated) {
            return Err(Refusal::Family);
        }
        Ok(())
    }
}

/// What the init of an image measures into the register when it boots.
pub fn measured(family: &Family, generation: Generation) -> [u8; SHA384_OUTPUT_LEN] {
    let name = family.as_str().as_bytes();
    let text = [
        MEASURED,
        &(name.len() as u64).to_be_bytes(),
        name,
        &generation.get().to_be_bytes(),
    ]
    .concat();
    let digest = digest(&SHA384, &text);
    digest.as_ref().try_into().expect("SHA-384 has this length")
}

/// The register's value in an enclave of this family and generation.
pub fn register(family: &Family, generation: Generation) -> Pcr {
    Pcr::ZERO.extend(&measured(family, generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_differs_with_family_and_generation() {
        let of = |family: &str, generation| {
            let generation = Generation::new(generation).unwrap();
            register(&family.parse().unwrap(), generation)
        };
        let all = [
            of("a", 1),
            of("a", 2),
            of("a", 256),
            of("ab", 1),
            of("b", 1),
            Pcr::ZERO,
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }

    /// By `tests/vectors/derive.py`, with Python's hashlib.
    #[test]
    fn register_is_that_of_another_implementation() {
        let generation = Generation::new(3).unwrap();
        let register = register(&"payments".parse().unwrap(), generation);
        assert_eq!(
            register.to_string(),
            "5c2aef86a37ed1646b81e1d5060bbc79ef48712164e2dfa9bc3ca77e6fc24406378b943aeb0048dd08bc889a3015d3f9"
        );
    }
}
