//! Names and passwords for registries: from Docker's configuration, and for Elastic
//! Container Registry from AWS.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_clients::Client;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Reference;

/// Most bytes of Docker's configuration.
const MAX_BYTES: u64 = 256 * 1024;
/// Where keys are looked for when neither `DOCKER_CONFIG` nor a home folder has one.
const HOST_FILE: &str = "/etc/enclaves/docker.json";

/// Name and password, as the header `Authorization: Basic` has them.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// What comes after `Basic `.
    pub(super) fn as_base64(&self) -> &str {
        &self.0
    }
}

/// It is secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Where keys come from.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) files: Vec<PathBuf>,
}

impl Keys {
    /// Docker's configuration of this process's user, then the host's.
    pub(crate) fn from_environment() -> Self {
        let docker = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let folder = docker.or(home).filter(|folder| folder.is_absolute());
        let own = folder.map(|folder| folder.join("config.json"));
        Self {
            files: own.into_iter().chain([PathBuf::from(HOST_FILE)]).collect(),
        }
    }

    /// The key for a registry, or why it cannot be had; `None` if nobody has one.
    pub(crate) async fn find(&self, reference: &Reference) -> Result<Option<Key>, String> {
        for path in &self.files {
            let Some(text) = read(path)? else { continue };
            let key = docker_key(&text, reference.registry())
                .map_err(|reason| format!("{}: {reason}", path.display()))?;
            if key.is_some() {
                return Ok(key);
            }
        }
        match reference.ecr_region() {
            Some(region) => ecr_key(region).await.map(Some),
            None => Ok(None),
        }
    }
}

/// A file that is not there, or not for this user, is none.
fn read(path: &Path) -> Result<Option<String>, String> {
    let Ok(file) = File::open(path) else {
        return Ok(None);
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!(
            "{} has more than {MAX_BYTES} bytes",
            path.display()
        ));
    }
    Ok(Some(text))
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerKey>,
}

#[derive(Deserialize)]
struct DockerKey {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The key for a registry in a configuration as `docker login` writes it, with the
/// passwords in it: programs that keep passwords (`credsStore`) are not run.
pub fn docker_key(configuration: &str, registry: &str) -> Result<Option<Key>, String> {
    let config: DockerConfig = serde_json::from_str(configuration)
        .map_err(|error| format!("it is not a Docker configuration: {error}"))?;
    let mut found = config
        .auths
        .into_iter()
        .filter(|(name, _)| host(name) == host(registry));
    let Some((_, key)) = found.next() else {
        return Ok(None);
    };
    match key {
        DockerKey {
            auth: Some(auth), ..
        } if !auth.is_empty() => {
            let decoded = STANDARD.decode(auth.trim()).unwrap_or_default();
            if decoded.contains(&b':') {
                return Ok(Some(Key(STANDARD.encode(decoded))));
            }
            Err(format!(
                "`auth` of {registry} is no name and password in base64"
            ))
        }
        DockerKey {
            username: Some(name),
            password: Some(password),
            ..
        } => Ok(Some(Key(STANDARD.encode(format!("{name}:{password}"))))),
        // A program of Docker's has it, which is not run.
        _ => Ok(None),
    }
}

/// Names in Docker's configuration are hosts or URLs.
fn host(name: &str) -> &str {
    let name = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"))
        .unwrap_or(name);
    match name
        .split('/')
        .next()
        .expect("a split has at least one part")
    {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

async fn ecr_key(region: &str) -> Result<Key, String> {
    let client = Client::new(Some(region))
        .await
        .map_err(|error| error.to_string())?;
    match client.registry_token().await {
        Ok(token) => Ok(Key(token)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": { "auth": "bmFtZTpwdw==" },
            "r.example.com:5000": { "username": "a", "password": "b" },
            "store.example.com": {},
            "bad.example.com": { "auth": "bmFtZQ==" }
        },
        "credsStore": "desktop"
    }"#;

    #[test]
    fn a_registrys_key_is_found_by_its_host() {
        let key = |registry| docker_key(CONFIG, registry).unwrap().map(|key| key.0);
        assert_eq!(key("docker.io").as_deref(), Some("bmFtZTpwdw=="));
        assert_eq!(key("r.example.com:5000").as_deref(), Some("YTpi"));
        assert_eq!(key("r.example.com"), None);
        assert_eq!(key("store.example.com"), None);
        assert!(docker_key(CONFIG, "bad.example.com").is_err());
        assert!(docker_key("{}", "docker.io").unwrap().is_none());
        assert!(docker_key("text", "docker.io").is_err());
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = docker_key(CONFIG, "docker.io").unwrap();
        assert_eq!(format!("{key:?}"), "Some(Key(..))");
    }
}
