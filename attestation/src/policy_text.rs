//! Policies as text: TOML, or JSON with the same keys. `docs/attest.md` describes them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use measurements::{Measurements, Pcr};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, de::SeqAccess};

use crate::demand::PolicyError;
use crate::document::Profile;
use crate::policy::{Binding, Image, Nonce, Policy, PolicyBuilder};
use crate::purpose::Purpose;

/// Longest duration that a policy may state.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What reads the measurements in a file that a policy names.
pub(crate) type ReadMeasurements<'a> = &'a dyn Fn(&Path) -> Result<Measurements, PolicyError>;

/// A policy in its file's terms.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyFile {
    profile: Option<Profile>,
    #[serde(default)]
    images: Vec<ImageEntry>,
    #[serde(default)]
    allow_any_image: bool,
    #[serde(default)]
    allow_debug: bool,
    #[serde(default)]
    pcrs: BTreeMap<Index, Values>,
    nonce: Option<NonceEntry>,
    purpose: Option<PurposeEntry>,
    user_data: Option<BindingEntry>,
    public_key: Option<BindingEntry>,
    module_id: Option<String>,
    max_age: Option<DurationText>,
    clock_skew: Option<DurationText>,
    #[serde(default)]
    strict_keys: bool,
}

/// An image: a file of measurements, or what is in one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageEntry {
    name: Option<String>,
    file: Option<PathBuf>,
    #[serde(rename = "Measurements")]
    measurements: Option<InlineMeasurements>,
}

/// As nitro-cli and image-builder write them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InlineMeasurements {
    #[serde(rename = "HashAlgorithm")]
    _hash_algorithm: Option<String>,
    #[serde(rename = "PCR0")]
    pcr0: Pcr,
    #[serde(rename = "PCR1")]
    pcr1: Pcr,
    #[serde(rename = "PCR2")]
    pcr2: Pcr,
    #[serde(rename = "PCR8")]
    pcr8: Option<Pcr>,
}

/// A binding: one of the keys.
#[derive(Debug, Deserialize)]
#[serde(try_from = "BindingKeys")]
struct BindingEntry(Binding);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingKeys {
    equal: Option<Hex>,
    sha256_of: Option<Hex>,
    sha384_of: Option<Hex>,
    prefix: Option<Hex>,
}

impl TryFrom<BindingKeys> for BindingEntry {
    type Error = &'static str;

    fn try_from(keys: BindingKeys) -> Result<Self, &'static str> {
        let bindings = [
            keys.equal.map(|Hex(bytes)| Binding::Equal(bytes)),
            keys.sha256_of.map(|Hex(bytes)| Binding::Sha256Of(bytes)),
            keys.sha384_of.map(|Hex(bytes)| Binding::Sha384Of(bytes)),
            keys.prefix.map(|Hex(bytes)| Binding::Prefix(bytes)),
        ];
        let mut bindings = bindings.into_iter().flatten();
        match (bindings.next(), bindings.next()) {
            (Some(binding), None) => Ok(Self(binding)),
            _ => Err(
                "write one of `equal`, `sha256_of`, `sha384_of` and `prefix`, as in `{ equal = \"00ff\" }`",
            ),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        hex::decode(&text)
            .map(Self)
            .map_err(|error| format!("this is not hexadecimal: {error}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
enum NonceEntry {
    Required,
    Equal(Vec<u8>),
}

impl TryFrom<String> for NonceEntry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "required" {
            return Ok(Self::Required);
        }
        hex::decode(&text)
            .map(Self::Equal)
            .map_err(|_| "a nonce is \"required\" or hexadecimal".to_owned())
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct PurposeEntry(Purpose);

impl TryFrom<String> for PurposeEntry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

/// A register's number; the keys of tables are text.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct Index(u8);

impl TryFrom<String> for Index {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|index: &u8| index.to_string() == text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a register's number: write 0 to 31"))
    }
}

/// One value of a register, or several.
#[derive(Debug)]
struct Values(Vec<Pcr>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a register's value in hexadecimal, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                text.parse().map(|pcr| Values(vec![pcr])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Values, A::Error> {
                let mut pcrs = Vec::new();
                while let Some(pcr) = values.next_element()? {
                    pcrs.push(pcr);
                }
                Ok(Values(pcrs))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct DurationText(Duration);

impl TryFrom<String> for DurationText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self)
    }
}

/// A duration such as `90s`, `5m`, `2h` or `1d`, at most a year.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    number
        .parse()
        .ok()
        .zip(milliseconds)
        .and_then(|(number, unit): (u64, u64)| number.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| {
            format!("{text:?} is not a duration of at most a year, such as 90s, 5m, 2h or 1d")
        })
}

