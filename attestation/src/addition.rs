//! Demands that are added to a policy.

use std::collections::BTreeMap;
use std::time::Duration;

use measurements::Pcr;

use crate::image::ImageMeasurements;
use crate::policy::{Nonce, Policy};
use crate::policy_error::PolicyError;
use crate::purpose::Purpose;

/// Further demands, as the options of a command are. What is accepted under a policy
/// with an addition is accepted under the policy alone.
#[derive(Debug, Clone, Default)]
pub struct Addition {
    /// Images, each with its name, of which one must be there; any that the policy
    /// allows if there are none.
    pub images: Vec<(String, ImageMeasurements)>,
    /// Values of registers; named twice, a register may have either.
    pub pcrs: Vec<(u8, Pcr)>,
    /// The nonce.
    pub nonce: Option<Vec<u8>>,
    /// What the document was made for.
    pub purpose: Option<Purpose>,
    /// How old the document may be.
    pub max_age: Option<Duration>,
    /// Refuse documents with keys that are not known.
    pub strict_keys: bool,
    /// Accept whatever runs: only where there is no policy that refuses it.
    pub allow_any_image: bool,
    /// Accept debug mode: likewise.
    pub allow_debug: bool,
}

impl Addition {
    /// A policy of these demands alone, of the profile that its images have.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        let mut builder = Policy::builder();
        if let Some((_, image)) = self.images.first() {
            builder = builder.profile(image.profile());
        }
        for (name, measurements) in &self.images {
            builder = builder.image(name, *measurements);
        }
        for (index, value) in &self.pcrs {
            builder = builder.pcr(*index, *value);
        }
        if let Some(nonce) = &self.nonce {
            builder = builder.nonce(nonce.clone());
        }
        if let Some(purpose) = self.purpose {
            builder = builder.purpose(purpose);
        }
        if let Some(max_age) = self.max_age {
            builder = builder.max_age(max_age);
        }
        if self.strict_keys {
            builder = builder.strict_keys();
        }
        if self.allow_any_image {
            builder = builder.allow_any_image();
        }
        if self.allow_debug {
            builder = builder.allow_debug();
        }
        builder.build()
    }
}

const CHOOSE: &str = "remove one of the two";
const LOOSEN: &str = "what loosens a policy is written into it";

impl Policy {
    /// The policy with further demands. One that would replace a demand of the policy
    /// instead of adding to it is an error.
    pub fn with(&self, addition: &Addition) -> Result<Self, PolicyError> {
        if addition.allow_any_image && !addition.images.is_empty() {
            return Err(PolicyError::AnyImageAndImages);
        }
        let mut policy = self.clone();
        policy.add_images(&addition.images)?;
        policy.add_pcrs(&addition.pcrs)?;
        if let Some(nonce) = &addition.nonce {
            match &policy.nonce {
                Nonce::Equal(fixed) if fixed != nonce => {
                    let (fixed, nonce) = (hex::encode(fixed), hex::encode(nonce));
                    return Err(contradiction("nonce", &fixed, &nonce, CHOOSE));
                }
                _ => policy.nonce = Nonce::Equal(nonce.clone()),
            }
        }
        if let Some(purpose) = addition.purpose {
            match policy.purpose {
                Some(demanded) if demanded != purpose => {
                    return Err(contradiction("purpose", &demanded, &purpose, CHOOSE));
                }
                _ => policy.purpose = Some(purpose),
            }
        }
        if let Some(max_age) = addition.max_age {
            if max_age > policy.max_age {
                let text = |age: Duration| format!("{} s", age.as_secs_f32());
                let (demanded, added) = (text(policy.max_age), text(max_age));
                return Err(contradiction("max_age", &demanded, &added, LOOSEN));
            }
            policy.max_age = max_age;
        }
        policy.strict_keys |= addition.strict_keys;
        for (name, added, allowed) in [
            (
                "allow_any_image",
                addition.allow_any_image,
                policy.any_image,
            ),
            ("allow_debug", addition.allow_debug, policy.debug_allowed),
        ] {
            if added && !allowed {
                return Err(contradiction(name, &false, &true, LOOSEN));
            }
        }
        policy.to_builder().build()
    }

    /// Of the images that are allowed those that are added, by their measurements.
    fn add_images(&mut self, added: &[(String, ImageMeasurements)]) -> Result<(), PolicyError> {
        if added.is_empty() {
            return Ok(());
        }
        if self.images.is_empty() {
            let mut builder = self.to_builder();
            for (name, measurements) in added {
                builder = builder.image(name, *measurements);
            }
            *self = builder.into_policy();
            self.any_image = false;
            return Ok(());
        }
        let names = |policy: &Self| {
            let names: Vec<_> = policy.images.iter().map(|image| &*image.name).collect();
            names.join(" or ")
        };
        let before = names(self);
        // By the registers: an unsigned image's PCR8 is zero, said or not.
        self.images.retain(|image| {
            let mut added = added.iter();
            added.any(|(_, measurements)| measurements.pcrs().eq(image.pcrs()))
        });
        if self.images.is_empty() {
            let added: Vec<_> = added.iter().map(|(name, _)| &**name).collect();
            let added = added.join(" or ");
            return Err(contradiction("images", &before, &added, CHOOSE));
        }
        Ok(())
    }

