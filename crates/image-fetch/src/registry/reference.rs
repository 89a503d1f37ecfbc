//! Addresses of images in registries.

use std::fmt;
use std::str::FromStr;

use crate::digest::Sha256;
use crate::web::is_this_host;

/// The longest names that registries take: of a host with its port, of a
/// repository, of a tag.
const MAX_REGISTRY: usize = 255;
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;
const FORM: &str = "write oci://REGISTRY/REPOSITORY:TAG or oci://REGISTRY/REPOSITORY@sha256:DIGEST";
/// The name that people use for Docker's registry, and the host that it has.
const DOCKER: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";

/// An image in a registry, written
/// `oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The host, and its port if that is not the usual one.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Sha256>,
}

impl Reference {
    /// The registry as it is written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The manifest's digest, if the address has one.
    pub fn digest(&self) -> Option<Sha256> {
        self.digest
    }

    /// What the manifest is asked for by: the digest, otherwise the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }

    /// Scheme and host of the registry: `http` only on this host.
    pub fn base(&self) -> String {
        match self.registry.as_str() {
            DOCKER => format!("https://{DOCKER_HOST}"),
            registry if is_this_host(registry) => format!("http://{registry}"),
            registry => format!("https://{registry}"),
        }
    }

    /// The region, if the registry is Elastic Container Registry's:
    /// `ACCOUNT.dkr.ecr.REGION.amazonaws.com`.
    pub fn ecr_region(&self) -> Option<&str> {
        let (account, rest) = self.registry.split_once('.')?;
        let rest = rest
            .strip_prefix("dkr.ecr.")
            .or_else(|| rest.strip_prefix("dkr.ecr-fips."))?;
        let (region, domain) = rest.split_once('.')?;
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_aws = matches!(domain, "amazonaws.com" | "amazonaws.com.cn");
        (is_account && is_aws && !region.is_empty()).then_some(region)
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || FORM.to_owned();
        let (registry, rest) = text
            .strip_prefix("oci://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(form)?;
        let registry = registry.to_ascii_lowercase();
        if !is_registry(&registry) {
            return Err(format!("`{registry}` is no registry's host: {FORM}"));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digits = digest.strip_prefix("sha256:").ok_or_else(form)?;
                (rest, Some(digits.parse()?))
            }
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        if !is_repository(repository) {
            return Err(format!(
                "`{repository}` is no repository's name: it has lower-case letters and digits, with . _ - and / between them"
            ));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(format!(
                "a tag has 1 to {MAX_TAG} letters, digits and _ . -, and begins with none of the last two"
            ));
        }
        if tag.is_none() && digest.is_none() {
            return Err(format!("there is neither a tag nor a digest: {FORM}"));
        }
        Ok(Self {
            registry,
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@sha256:{digest}")?;
        }
        Ok(())
    }
}

fn is_registry(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = host == "[::1]"
        || (host
            .split('.')
            .all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'))
            && host.bytes().all(is_allowed));
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    text.len() <= MAX_REGISTRY && is_host && port.is_none_or(is_port)
}

/// Components of lower-case letters and digits, with one separator between them:
/// `.`, `_`, `__`, or hyphens.
fn is_repository(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator = |separator: &[u8]| {
        matches!(separator, b"." | b"_" | b"__")
            || (!separator.is_empty() && separator.iter().all(|&byte| byte == b'-'))
    };
    let is_component = |component: &str| {
        let bytes = component.as_bytes();
        bytes.first().is_some_and(|&byte| is_word(byte))
            && bytes.last().is_some_and(|&byte| is_word(byte))
            && bytes
                .split(|&byte| is_word(byte))
                .filter(|between| !between.is_empty())
                .all(is_separator)
    };
    text.len() <= MAX_REPOSITORY && text.split('/').all(is_component)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_registry_repository_and_tag_or_digest() {
        for (text, base, version) in [
            ("oci://ghcr.io/a/b:1.0", "https://ghcr.io", "1.0"),
            ("oci://docker.io/a/b:1", "https://registry-1.docker.io", "1"),
            ("oci://localhost:5000/a:x", "http://localhost:5000", "x"),
            ("oci://127.0.0.1/a:x", "http://127.0.0.1", "x"),
            ("oci://[::1]:5000/a:x", "http://[::1]:5000", "x"),
            ("oci://[::1]/a:x", "http://[::1]", "x"),
            (
                "oci://localhost.example.com/a:x",
                "https://localhost.example.com",
                "x",
            ),
            (
                "oci://r.example.com:5000/a-b__c/d.e:_T-1",
                "https://r.example.com:5000",
                "_T-1",
            ),
        ] {
            let parsed = reference(text);
            assert_eq!(parsed.to_string(), text);
            assert_eq!(
                (parsed.base().as_str(), parsed.version().as_str()),
                (base, version)
            );
            assert_eq!(parsed.digest(), None);
        }
        let both = format!("oci://ghcr.io/a:1@sha256:{DIGEST}");
        assert_eq!(reference(&both).to_string(), both);
        assert_eq!(reference(&both).version(), format!("sha256:{DIGEST}"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "oci://",
            "oci://ghcr.io",
            "oci://ghcr.io/",
            "oci://ghcr.io/a",
            "oci:///a:1",
            "oci://user@ghcr.io/a:1",
            "oci://user:pw@ghcr.io/a:1",
            "oci://ghcr.io:0/a:1",
            "oci://ghcr.io:x/a:1",
            "oci://ghcr.io:+1/a:1",
            "oci://a..b/a:1",
            "oci://[::2]/a:1",
            "oci://ghcr.io/A:1",
            "oci://ghcr.io/a/../b:1",
            "oci://ghcr.io/a//b:1",
            "oci://ghcr.io/a?b:1",
            "oci://ghcr.io/a._b:1",
            "oci://ghcr.io/-a:1",
            "oci://ghcr.io/a:",
            "oci://ghcr.io/a:.x",
            "oci://ghcr.io/a:1/b",
            "oci://ghcr.io/a@sha512:00",
            "oci://ghcr.io/a@sha256:00",
            &format!("oci://ghcr.io/a:{}", "x".repeat(129)),
            &format!("oci://ghcr.io/{}:1", "x".repeat(256)),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_registry_of_ecr_is_known_by_its_name() {
        for (host, region) in [
            (
                "123456789012.dkr.ecr.us-west-2.amazonaws.com",
                Some("us-west-2"),
            ),
            (
                "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
                Some("us-east-1"),
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some("cn-north-1"),
            ),
            (
                "123456789012.dkr.ecr.us-west-2.amazonaws.com.evil.org",
                None,
            ),
            ("12345678901.dkr.ecr.us-west-2.amazonaws.com", None),
            ("123456789012.dkr.ecr.amazonaws.com", None),
            ("123456789012.dkr.ecr.us-west-2.amazonaws.com:444", None),
            ("public.ecr.aws", None),
        ] {
            assert_eq!(
                reference(&format!("oci://{host}/a:1")).ecr_region(),
                region,
                "{host}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_an_address_prints_reads_back(text in "oci://[a-z0-9.\\[\\]:-]{1,8}/[a-z0-9._/-]{1,8}(:[a-zA-Z._0-9-]{1,5})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
                let url = format!("{}/v2/{}/manifests/{}", reference.base(), reference.repository(), reference.version());
                prop_assert!(url.parse::<http::Uri>().is_ok());
            }
        }
    }
}
