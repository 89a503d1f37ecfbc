//! What a verifier demands of an enclave.

use std::collections::BTreeMap;
use std::time::Duration;

use measurements::Pcr;

#[cfg(feature = "aws-lc-rs")]
use crate::aws_lc::AwsLcRs;
use crate::crypto::Crypto;
use crate::document::Profile;
use crate::image::{Image, ImageMeasurements};
use crate::purpose::Purpose;

/// By how much the verifier's clock may be wrong, unless told otherwise.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// How old a document may be, unless told otherwise.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// What a verifier demands. Built by [`Policy::builder`], or read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) profile: Profile,
    pub(crate) images: Vec<Image>,
    pub(crate) any_image: bool,
    pub(crate) pcrs: BTreeMap<u8, Vec<Pcr>>,
    pub(crate) nonce: Nonce,
    pub(crate) purpose: Option<Purpose>,
    pub(crate) user_data: Option<Binding>,
    pub(crate) public_key: Option<Binding>,
    pub(crate) module_id: Option<String>,
    pub(crate) max_age: Duration,
    pub(crate) clock_skew: Duration,
    pub(crate) debug_allowed: bool,
    pub(crate) strict_keys: bool,
}

/// What a policy wants of the nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nonce {
    NotChecked,
    /// Whoever uses the policy must give one.
    Required,
    Equal(Vec<u8>),
}

/// What a policy wants of `user_data` or `public_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// Exactly these bytes.
    Equal(Vec<u8>),
    /// The SHA-256 digest of these bytes, 32 bytes.
    Sha256Of(Vec<u8>),
    /// The SHA-384 digest of these bytes, 48 bytes.
    Sha384Of(Vec<u8>),
    /// These bytes, and perhaps more behind them.
    Prefix(Vec<u8>),
}

impl Binding {
    /// Whether the value has this form.
    pub(crate) fn is_met_by(&self, value: &[u8], crypto: &dyn Crypto) -> bool {
        let (expected, more) = self.resolve(crypto);
        if more {
            value.starts_with(&expected)
        } else {
            value == expected
        }
    }

    /// The bytes that are compared, and whether more may follow.
    pub(crate) fn resolve(&self, crypto: &dyn Crypto) -> (Vec<u8>, bool) {
        match self {
            Self::Equal(bytes) => (bytes.clone(), false),
            Self::Sha256Of(bytes) => (crypto.sha256(&[bytes]).to_vec(), false),
            Self::Sha384Of(bytes) => (crypto.sha384(bytes).to_vec(), false),
            Self::Prefix(bytes) => (bytes.clone(), true),
        }
    }
}

impl Policy {
    /// A policy that refuses debug enclaves and documents older than five
    /// minutes; it needs at least one measurement.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder {
            policy: Self {
                profile: Profile::Enclave,
                images: Vec::new(),
                any_image: false,
                pcrs: BTreeMap::new(),
                nonce: Nonce::NotChecked,
                purpose: None,
                user_data: None,
                public_key: None,
                module_id: None,
                max_age: DEFAULT_MAX_AGE,
                clock_skew: DEFAULT_CLOCK_SKEW,
                debug_allowed: false,
                strict_keys: false,
            },
        }
    }

    /// The same demands and others: what is not said again stays.
    pub fn to_builder(&self) -> PolicyBuilder {
        PolicyBuilder {
            policy: self.clone(),
        }
    }

    /// What kind of document it is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether the policy demands a nonce that it has not been given: until
    /// then it refuses every document.
    pub fn needs_nonce(&self) -> bool {
        self.nonce == Nonce::Required
    }

    /// Whether the policy demands one certain nonce, so that it accepts one document
    /// again and again, and none of a new challenge.
    pub fn fixes_nonce(&self) -> bool {
        matches!(self.nonce, Nonce::Equal(_))
    }

    /// Whether the policy accepts documents of this key.
    #[cfg(feature = "aws-lc-rs")]
    pub fn accepts_public_key(&self, key: &[u8]) -> bool {
        self.public_key
            .as_ref()
            .is_none_or(|binding| binding.is_met_by(key, &AwsLcRs))
    }
}

/// Collects a [`Policy`].
#[derive(Debug, Clone)]
#[must_use]
pub struct PolicyBuilder {
    policy: Policy,
}

