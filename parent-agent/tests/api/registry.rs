//! Images in OCI registries.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::output;
use crate::fake_aws::Fault;
use crate::fake_registry::{FakeRegistry, KEY, MEDIA_TYPE, Wants, manifest};
use crate::fetching::{Environment, document, fails, fetch, image, left, lives, sha256, write};

/// An environment in which Docker's configuration has a key for the registry, or
/// none for any.
fn docker(folder: &Path, registry: Option<&FakeRegistry>) -> Environment {
    let auths = match registry {
        Some(registry) => json!({ &registry.host: { "auth": KEY } }),
        None => json!({}),
    };
    let config = json!({ "auths": auths }).to_string();
    let docker = folder.join("docker");
    std::fs::create_dir_all(&docker).unwrap();
    std::fs::write(docker.join("config.json"), config).unwrap();
    vec![("DOCKER_CONFIG", docker.to_str().unwrap().to_owned())]
}

/// Fetches: whether that went well, and what was said if not.
async fn fetched(folder: &Path, environment: &Environment, document: &Value) -> Result<(), String> {
    let output = output(fetch(folder, environment, document)).await;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

struct Setting {
    registry: FakeRegistry,
    folder: TempDir,
    image: Bytes,
    environment: Environment,
}

impl Setting {
    /// A registry that has an image under the tag `1`, and nobody's key.
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let folder = tempfile::tempdir().unwrap();
        let image = image(1 << 20);
        registry.push("1", &image);
        let environment = docker(folder.path(), None);
        Self {
            registry,
            folder,
            image,
            environment,
        }
    }

    fn document(&self) -> Value {
        document(&self.registry.source(":1"), &self.image)
    }

    async fn fetched(&self) -> Result<(), String> {
        fetched(self.folder.path(), &self.environment, &self.document()).await
    }

    async fn fails(&self) -> (i32, String, Vec<(String, u64)>) {
        fails(self.folder.path(), &self.environment, &self.document()).await
    }

    fn whole(&self) -> Vec<(String, u64)> {
        vec![("eif".to_owned(), self.image.len() as u64)]
    }
}

#[tokio::test]
async fn registry_gives_an_image_by_its_tag() {
    let setting = Setting::new().await;
    let source = write(setting.folder.path(), &setting.document());
    lives(setting.folder, &source, &setting.environment).await;
    let manifests = setting.registry.asked("/manifests/1");
    assert_eq!(manifests.len(), 1);
    assert_eq!(setting.registry.asked("/blobs/").len(), 1);
    assert_eq!(setting.registry.asked("")[0].authorization, None);
}

#[tokio::test]
async fn registry_digest_stands_for_the_image_and_is_asked_for_once() {
    let setting = Setting::new().await;
    let digest = setting.registry.push("2", &setting.image);
    let source = setting.registry.source(&format!(":2@sha256:{digest}"));
    let document = json!({ "enclaves": [{ "name": "test", "image": { "source": source } }] });
    for _ in 0..2 {
        fetched(setting.folder.path(), &setting.environment, &document)
            .await
            .unwrap();
    }
    assert_eq!(setting.registry.asked("").len(), 2);
    assert_eq!(
        setting
            .registry
            .asked(&format!("/manifests/sha256:{digest}"))
            .len(),
        1
    );
    // The image goes, the manifest stays.
    let images = setting.folder.path().join("images");
    let image = images.join(format!("{}.eif", sha256(&setting.image)));
    std::fs::remove_file(image).unwrap();
    fetched(setting.folder.path(), &setting.environment, &document)
        .await
        .unwrap();
    assert_eq!(setting.registry.asked("/manifests/").len(), 1);
    assert_eq!(setting.registry.asked("/blobs/").len(), 2);
    // A manifest that is damaged here is asked for again.
    std::fs::write(images.join(format!("{digest}.manifest")), "{}").unwrap();
    fetched(setting.folder.path(), &setting.environment, &document)
        .await
        .unwrap();
    assert_eq!(setting.registry.asked("/manifests/").len(), 2);
}

