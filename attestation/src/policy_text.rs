//! Policies as text: TOML, or JSON with the same keys. `docs/attest.md` describes them.

use std::collections::BTreeMap;
use std::time::Duration;

use measurements::{InstanceId, Measurements, Pcr, RoleArn};
use plain_text::plain_lines;
use serde::Deserialize;

use crate::document::Profile;
use crate::image_text::ImageEntry;
use crate::one_or_many::OneOrMany;
use crate::policy::{Binding, Policy};
use crate::policy_error::PolicyError;
use crate::purpose::Purpose;
use crate::register_words::{RegisterWords, Signer};
use crate::text_file::Folder;
use crate::unique_keys;

/// Longest duration that a policy may state.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What is said of a measurements file that is read as a policy.
const MEASUREMENTS: &str = "these are the measurements of an image, not a policy: name their file in a policy, as `file` in `[[images]]`, or read them as measurements";

/// A policy in its file's terms.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a policy, which is a table")]
pub(crate) struct PolicyFile {
    profile: Option<Profile>,
    #[serde(default)]
    images: Vec<ImageEntry>,
    #[serde(default)]
    allow_any_image: bool,
    #[serde(default)]
    allow_debug: bool,
    #[serde(default)]
    pcrs: BTreeMap<Index, OneOrMany<Pcr>>,
    role_arn: Option<OneOrMany<RoleArn>>,
    instance_id: Option<OneOrMany<InstanceId>>,
    signer: Option<OneOrMany<Signer>>,
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

/// A binding: one of the keys.
#[derive(Debug, Deserialize)]
#[serde(try_from = "BindingKeys")]
struct BindingEntry(Binding);

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table, as in `{ equal = \"00ff\" }`"
)]
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
        from_toml(text)?.build(Folder(None))
    }

    /// The policy in a JSON text, which can name no files.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        from_json(text)?.build(Folder(None))
    }
}

pub(crate) fn from_toml(text: &str) -> Result<PolicyFile, PolicyError> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| format!("line {}: ", before.matches('\n').count() + 1))
            .unwrap_or_default();
        PolicyError::Text(line + &plain_lines(error.message()))
    })
}

pub(crate) fn from_json(text: &str) -> Result<PolicyFile, PolicyError> {
    unique_keys::check(text)
        .and_then(|()| serde_json::from_str(text))
        .map_err(|error| {
            PolicyError::Text(match serde_json::from_str::<Measurements>(text) {
                Ok(_) => MEASUREMENTS.to_owned(),
                Err(_) => plain_lines(&error.to_string()),
            })
        })
}

impl PolicyFile {
    /// The policy; files that it names are in this folder.
    pub(crate) fn build(self, folder: Folder<'_>) -> Result<Policy, PolicyError> {
        let mut policy = Policy::builder();
        if let Some(profile) = self.profile {
            policy = policy.profile(profile);
        }
        for (number, image) in (1..).zip(self.images) {
            let (name, measurements) = image.resolve(number, folder)?;
            policy = policy.image(name, measurements);
        }
        if self.allow_any_image {
            policy = policy.allow_any_image();
        }
        if self.allow_debug {
            policy = policy.allow_debug();
        }
        let words = RegisterWords {
            role_arn: self.role_arn,
            instance_id: self.instance_id,
            signer: self.signer,
        };
        let words = words.registers(self.profile.unwrap_or(Profile::Enclave), folder)?;
        let given = |index| self.pcrs.contains_key(&Index(index));
        if let Some((word, index, _)) = words.iter().find(|(_, index, _)| given(*index)) {
            return Err(PolicyError::Text(format!(
                "{word} and pcrs both give values of PCR{index}: remove one of the two"
            )));
        }
        let words = words.into_iter().map(|(_, index, values)| (index, values));
        let pcrs = self.pcrs.into_iter();
        let pcrs = pcrs.map(|(Index(index), OneOrMany(values))| (index, values));
        for (index, values) in pcrs.chain(words) {
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
