//! Platforms of images (OCI image specification, "image-index.md"): for which processor an
//! image is, and which of several is meant.

use std::fmt;
use std::str::FromStr;

use eif::Architecture;
use serde::Deserialize;
use thiserror::Error;

/// The only operating system of enclaves.
const LINUX: &str = "linux";

/// What an image says that it is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct ImagePlatform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

/// A platform that images are chosen for, as in `linux/amd64/v3`: the best one that runs on
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    architecture: Architecture,
    variant: String,
}

/// Why a text is no platform of enclaves.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a platform of enclaves: write linux/amd64 or linux/arm64, if need be with a variant, as in linux/amd64/v3"
)]
pub struct PlatformError(String);

/// How much a variant demands of the processor: more than all with a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(u32, u32);

/// The platform that is wanted: the kernel's processor and, if it was said, the variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    architecture: Architecture,
    most: Option<Level>,
}

/// What OCI calls the processor.
const fn name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
    }
}

/// The variant that every processor of a kind has.
const fn baseline(architecture: Architecture) -> Level {
    match architecture {
        Architecture::X86_64 => Level(1, 0),
        Architecture::Aarch64 => Level(8, 0),
    }
}

/// The level of `v2` or `v8.1`; nothing is the baseline.
fn level(architecture: Architecture, variant: &str) -> Option<Level> {
    if variant.is_empty() {
        return Some(baseline(architecture));
    }
    let number = |text: &str| {
        let is_number = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let text = variant.strip_prefix('v')?;
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let level = Level(number(major)?, number(minor)?);
    (level >= baseline(architecture)).then_some(level)
}

impl Wanted {
    /// What runs with the kernel; if a platform was chosen, no more than that.
    pub(crate) fn new(
        architecture: Architecture,
        chosen: Option<&Platform>,
    ) -> Result<Self, String> {
        let most = match chosen {
            None => None,
            Some(platform) if platform.architecture == architecture => {
                level(architecture, &platform.variant)
            }
            Some(platform) => {
                return Err(format!(
                    "--platform {platform} is not what the kernel is for, which is linux/{}: give another kernel, or another platform",
                    name(architecture)
                ));
            }
        };
        Ok(Self { architecture, most })
    }

    /// The level of an image that runs on the platform.
    fn level_of(&self, image: &ImagePlatform) -> Option<Level> {
        let is_for = image.os == LINUX && image.architecture == name(self.architecture);
        is_for
            .then(|| {
                level(
                    self.architecture,
                    image.variant.as_deref().unwrap_or_default(),
                )
            })
            .flatten()
            .filter(|level| self.most.is_none_or(|most| *level <= most))
    }

    /// Whether an image runs on the platform.
    pub(crate) fn fits(&self, image: &ImagePlatform) -> bool {
        self.level_of(image).is_some()
    }

    /// The images that fit best: without a choice those that demand the least of the
    /// processor, else those that use the most of it.
    pub(crate) fn best<T>(&self, images: Vec<(ImagePlatform, T)>) -> Vec<T> {
        let fitting: Vec<_> = images
            .into_iter()
            .filter_map(|(platform, image)| Some((self.level_of(&platform)?, image)))
            .collect();
        let levels = fitting.iter().map(|(level, _)| *level);
        let best = match self.most {
            None => levels.min(),
            Some(_) => levels.max(),
        };
        fitting
            .into_iter()
            .filter(|(level, _)| Some(*level) == best)
            .map(|(_, image)| image)
            .collect()
    }

    /// Says what to do where no image is for it.
    pub(crate) fn advice(&self) -> String {
        format!(
            "build it with --platform {self}, or give another kernel{}",
            match self.most {
                Some(_) => ", or another --platform",
                None => "",
            }
        )
    }

    /// What is to be known of an image that not every processor runs. Index and configuration
    /// may not say the same of it: the one that demands more counts.
    pub(crate) fn note(&self, said: [&ImagePlatform; 2]) -> Option<String> {
        let levels = said.map(|image| (self.level_of(image), image));
        let (level, image) = levels.into_iter().max_by_key(|(level, _)| *level)?;
        (level? > baseline(self.architecture)).then(|| {
            format!(
                "the image is for {image}: on a processor that is less, its programs end with SIGILL"
            )
        })
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parse = || {
            let (os, rest) = text.split_once('/')?;
            let (architecture, variant) = rest.split_once('/').unwrap_or((rest, ""));
            let architecture = [Architecture::X86_64, Architecture::Aarch64]
                .into_iter()
                .find(|known| name(*known) == architecture)?;
            level(architecture, variant)?;
            let is_whole = os == LINUX && !text.ends_with('/');
            is_whole.then(|| Self {
                architecture,
                variant: variant.to_owned(),
            })
        };
        parse().ok_or_else(|| PlatformError(text.to_owned()))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LINUX}/{}", name(self.architecture))?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LINUX}/{}", name(self.architecture))?;
        match self.most {
            Some(Level(major, 0)) if self.most != Some(baseline(self.architecture)) => {
                write!(f, "/v{major}")
            }
            Some(Level(major, minor)) if minor != 0 => write!(f, "/v{major}.{minor}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ImagePlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> ImagePlatform {
        let mut parts = text.split('/').map(ToOwned::to_owned);
        ImagePlatform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    fn wanted(text: &str) -> Wanted {
        let platform: Platform = text.parse().unwrap();
        Wanted::new(platform.architecture, Some(&platform)).unwrap()
    }

    fn best(wanted: Wanted, images: &[&'static str]) -> Vec<&'static str> {
        wanted.best(images.iter().map(|text| (image(text), *text)).collect())
    }

    #[test]
    fn platform_is_for_linux_on_a_processor_of_enclaves() {
        for text in ["linux/amd64", "linux/amd64/v3", "linux/arm64/v8.2"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
            assert_eq!(wanted(text).to_string(), text);
        }
        assert_eq!(wanted("linux/amd64/v1").to_string(), "linux/amd64");
        for text in [
            "",
            "amd64",
            "linux",
            "linux/",
            "linux/amd64/",
            "linux/386",
            "windows/amd64",
            "linux/amd64/3",
            "linux/amd64/v0",
            "linux/amd64/v3/x",
            "linux/amd64/v+3",
            "linux/arm64/v7",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        let arm = "linux/arm64".parse().unwrap();
        assert!(Wanted::new(Architecture::X86_64, Some(&arm)).is_err());
    }

    #[test]
    fn platform_that_is_not_chosen_is_the_one_that_every_processor_runs() {
        let any = Wanted::new(Architecture::X86_64, None).unwrap();
        let all = [
            "linux/amd64/v3",
            "linux/amd64",
            "linux/arm64",
            "linux/amd64/v2",
            "unknown/unknown",
            "linux/amd64/odd",
        ];
        assert_eq!(best(any, &all), ["linux/amd64"]);
        assert_eq!(best(any, &["linux/amd64", "linux/amd64/v1"]).len(), 2);
        let newer = ["linux/amd64/v4", "linux/amd64/v3"];
        assert_eq!(best(any, &newer), ["linux/amd64/v3"]);
        let [baseline, more] = ["linux/amd64/v1", "linux/amd64/v3"].map(image);
        for said in [[&baseline, &more], [&more, &baseline], [&more, &more]] {
            let note = any.note(said).unwrap();
            assert!(note.contains("for linux/amd64/v3: "), "{note}");
        }
        assert_eq!(any.note([&baseline, &baseline]), None);
        for (platform, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/amd64/v4", "linux/amd64/v3"),
        ] {
            assert_eq!(best(wanted(platform), &all), [expected], "{platform}");
        }
        assert!(best(wanted("linux/amd64"), &newer).is_empty());
    }
}