#[tokio::test]
async fn registry_manifest_that_was_altered_is_refused() {
    let setting = Setting::new().await;
    let digest = setting.registry.push("1", &setting.image);
    let version = format!("sha256:{digest}");
    let altered = manifest(&"00".repeat(32), 5).to_string();
    setting
        .registry
        .state()
        .manifests
        .insert(version, altered.into());
    let source = setting.registry.source(&format!("@sha256:{digest}"));
    let document = json!({ "enclaves": [{ "name": "test", "image": { "source": source } }] });
    let (code, error, left) = fails(setting.folder.path(), &setting.environment, &document).await;
    assert_eq!(code, 3);
    assert!(error.contains("has altered it"), "{error}");
    assert_eq!(left, []);
}

#[tokio::test]
async fn registry_token_is_asked_for_without_a_key() {
    let setting = Setting::new().await;
    setting.registry.state().wants = Wants::Token;
    setting.fetched().await.unwrap();
    assert_eq!(left(setting.folder.path()), setting.whole());
    let asked = setting.registry.asked("");
    let shown: Vec<_> = asked
        .iter()
        .map(|asked| asked.authorization.as_deref())
        .collect();
    let token = Some("Bearer token-1");
    assert_eq!(shown, [None, None, token, token]);
}

#[tokio::test]
async fn registry_token_that_has_expired_is_replaced() {
    let setting = Setting::new().await;
    setting.registry.state().wants = Wants::Token;
    setting.registry.state().faults = [Fault::HalfWay].into();
    // Another token is given meanwhile, which ends the first one.
    let (fetched, ()) = tokio::join!(setting.fetched(), async {
        while setting.registry.asked("/blobs/").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        setting.registry.state().tokens += 1;
    });
    fetched.unwrap();
    assert_eq!(left(setting.folder.path()), setting.whole());
    assert_eq!(setting.registry.asked("/token").len(), 2);
}

#[tokio::test]
async fn registry_key_of_dockers_configuration_is_shown_where_asked_for() {
    for wants in [Wants::Key, Wants::TokenForKey] {
        let mut setting = Setting::new().await;
        setting.registry.state().wants = wants;
        let (code, error, _) = setting.fails().await;
        assert_eq!(code, 4, "{error}");
        assert!(error.contains("may not be read"), "{error}");
        assert!(error.contains("/etc/enclaves/docker.json"), "{error}");
        setting.environment = docker(setting.folder.path(), Some(&setting.registry));
        setting.fetched().await.unwrap();
        let asked = setting.registry.asked("");
        assert_eq!(asked[0].authorization, None, "{wants:?}");
        // It is not in what the agent says, not even in debug mode.
        assert!(!error.contains(KEY), "{error}");
    }
}

#[tokio::test]
async fn registry_key_is_not_shown_where_a_blob_is_kept_elsewhere() {
    let mut setting = Setting::new().await;
    let store = FakeRegistry::start().await;
    store.push("1", &setting.image);
    setting.registry.state().wants = Wants::Key;
    setting.registry.state().elsewhere = Some(format!("http://{}/store/", store.host));
    setting.environment = docker(setting.folder.path(), Some(&setting.registry));
    store.state().faults = [Fault::HalfWay].into();
    setting.fetched().await.unwrap();
    assert_eq!(left(setting.folder.path()), setting.whole());
    let asked = store.asked("");
    let half = format!("bytes={}-", setting.image.len() / 2);
    let ranges: Vec<_> = asked.iter().map(|asked| asked.range.clone()).collect();
    assert_eq!(ranges, [None, Some(half)]);
    for asked in asked {
        assert_eq!(asked.authorization, None);
    }
    // Each attempt goes by the registry: what it leads to may expire.
    assert_eq!(setting.registry.asked("/blobs/").len(), 2);
}

#[tokio::test]
async fn registry_key_is_asked_for_by_nobody_else() {
    let mut setting = Setting::new().await;
    let store = FakeRegistry::start().await;
    setting.registry.state().elsewhere = Some(format!("http://{}/store/", store.host));
    setting.environment = docker(setting.folder.path(), Some(&setting.registry));
    store.state().faults = [Fault::Refused(401, "Basic realm=\"evil\"")].into();
    let (code, error, _) = setting.fails().await;
    assert_eq!(code, 4);
    assert!(error.contains("status 401"), "{error}");
    assert_eq!(store.asked("").len(), 1);
    assert_eq!(store.asked("")[0].authorization, None);
    assert!(
        setting
            .registry
            .asked("")
            .iter()
            .all(|asked| asked.authorization.is_none())
    );
}