impl PolicyBuilder {
    /// Expects documents of this kind; of enclaves unless said.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.policy.profile = profile;
        self
    }

    /// Allows an image. Called more than once, it allows each of them: PCR0,
    /// PCR1, PCR2 and PCR8 must be those of one and the same image, so that
    /// releases overlap and never mix. An image without PCR8 is unsigned, and
    /// its PCR8 must be zero. Of a NitroTPM's image it is PCR4, and PCR7 and
    /// PCR12 where they are given.
    pub fn measurements(self, image: impl Into<ImageMeasurements>) -> Self {
        let name = format!("image {}", self.policy.images.len() + 1);
        self.image(name, image)
    }

    /// Allows an image, as [`measurements`](Self::measurements) does, under the
    /// name that reports call it by.
    pub fn image(
        mut self,
        name: impl Into<String>,
        measurements: impl Into<ImageMeasurements>,
    ) -> Self {
        let image = Image {
            name: name.into(),
            measurements: measurements.into(),
        };
        if !self.policy.images.contains(&image) {
            self.policy.images.push(image);
        }
        self
    }

    /// Accepts whatever runs in the enclave, unless registers are named. For those who
    /// want to know only that AWS signed a document, or bind it by other rules.
    pub fn allow_any_image(mut self) -> Self {
        self.policy.any_image = true;
        self
    }

    /// Allows a value of a register, whatever the image; every register that is
    /// named must have one of its values.
    pub fn pcr(mut self, index: u8, value: Pcr) -> Self {
        let values = self.policy.pcrs.entry(index).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
        self
    }

    /// Demands exactly this nonce: of an archived document. That of a challenge is given
    /// with the challenge, as [`Nonce::Fresh`](crate::Nonce::Fresh).
    pub fn nonce(mut self, nonce: Vec<u8>) -> Self {
        self.policy.nonce = Nonce::Equal(nonce);
        self
    }

    /// Demands a nonce of whoever uses the policy: with the challenge, or of an audit
    /// through [`Policy::with_nonce`]. Without it every document is refused.
    pub fn require_nonce(mut self) -> Self {
        self.policy.nonce = Nonce::Required;
        self
    }

    /// Demands a document that was made for this: see [`Purpose`].
    pub fn purpose(mut self, purpose: Purpose) -> Self {
        self.policy.purpose = Some(purpose);
        self
    }

    /// Demands exactly this user data.
    pub fn user_data(self, user_data: Vec<u8>) -> Self {
        self.bind_user_data(Binding::Equal(user_data))
    }

    /// Demands user data of this form.
    pub fn bind_user_data(mut self, binding: Binding) -> Self {
        self.policy.user_data = Some(binding);
        self
    }

    /// Demands exactly this public key.
    pub fn public_key(self, public_key: Vec<u8>) -> Self {
        self.bind_public_key(Binding::Equal(public_key))
    }

    /// Demands a public key of this form.
    pub fn bind_public_key(mut self, binding: Binding) -> Self {
        self.policy.public_key = Some(binding);
        self
    }

    /// Demands a module id of this form, where `*` stands for any characters,
    /// also none: `i-0123456789abcdef0-enc*` is any enclave of one instance.
    pub fn module_id(mut self, pattern: impl Into<String>) -> Self {
        self.policy.module_id = Some(pattern.into());
        self
    }

    /// How old the document may be at the time of checking; five minutes unless said.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.policy.max_age = max_age;
        self
    }

    /// By how much the verifier's clock may be wrong, behind or ahead, when it is compared
    /// with the document's time and with the beginning and the end of certificates; one
    /// minute unless said, at most an hour. How old a document may be is what `max_age`
    /// says, whatever this is.
    pub fn clock_skew(mut self, clock_skew: Duration) -> Self {
        self.policy.clock_skew = clock_skew;
        self
    }

    /// Refuses documents with keys whose meaning this verifier does not know. AWS adds
    /// keys, so that a strict policy refuses good documents until the verifier is updated.
    pub fn strict_keys(mut self) -> Self {
        self.policy.strict_keys = true;
        self
    }

    /// Accepts enclaves in debug mode, whose memory the parent can read.
    pub fn allow_debug(mut self) -> Self {
        self.policy.debug_allowed = true;
        self
    }

    /// The policy as it is, which is yet to be checked.
    pub(crate) fn into_policy(self) -> Policy {
        self.policy
    }
}

/// Whether a text has a pattern's form; `*` stands for any characters.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        // No `*` at all.
        return rest.is_empty();
    };
    for part in parts {
        // The earliest place leaves most for those that follow.
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("i-1-enc2", "i-1-enc2", true),
            ("i-1-enc2", "i-1-enc22", false),
            ("i-1-enc*", "i-1-enc", true),
            ("i-1-enc*", "i-1-enc2", true),
            ("*-enc2", "i-1-enc2", true),
            ("*-enc2", "i-1-enc23", false),
            ("i-*-enc*", "i-1-enc2", true),
            ("i-*-enc*2", "i-1-enc2", true),
            ("i-*1*1", "i-1", false),
            ("i-*1*1", "i-11", true),
            ("a*ab", "ab", false),
            ("a**b", "ab", true),
            ("i.*", "i-1", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