impl Policy {
    /// The policy in a TOML text, which can name no files.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        from_toml(text)?.build(None)
    }

    /// The policy in a JSON text, which can name no files.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        from_json(text)?.build(None)
    }

    /// The policy as a JSON text that [`from_json`](Self::from_json) reads back:
    /// the same for equal policies, with every default and every measurement
    /// written out.
    pub fn to_json(&self) -> Result<String, PolicyError> {
        serde_json::to_string(&PolicyText::of(self))
            .map_err(|error| PolicyError::Text(error.to_string()))
    }
}

/// A policy in its file's terms, to be written.
#[derive(Serialize)]
struct PolicyText<'p> {
    profile: Profile,
    images: Vec<ImageText<'p>>,
    allow_any_image: bool,
    allow_debug: bool,
    pcrs: BTreeMap<u8, &'p [Pcr]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_data: Option<BindingText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<BindingText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'p str>,
    max_age: String,
    clock_skew: String,
    strict_keys: bool,
}

#[derive(Serialize)]
struct ImageText<'p> {
    name: &'p str,
    /// Its serialised form brings the key `Measurements` along.
    #[serde(flatten)]
    measurements: Measurements,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum BindingText {
    Equal(String),
    Sha256Of(String),
    Sha384Of(String),
    Prefix(String),
}

impl From<&Binding> for BindingText {
    fn from(binding: &Binding) -> Self {
        match binding {
            Binding::Equal(bytes) => Self::Equal(hex::encode(bytes)),
            Binding::Sha256Of(bytes) => Self::Sha256Of(hex::encode(bytes)),
            Binding::Sha384Of(bytes) => Self::Sha384Of(hex::encode(bytes)),
            Binding::Prefix(bytes) => Self::Prefix(hex::encode(bytes)),
        }
    }
}

impl<'p> PolicyText<'p> {
    fn of(policy: &'p Policy) -> Self {
        // Every field by name: one that were left out would make the policy weaker.
        let Policy {
            profile,
            images,
            any_image,
            pcrs,
            nonce,
            purpose,
            user_data,
            public_key,
            module_id,
            max_age,
            clock_skew,
            debug_allowed,
            strict_keys,
        } = policy;
        let milliseconds = |duration: &Duration| format!("{}ms", duration.as_millis());
        Self {
            profile: *profile,
            images: images
                .iter()
                .map(|Image { name, measurements }| ImageText {
                    name,
                    measurements: *measurements,
                })
                .collect(),
            allow_any_image: *any_image,
            allow_debug: *debug_allowed,
            pcrs: pcrs
                .iter()
                .map(|(&index, values)| (index, values.as_slice()))
                .collect(),
            nonce: match nonce {
                Nonce::NotChecked => None,
                Nonce::Required => Some("required".to_owned()),
                Nonce::Equal(nonce) => Some(hex::encode(nonce)),
            },
            purpose: *purpose,
            user_data: user_data.as_ref().map(BindingText::from),
            public_key: public_key.as_ref().map(BindingText::from),
            module_id: module_id.as_deref(),
            max_age: milliseconds(max_age),
            clock_skew: milliseconds(clock_skew),
            strict_keys: *strict_keys,
        }
    }
}

pub(crate) fn from_toml(text: &str) -> Result<PolicyFile, PolicyError> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| format!("line {}: ", before.matches('\n').count() + 1))
            .unwrap_or_default();
        PolicyError::Text(line + &one_line(error.message()))
    })
}

pub(crate) fn from_json(text: &str) -> Result<PolicyFile, PolicyError> {
    serde_json::from_str(text).map_err(|error| PolicyError::Text(one_line(&error.to_string())))
}

/// A reader's message, which quotes the text that it read: in one line, and
/// without what a terminal obeys.
pub(crate) fn one_line(message: &str) -> String {
    plain_text::plain(&message.replace('\n', "; "))
}

