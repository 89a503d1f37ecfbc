//! What the tests of fetched images share: an image that is elsewhere, a
//! configuration that names it, and the agent that gets it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::agent::{Agent, command, error_line, output};
use crate::image::Builder;

/// Variables of the agent's environment.
pub(crate) type Environment = Vec<(&'static str, String)>;

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// An image of some size.
pub(crate) fn image(padding: usize) -> Bytes {
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[(8080, 80)]).padding(padding);
    Bytes::from(std::fs::read(image.write(folder.path())).unwrap())
}

/// A configuration with the image, which is at `source`.
pub(crate) fn document(source: &str, image: &[u8]) -> Value {
    json!({ "enclaves": [{
        "name": "test",
        "image": { "source": source, "sha256": sha256(image), "size": image.len() },
        "runtime_configuration": "{\"enclave_id\":\"E_1\"}",
        "publish": ["127.0.0.1:0:8080"],
    }] })
}

/// Writes the configuration, and says where.
pub(crate) fn write(folder: &Path, document: &Value) -> String {
    let path = folder.join("config.json");
    std::fs::write(&path, document.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn images(folder: &Path) -> PathBuf {
    folder.join("images")
}

/// Runs what the configuration says.
pub(crate) fn run(folder: TempDir, source: &str, environment: &Environment) -> Agent {
    let mut command = command(folder.path(), "run");
    command.envs(environment.iter().cloned());
    let images = images(folder.path());
    let images = images.to_str().unwrap().to_owned();
    Agent::spawn_configured(
        folder,
        command,
        &["--config", source, "--image-dir", &images],
    )
}

/// Runs the configuration's enclave from the start of its image to its end.
pub(crate) async fn lives(folder: TempDir, source: &str, environment: &Environment) -> TempDir {
    let mut agent = run(folder, source, environment);
    agent.event("starting").await;
    agent.until_init_waits().await;
    agent.end_init(0).await;
    agent.event("ended").await;
    agent.finished().await
}

/// Runs, and expects a failure: exit code, the one line, and what is in the
/// folder of images.
pub(crate) async fn fails(
    folder: &Path,
    environment: &Environment,
    document: &Value,
) -> (i32, String, Vec<(String, u64)>) {
    let source = write(folder, document);
    let mut command = command(folder, "run");
    command
        .envs(environment.iter().cloned())
        .args(["--hypervisor", "sim", "--json", "--config", &source])
        .arg("--image-dir")
        .arg(images(folder))
        .env("RUST_LOG", "error");
    let output = output(command).await;
    let code = output.status.code().unwrap();
    (code, error_line(&output), left(folder))
}

/// The command that gets the image of the configuration and does no more.
pub(crate) fn fetch(folder: &Path, environment: &Environment, document: &Value) -> Command {
    let source = write(folder, document);
    let mut command = command(folder, "bootstrap");
    command
        .envs(environment.iter().cloned())
        .args([
            "--hypervisor",
            "sim",
            "--until",
            "image",
            "--config",
            &source,
        ])
        .arg("--image-dir")
        .arg(images(folder))
        .env("RUST_LOG", "error");
    command
}

/// What is in the folder of images: extensions and sizes.
pub(crate) fn left(folder: &Path) -> Vec<(String, u64)> {
    let mut left: Vec<_> = std::fs::read_dir(images(folder))
        .into_iter()
        .flatten()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let extension = name.rsplit('.').next().unwrap().to_owned();
            (extension, entry.metadata().unwrap().len())
        })
        .collect();
    left.sort();
    left
}