    /// Of the values that are allowed those that are added.
    fn add_pcrs(&mut self, added: &[(u8, Pcr)]) -> Result<(), PolicyError> {
        let mut registers: BTreeMap<u8, Vec<Pcr>> = BTreeMap::new();
        for (index, value) in added {
            registers.entry(*index).or_default().push(*value);
        }
        for (index, added) in registers {
            let Some(values) = self.pcrs.get_mut(&index) else {
                self.pcrs.insert(index, added);
                continue;
            };
            let list = |values: &[Pcr]| {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                format!("PCR{index} {}", values.join(" or "))
            };
            let before = list(values);
            values.retain(|value| added.contains(value));
            if values.is_empty() {
                return Err(contradiction("pcrs", &before, &list(&added), CHOOSE));
            }
        }
        Ok(())
    }
}

fn contradiction(
    name: &'static str,
    policy: &impl ToString,
    added: &impl ToString,
    advice: &'static str,
) -> PolicyError {
    PolicyError::Contradiction {
        name,
        policy: policy.to_string(),
        added: added.to_string(),
        advice,
    }
}

#[cfg(test)]
mod tests {
    use measurements::Measurements;

    use super::*;

    const ONE: Measurements = image(1);
    const TWO: Measurements = image(2);

    const fn image(fill: u8) -> Measurements {
        let pcr = Pcr::new([fill; 48]);
        Measurements {
            pcr0: pcr,
            pcr1: pcr,
            pcr2: pcr,
            pcr8: None,
        }
    }

    fn policy() -> crate::PolicyBuilder {
        Policy::builder().image("one", ONE).image("two", TWO)
    }

    fn images(images: &[(&str, Measurements)]) -> Addition {
        Addition {
            images: images
                .iter()
                .map(|(name, image)| ((*name).to_owned(), (*image).into()))
                .collect(),
            ..Addition::default()
        }
    }

    #[test]
    fn an_addition_narrows_the_policy() {
        let policy = policy().pcr(16, ONE.pcr0).pcr(16, TWO.pcr0).require_nonce();
        let addition = Addition {
            pcrs: vec![(16, TWO.pcr0), (16, image(3).pcr0), (17, ONE.pcr0)],
            nonce: Some(vec![1]),
            purpose: Some(Purpose::Workload),
            max_age: Some(Duration::from_secs(60)),
            strict_keys: true,
            ..images(&[("2", TWO), ("3", image(3))])
        };
        let expected = Policy::builder()
            .image("two", TWO)
            .pcr(16, TWO.pcr0)
            .pcr(17, ONE.pcr0)
            .nonce(vec![1])
            .purpose(Purpose::Workload)
            .max_age(Duration::from_secs(60))
            .strict_keys();
        let narrow = policy.build().unwrap().with(&addition);
        assert_eq!(narrow, expected.build());
        // Once more, it changes nothing.
        let narrow = narrow.unwrap();
        assert_eq!(narrow.with(&addition), Ok(narrow.clone()));
        let any = Policy::builder().allow_any_image().build().unwrap();
        let named = any.with(&images(&[("one", ONE)]));
        assert_eq!(named, Policy::builder().image("one", ONE).build());
        let both = Addition {
            allow_any_image: true,
            ..images(&[("one", ONE)])
        };
        assert_eq!(any.with(&both), Err(PolicyError::AnyImageAndImages));
        assert_eq!(both.policy(), Err(PolicyError::AnyImageAndImages));
        let unsigned = Measurements {
            pcr8: Some(Pcr::ZERO),
            ..ONE
        };
        let named = named.unwrap();
        assert_eq!(named.with(&images(&[("1", unsigned)])), Ok(named.clone()));
    }

    #[test]
    fn an_addition_that_replaces_a_demand_is_refused() {
        let policy = policy()
            .pcr(16, ONE.pcr0)
            .nonce(vec![1])
            .purpose(Purpose::Workload)
            .max_age(Duration::from_secs(60))
            .build()
            .unwrap();
        let nothing = Addition::default;
        for (addition, wanted) in [
            (
                images(&[("three", image(3))]),
                "images: the policy says one or two, and three",
            ),
            (
                Addition {
                    pcrs: vec![(16, TWO.pcr0)],
                    ..nothing()
                },
                "pcrs: the policy says PCR16 0101",
            ),
            (
                Addition {
                    nonce: Some(vec![2]),
                    ..nothing()
                },
                "nonce: the policy says 01, and 02",
            ),
            (
                Addition {
                    purpose: Some(Purpose::Clock),
                    ..nothing()
                },
                "purpose: the policy says workload, and clock",
            ),
            (
                Addition {
                    max_age: Some(Duration::from_secs(61)),
                    ..nothing()
                },
                "max_age: the policy says 60 s, and 61 s",
            ),
            (
                Addition {
                    allow_any_image: true,
                    ..nothing()
                },
                "allow_any_image: the policy says false",
            ),
            (
                Addition {
                    allow_debug: true,
                    ..nothing()
                },
                "allow_debug: the policy says false",
            ),
        ] {
            let error = policy.with(&addition).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
        assert_eq!(policy.with(&nothing()), Ok(policy.clone()));
    }
}