impl PolicyFile {
    /// The policy; `read` gives the measurements in a file that it names.
    pub(crate) fn build(self, read: Option<ReadMeasurements<'_>>) -> Result<Policy, PolicyError> {
        let mut policy = Policy::builder();
        if let Some(profile) = self.profile {
            policy = policy.profile(profile);
        }
        for (number, image) in (1..).zip(self.images) {
            policy = image.add(number, read, policy)?;
        }
        if self.allow_any_image {
            policy = policy.allow_any_image();
        }
        if self.allow_debug {
            policy = policy.allow_debug();
        }
        for (Index(index), Values(values)) in self.pcrs {
            if values.is_empty() {
                return Err(PolicyError::NoValue(index));
            }
            for value in values {
                policy = policy.pcr(index, value);
            }
        }
        policy = match self.nonce {
            None => policy,
            Some(NonceEntry::Required) => policy.require_nonce(),
            Some(NonceEntry::Equal(nonce)) => policy.nonce(nonce),
        };
        if let Some(PurposeEntry(purpose)) = self.purpose {
            policy = policy.purpose(purpose);
        }
        if let Some(BindingEntry(binding)) = self.user_data {
            policy = policy.bind_user_data(binding);
        }
        if let Some(BindingEntry(binding)) = self.public_key {
            policy = policy.bind_public_key(binding);
        }
        if let Some(pattern) = self.module_id {
            policy = policy.module_id(pattern);
        }
        if let Some(DurationText(max_age)) = self.max_age {
            policy = policy.max_age(max_age);
        }
        if let Some(DurationText(clock_skew)) = self.clock_skew {
            policy = policy.clock_skew(clock_skew);
        }
        if self.strict_keys {
            policy = policy.strict_keys();
        }
        policy.build()
    }
}

impl ImageEntry {
    fn add(
        self,
        number: usize,
        read: Option<ReadMeasurements<'_>>,
        policy: PolicyBuilder,
    ) -> Result<PolicyBuilder, PolicyError> {
        let wrong = |reason: &str| PolicyError::Text(format!("image {number}: {reason}"));
        let (default_name, measurements) = match (self.file, self.measurements) {
            (Some(file), None) => {
                let read = read.ok_or_else(|| {
                    wrong("a policy that is not a file itself cannot name one: write its content, `Measurements`")
                })?;
                let measurements = read(&file)?;
                (file.display().to_string(), measurements)
            }
            (None, Some(inline)) => (
                format!("image {number}"),
                Measurements {
                    pcr0: inline.pcr0,
                    pcr1: inline.pcr1,
                    pcr2: inline.pcr2,
                    pcr8: inline.pcr8,
                },
            ),
            _ => return Err(wrong("give either `file` or `Measurements`")),
        };
        Ok(policy.image(self.name.unwrap_or(default_name), measurements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_written_reads_back() {
        let image = |fill| Measurements {
            pcr0: Pcr::new([fill; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([3; 48]),
            pcr8: (fill == 1).then_some(Pcr::new([8; 48])),
        };
        let every = Policy::builder()
            .image("release \"2\"", image(1))
            .image("release 1", image(4))
            .pcr(16, Pcr::new([5; 48]))
            .pcr(16, Pcr::new([6; 48]))
            .pcr(3, Pcr::ZERO)
            .require_nonce()
            .purpose(Purpose::Workload)
            .bind_user_data(Binding::Prefix(vec![1, 2]))
            .bind_public_key(Binding::Sha256Of(vec![3]))
            .module_id("i-*-enc*")
            .max_age(Duration::from_millis(90_001))
            .clock_skew(Duration::ZERO)
            .strict_keys()
            .allow_debug();
        let any = Policy::builder().allow_any_image();
        for builder in [
            every,
            any.clone(),
            any.clone().nonce(vec![0xff; 32]),
            any.clone().profile(Profile::NitroTpm),
            any.clone().purpose(Purpose::RelayedChallenge),
            any.clone().purpose(Purpose::SelfCheck),
            any.clone()
                .user_data(vec![])
                .bind_public_key(Binding::Sha384Of(vec![9])),
        ] {
            let policy = builder.build().unwrap();
            let text = policy.to_json().unwrap();
            let again = Policy::from_json(&text).unwrap();
            assert_eq!(again, policy, "{text}");
            assert_eq!(again.to_json().unwrap(), text);
        }
    }
}