#[tokio::test]
async fn registry_leads_nowhere_but_to_what_is_encrypted_or_here() {
    let setting = Setting::new().await;
    for elsewhere in [
        "http://169.254.169.254/latest/",
        "http://user@127.0.0.1:1/",
        "ftp://127.0.0.1/",
        "file:///etc/",
        "//example.com/",
        "",
    ] {
        setting.registry.state().elsewhere = Some(elsewhere.to_owned());
        let (code, error, _) = setting.fails().await;
        assert_eq!(code, 4, "{elsewhere}");
        assert!(error.contains("no https:// URL"), "{elsewhere}: {error}");
    }
    let blobs = setting.registry.source("").replace("oci", "http");
    let blobs = blobs.replace("/team", "/v2/team") + "/blobs/";
    setting.registry.state().elsewhere = Some(blobs);
    let (code, error, _) = setting.fails().await;
    assert_eq!(code, 4);
    assert!(error.contains("leads on more than 5 times"), "{error}");
}

#[tokio::test]
async fn registry_blob_that_breaks_off_is_read_on() {
    let setting = Setting::new().await;
    setting.registry.state().faults =
        [Fault::HalfWay, Fault::Refused(503, ""), Fault::HalfWay].into();
    setting.fetched().await.unwrap();
    assert_eq!(left(setting.folder.path()), setting.whole());
    let blobs = setting.registry.asked("/blobs/");
    let half = format!("bytes={}-", setting.image.len() / 2);
    let ranges: Vec<_> = blobs.iter().map(|asked| asked.range.clone()).collect();
    assert_eq!(ranges[..3], [None, Some(half.clone()), Some(half)]);
    assert_eq!(ranges.len(), 4);
}

#[tokio::test]
async fn registry_image_that_is_another_is_refused() {
    let setting = Setting::new().await;
    // Its manifest says so before a byte is read.
    let other = image(0);
    let source = setting.registry.source(":1");
    let (code, error, left) = fails(
        setting.folder.path(),
        &setting.environment,
        &document(&source, &other),
    )
    .await;
    assert_eq!(code, 3);
    let words = format!("has the SHA-256 {}", sha256(&setting.image));
    assert!(error.contains(&words), "{error}");
    assert!(setting.registry.asked("/blobs/").is_empty());
    assert_eq!(left, [("partial".to_owned(), 0)]);
    // The blob is not what the manifest says.
    let mut damaged = setting.image.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let blob = format!("sha256:{}", sha256(&setting.image));
    setting.registry.state().blobs.insert(blob, damaged.into());
    let (code, error, left) = setting.fails().await;
    assert_eq!(code, 3);
    assert!(error.contains("it was removed"), "{error}");
    assert_eq!(left, [("partial".to_owned(), 0)]);
}

#[tokio::test]
async fn registry_artifact_that_is_no_enclave_image_is_refused_with_advice() {
    let setting = Setting::new().await;
    let digest = sha256(&setting.image);
    let good = manifest(&digest, setting.image.len());
    let mut tar = good.clone();
    tar["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    let mut huge = good.clone();
    huge["annotations"] = json!({ "a": "x".repeat(300 * 1024) });
    let mut large = good;
    large["layers"][0]["size"] = json!(u64::MAX);
    for (manifest, words) in [
        (tar, "instead of application/vnd.aws"),
        (huge, "its manifest has more than 262144 bytes"),
        (
            json!({ "schemaVersion": 2, "manifests": [] }),
            "several platforms",
        ),
        (json!("text"), "cannot be read"),
    ] {
        setting.registry.push_manifest("1", &manifest);
        let (code, error, _) = setting.fails().await;
        assert_eq!(code, 3, "{error}");
        assert!(error.contains(words), "{error}");
        assert!(error.contains(&format!("FILE.eif:{MEDIA_TYPE}")), "{error}");
    }
    setting.registry.push_manifest("1", &large);
    let (code, error, _) = setting.fails().await;
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("bytes instead of"), "{error}");
}

#[tokio::test]
async fn registry_says_what_is_not_there() {
    let setting = Setting::new().await;
    setting.registry.state().manifests.clear();
    let (code, error, _) = setting.fails().await;
    assert_eq!(code, 4);
    assert!(error.contains("is not there"), "{error}");
    let setting = Setting::new().await;
    setting.registry.state().blobs.clear();
    let (code, error, _) = setting.fails().await;
    assert_eq!(code, 4);
    assert!(error.contains("is not there"), "{error}");
}
