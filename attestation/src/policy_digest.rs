//! A policy's digest, by which results name what was demanded.

use serde::Serialize;

use crate::aws_lc::AwsLcRs;
use crate::crypto::Crypto;
use crate::document::Profile;
use crate::policy::{Binding, Policy};
use crate::purpose::Purpose;

/// What a policy demands, in a form that is the same for the same demands.
#[derive(Serialize)]
struct Demands<'a> {
    profile: Profile,
    images: Vec<(&'a str, Vec<(u8, String)>)>,
    any_image: bool,
    pcrs: Vec<(u8, Vec<String>)>,
    nonce: bool,
    /// Left out if none is demanded, as it was before there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    user_data: Option<(&'static str, String)>,
    public_key: Option<(&'static str, String)>,
    module_id: Option<&'a str>,
    max_age_ms: u128,
    clock_skew_ms: u128,
    debug_allowed: bool,
    /// Left out if it is not demanded, as `purpose` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict_keys: Option<bool>,
}

impl Policy {
    /// `sha256:` and the digest of what the policy demands, in hexadecimal: the same for
    /// the same demands, whatever file they stood in. A nonce is one of a challenge, so
    /// that only whether there has to be one is in it.
    pub fn digest(&self) -> String {
        // Every field by name: one that were left out would not be in the digest.
        let Self {
            profile,
            images,
            any_image,
            pcrs,
            nonce: _,
            purpose,
            user_data,
            public_key,
            module_id,
            max_age,
            clock_skew,
            debug_allowed,
            strict_keys,
        } = self;
        let binding = |binding: &Option<Binding>| {
            binding.as_ref().map(|binding| match binding {
                Binding::Equal(bytes) => ("equal", hex::encode(bytes)),
                Binding::Sha256Of(bytes) => ("sha256_of", hex::encode(bytes)),
                Binding::Sha384Of(bytes) => ("sha384_of", hex::encode(bytes)),
                Binding::Prefix(bytes) => ("prefix", hex::encode(bytes)),
            })
        };
        let images = images.iter().map(|image| {
            let pcrs = image.pcrs();
            (
                &*image.name,
                pcrs.map(|(index, pcr)| (index, pcr.to_string())).collect(),
            )
        });
        let pcrs = pcrs
            .iter()
            .map(|(index, values)| (*index, values.iter().map(ToString::to_string).collect()));
        let demands = Demands {
            profile: *profile,
            images: images.collect(),
            any_image: *any_image,
            pcrs: pcrs.collect(),
            nonce: self.needs_nonce(),
            purpose: *purpose,
            user_data: binding(user_data),
            public_key: binding(public_key),
            module_id: module_id.as_deref(),
            max_age_ms: max_age.as_millis(),
            clock_skew_ms: clock_skew.as_millis(),
            debug_allowed: *debug_allowed,
            strict_keys: strict_keys.then_some(true),
        };
        // Plain data: there is nothing in it that JSON cannot say.
        let text = serde_json::to_vec(&demands).unwrap_or_default();
        format!("sha256:{}", hex::encode(AwsLcRs.sha256(&[&text])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_is_demanded_and_not_of_how_it_is_written() {
        let digest = |text| Policy::from_toml(text).unwrap().digest();
        let one = digest("allow_any_image = true");
        assert_eq!(
            one,
            digest("# a comment\nallow_any_image = true\nmax_age = \"300s\"")
        );
        for other in [
            "allow_any_image = true\nmax_age = \"301s\"",
            "allow_any_image = true\nallow_debug = true",
            "allow_any_image = true\nnonce = \"required\"",
            "allow_any_image = true\nuser_data = { prefix = \"00\" }",
            "allow_any_image = true\nuser_data = { equal = \"00\" }",
            "allow_any_image = true\npublic_key = { equal = \"00\" }",
            "allow_any_image = true\npurpose = \"workload\"",
            "allow_any_image = true\nstrict_keys = true",
        ] {
            assert_ne!(one, digest(other), "{other}");
        }
    }
}
