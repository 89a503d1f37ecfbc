//! What relying parties expect of attestation results, as C and Python say it: in JSON.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use attestation::{Measurements, Pcr, Profile, parse_duration};
use attestation_results::{
    Expectations, ExpectationsBuilder, Freshness, Jwks, ResultError, VerifiedResult, verify,
};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What a relying party expects, without the nonce, which is another one each time.
#[derive(Debug, Clone)]
pub struct Expected(Keys);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with what is expected")]
struct Keys {
    issuer: Option<String>,
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    allow_any_policy: bool,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    measurements: Vec<Measurements>,
    #[serde(default)]
    pcrs: Registers,
    module_id: Option<String>,
    profile: Option<Profile>,
    freshness: Option<Freshness>,
    max_age: Option<Age>,
    clock_skew: Option<Age>,
    #[serde(default)]
    allow_warning: bool,
    #[serde(default)]
    allow_other_roots: bool,
}

/// A duration, such as `5m`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Age(Duration);

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self)
    }
}

/// Registers and their allowed values.
#[derive(Debug, Clone, Default)]
struct Registers(BTreeMap<u8, Vec<Pcr>>);

impl<'de> Deserialize<'de> for Registers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Registers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("registers by their numbers, each with a list of values")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Registers, M::Error> {
                let mut registers = BTreeMap::new();
                while let Some((index, values)) = map.next_entry::<u8, Vec<Pcr>>()? {
                    if values.is_empty() {
                        return Err(de::Error::custom(format!("PCR{index} has no value")));
                    }
                    if registers.insert(index, values).is_some() {
                        return Err(de::Error::custom(format!("PCR{index} is there twice")));
                    }
                }
                Ok(Registers(registers))
            }
        }

        deserializer.deserialize_map(Once)
    }
}

impl Expected {
    /// The expectations in a JSON text. Those that no result could meet, and those that do
    /// not say what may run in the enclave, are errors.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in a line.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let keys = serde_json::from_str(text).map_err(|error| format!("expectations: {error}"))?;
        let expected = Self(keys);
        expected.with(Expectations::without_nonce())?;
        Ok(expected)
    }

    /// Verifies a signed result now, which must be for this nonce, of 8 to 64 bytes; or,
    /// without one, for any nonce or none.
    ///
    /// # Errors
    ///
    /// The nonce cannot be used. That the result is refused is the inner error.
    pub fn verify(
        &self,
        token: &str,
        keys: &Jwks,
        nonce: Option<&[u8]>,
    ) -> Result<Result<VerifiedResult, ResultError>, String> {
        let builder = nonce.map_or_else(Expectations::without_nonce, Expectations::with_nonce);
        Ok(verify(token, keys, &self.with(builder)?))
    }

    fn with(&self, mut builder: ExpectationsBuilder) -> Result<Expectations, String> {
        // Every key by name: one that were left out would accept more.
        let Keys {
            issuer,
            policies,
            allow_any_policy,
            images,
            measurements,
            pcrs: Registers(pcrs),
            module_id,
            profile,
            freshness,
            max_age,
            clock_skew,
            allow_warning,
            allow_other_roots,
        } = &self.0;
        if let Some(issuer) = issuer {
            builder = builder.issuer(issuer);
        }
        for policy in policies {
            builder = builder.policy(policy);
        }
        if *allow_any_policy {
            builder = builder.allow_any_policy();
        }
        for image in images {
            builder = builder.image(image);
        }
        for image in measurements {
            builder = builder.measurements(*image);
        }
        for (index, values) in pcrs {
            for value in values {
                builder = builder.pcr(*index, *value);
            }
        }
        if let Some(module_id) = module_id {
            builder = builder.module_id(module_id);
        }
        if let Some(profile) = profile {
            builder = builder.profile(*profile);
        }
        if let Some(freshness) = freshness {
            builder = builder.freshness(*freshness);
        }
        if let Some(Age(max_age)) = max_age {
            builder = builder.max_age(*max_age);
        }
        if let Some(Age(clock_skew)) = clock_skew {
            builder = builder.clock_skew(*clock_skew);
        }
        if *allow_warning {
            builder = builder.allow_warning();
        }
        if *allow_other_roots {
            builder = builder.allow_other_roots();
        }
        builder.build().map_err(|error| error.to_string())
    }
}
