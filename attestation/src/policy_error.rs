//! Why a policy cannot be used.

use std::time::Duration;

use thiserror::Error;

use crate::document::{MAX_MODULE_ID, Profile};
use crate::purpose::Purpose;

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The policy names no code ([`Policy::names_code`](crate::Policy::names_code)), and does
    /// not say that any shall be accepted.
    #[error(
        "the policy names no code, so any would pass: give the measurements that image-builder wrote, or values that are not zero of PCR0, of PCR8, or of PCR1 and PCR2 (of a NitroTPM, of PCR4 with PCR12, or with PCR7 under Secure Boot)"
    )]
    NoCode,
    /// The kernel of a NitroTPM's instance is named, and not what it is told to run.
    #[error(
        "the policy names a NitroTPM's PCR4 and leaves the kernel's command line open (GHSA-xrv8-2pf5-f3q7): give PCR12 too, or PCR7 under Secure Boot; nitro-tpm-pcr-compute writes PCR12 from its release 1.1 on"
    )]
    OpenCommandLine,
    /// An image that nobody has measured.
    #[error(
        "{image}: PCR{index} is zeros, which is no measurement (an enclave in debug mode has it): give the measurements that image-builder, nitro-cli or nitro-tpm-pcr-compute wrote"
    )]
    ZeroImage {
        /// The image's name.
        image: String,
        /// The register.
        index: u8,
    },
    /// A register of the image that nobody has measured.
    #[error(
        "PCR{0} is zeros, which is no measurement but what an enclave in debug mode has: remove the value, or write both allow_any_image and allow_debug"
    )]
    ZeroRegister(u8),
    /// A register of a NitroTPM that is never zero.
    #[error(
        "PCR{0} of a NitroTPM is never zeros, since its firmware measures into it: remove the value"
    )]
    ZeroTpmRegister(u8),
    /// Values that no enclave has together.
    #[error(
        "nothing would be accepted: PCR0, PCR1, PCR2 and PCR8 are all zeros in debug mode, and PCR0, PCR1 and PCR2 are not otherwise, but the policy's values mix the two"
    )]
    NoMode,
    /// A register whose values no image that is allowed has.
    #[error(
        "the policy lists values for PCR{0} that none of its images has: nothing would be accepted"
    )]
    OtherImages(u8),
    /// Any image is allowed, and yet some are named.
    #[error("the policy allows any image and also names images: remove one of the two")]
    AnyImageAndImages,
    /// A register that does not exist.
    #[error("PCR{index} does not exist: registers are 0 to {last}")]
    NoSuchPcr {
        /// The register.
        index: u8,
        /// The last one that documents of the profile have.
        last: usize,
    },
    /// A register with an empty set of values.
    #[error("the policy lists no value for PCR{0}: nothing would be accepted")]
    NoValue(u8),
    /// An image whose registers mean something else in documents of the policy's profile.
    #[error(
        "{image} is an image of the profile {profile}, and the policy is not: write profile = \"{profile}\", or remove the image"
    )]
    ImageOfAnotherProfile {
        /// The image's name.
        image: String,
        /// Its profile.
        profile: Profile,
    },
    /// A NitroTPM has no such mode.
    #[error("a NitroTPM has no debug mode: remove it from the policy")]
    DebugOfTpm,
    /// What `enclave-init` says of its documents, for a NitroTPM that has none.
    #[error("a policy for the profile nitro-tpm cannot demand a purpose: only enclaves say one")]
    PurposeOfTpm,
    /// A purpose that no document is known to have.
    #[error("the purpose `unknown` cannot be demanded: it says nothing about a document")]
    UnknownPurpose,
    /// User data, where the init writes it.
    #[error(
        "a document of the purpose {0} has the user_data that says so: remove user_data from the policy"
    )]
    UserDataOfTheInit(Purpose),
    /// A prefix that every value has.
    #[error("the prefix for {0} is empty: everything begins with it")]
    EmptyPrefix(&'static str),
    /// A nonce of no bytes.
    #[error(
        "the nonce is empty: it must be new for each document, so give at least 16 random bytes"
    )]
    EmptyNonce,
    /// A nonce that is known before the challenge.
    #[error(
        "the policy fixes a nonce, which must be new for each document: write nonce = \"required\", and give it with each challenge"
    )]
    FixedNonce,
    /// A key of no bytes.
    #[error("the public_key is empty, which is no key: give the key, or remove the demand")]
    EmptyKey,
    /// A key in a document that holds none.
    #[error("a document of the purpose {0} holds no public_key: remove it from the policy")]
    KeyOfTheInit(Purpose),
    /// User data that says another purpose.
    #[error(
        "no document of the purpose workload has a user_data that begins with `enclave-purpose:`: remove one of the two"
    )]
    ReservedUserData,
    /// An age that no document has.
    #[error(
        "max_age is {} ms, and a document is older when it arrives: give at least 1s",
        .0.as_millis()
    )]
    MaxAge(Duration),
    /// A clock that shows hardly anything.
    #[error(
        "clock_skew is {} s, and certificates are valid for hours: give at most 1h, and set the clock",
        .0.as_secs()
    )]
    ClockSkew(Duration),
    /// Something is added to the policy that it contradicts.
    #[error("{name}: the policy says {policy}, and {added} would replace it: {advice}")]
    Contradiction {
        /// The demand.
        name: &'static str,
        /// What the policy says.
        policy: String,
        /// What was to be added.
        added: String,
        /// What to do.
        advice: &'static str,
    },
    /// A pattern that no id, or every id, has.
    #[error(
        "the module id's pattern is empty, only `*`, or has what no id has: ids are at most {MAX_MODULE_ID} printable ASCII characters; write it as `i-0123456789abcdef0-enc*`"
    )]
    ModuleIdPattern,
    /// A pattern that no id of the profile has.
    #[error(
        "no document of the profile {0} has such a module id: enclaves have i-…-enc…, and instances with a NitroTPM i-…-tpm…"
    )]
    ModuleIdOfAnotherProfile(Profile),
    /// A value longer than documents can carry.
    #[error("the value for {name} is longer than the {limit} bytes that a document can carry")]
    NeverMet {
        /// The document's field.
        name: &'static str,
        /// Most bytes that it has.
        limit: usize,
    },
    /// A policy's text that is not a policy.
    #[error("{0}")]
    Text(String),
    /// A file that cannot be read or used.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong, where, and what to do.
        reason: String,
    },
}
