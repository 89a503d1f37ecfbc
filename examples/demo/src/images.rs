//! Images of the example, built in folders of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use measurements::Measurements;

use demo::oci;

use crate::Cli;
use crate::agent::output;

/// The example's manifest; its image is the folder `image` next to it.
pub(crate) const MANIFEST: &str = include_str!("../../price-oracle/enclave.toml");
/// The line that says where the example connects.
const EGRESS: &str = r#"egress = ["prices.example:443"]"#;

/// An enclave image.
pub(crate) struct Image {
    pub(crate) file: PathBuf,
    pub(crate) measurements_file: PathBuf,
    pub(crate) measurements: Measurements,
    /// The size of the container image's layer and of the enclave image, in bytes.
    pub(crate) layer: u64,
    pub(crate) size: u64,
    pub(crate) took: Duration,
}

/// Builds the image of a manifest and a program in the folder, which has what the manifest
/// names.
pub(crate) async fn build(
    cli: &Cli,
    folder: &Path,
    manifest: &str,
    program: &Path,
) -> anyhow::Result<Image> {
    let layer = oci::write(&folder.join("image"), program)?;
    let manifest_file = folder.join("enclave.toml");
    fs::write(&manifest_file, manifest).context("cannot write enclave.toml")?;
    let file = folder.join("price-oracle.eif");
    let measurements_file = folder.join("measurements.json");
    let start = Instant::now();
    output(
        &cli.image_builder,
        [
            "build".into(),
            "--manifest".into(),
            manifest_file.into_os_string(),
            "--init".into(),
            cli.enclave_init.clone().into_os_string(),
            "--kernel".into(),
            cli.kernel.clone().into_os_string(),
            "--output".into(),
            file.clone().into_os_string(),
            "--measurements".into(),
            measurements_file.clone().into_os_string(),
        ],
    )
    .await
    .context("image-builder build")?;
    let took = start.elapsed();
    let size = fs::metadata(&file).context("image-builder wrote no image")?;
    let printed = fs::read(&measurements_file).context("image-builder wrote no measurements")?;
    let measurements = serde_json::from_slice(&printed).context("image-builder's measurements")?;
    Ok(Image {
        file,
        measurements_file,
        measurements,
        layer,
        size: size.len(),
        took,
    })
}

/// The example's manifest with a KMS, and with the price source's key as a secret: the files
/// `authority.pem` and `price-source-key.kms` next to it.
pub(crate) fn manifest_with_secret(port: u16, region: &str, key: &str) -> anyhow::Result<String> {
    ensure!(
        MANIFEST.contains(EGRESS) && MANIFEST.contains("\n[network]\n"),
        "the example's enclave.toml is not what it was"
    );
    let manifest = MANIFEST
        .replace("\n[network]\n", "\naws_credentials = true\n\n[network]\n")
        .replace(
            EGRESS,
            &format!(r#"egress = ["prices.example:443", "localhost:{port}"]"#),
        );
    Ok(format!(
        r#"{manifest}
[attestation]
allow_debug = true            # its own self-check would end it in debug mode before KMS does

[kms]
endpoint = "https://localhost:{port}"
region = "{region}"
roots = "authority.pem"

[[secrets]]
name = "price-source-key"
kms = {{ file = "price-source-key.kms" }}
key_id = "{key}"
file = "/run/secrets/price-source-key"
"#
    ))
}
