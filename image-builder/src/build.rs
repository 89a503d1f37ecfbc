//! Putting an enclave image together.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::str::FromStr;

use eif::{Architecture, BuildMetadata, Metadata, Signer, SigningError};
use manifest::{CONFIG_SCHEMA, HOST_CONFIG_KEY, HostConfig, MEASURED_CONFIG_PATH, Manifest};
use measurements::Measurements;
use serde_json::json;
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::Tables;
use crate::digest::Hashing;
use crate::error::BuildError;
use crate::image::{self, Image};
use crate::platform::Platform;
use crate::step::Step;
use crate::stored::{open_regular, read_head};
use crate::{config, enclave_kms, kernel, keys, memory, ramdisk, released};

/// The kernel's command line: as AWS's images have it, with a panic that ends
/// the enclave at once instead of after half a minute, and without a check of the
/// timer that fails in a virtual machine whose host is busy. There is no `root=`,
/// with which the ramdisks would be unpacked into a file system without a size:
/// into this one they fit as long as memory is left, and every inode of them does
/// (`Documentation/filesystems/ramfs-rootfs-initramfs.rst`). The init bounds it.
const COMMAND_LINE: &str = "reboot=k panic=-1 pci=off nomodules no_timer_check quiet console=ttyS0 random.trust_cpu=on initramfs_options=size=95%,nr_inodes=1m";
/// The layers may have as many bytes as this many enclaves have memory: what
/// is not replaced by a higher layer must fit into one.
const LAYERS_PER_MEMORY: u64 = 4;
/// What to do where the init cannot be used.
const INIT_ADVICE: &str = "give the enclave-init of this release with --init";
/// Largest signing key or certificate that is read, in bytes.
const MAX_PEM: u64 = 64 * 1024;
const MIB: u64 = 1024 * 1024;

/// What an image is built from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// `enclave.toml`.
    pub manifest: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// The `enclave-init` binary.
    pub init: &'a Path,
    /// The `enclave-kms` binary, which is read if the manifest has it put into the image.
    pub enclave_kms: &'a Path,
    /// Where the image goes; replaced in one step when it is whole.
    pub output: &'a Path,
    /// Where the measurements go, as JSON; likewise.
    pub measurements: Option<&'a Path>,
    /// The platform that the container image is for, where it has several.
    pub platform: Option<&'a Platform>,
    /// Key and certificate to sign with.
    pub signing: Option<SigningFiles<'a>>,
    /// The time that the metadata names.
    pub build_time: BuildTime,
}

/// A key and its certificate, both PEM.
#[derive(Debug, Clone, Copy)]
pub struct SigningFiles<'a> {
    /// The private key.
    pub key: &'a Path,
    /// Its certificate.
    pub certificate: &'a Path,
}

/// The time that an image's metadata names as that of its build: the start of
/// 1970 unless given. It is not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildTime(OffsetDateTime);

/// A finished image.
#[derive(Debug, Clone)]
pub struct Built {
    /// The enclave's name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// The SHA-256 digest of the init, in hexadecimal: with another one PCR0 and PCR1
    /// are others.
    pub init: String,
    /// What an enclave started from it reports.
    pub measurements: Measurements,
    /// What is allowed and should be known, a line each.
    pub notes: Vec<String>,
}

/// Builds the image. On failure, what was at the outputs' paths is still there,
/// and nothing else. `progress` is told every step before it begins.
pub fn build(inputs: &Inputs<'_>, progress: &mut dyn FnMut(Step)) -> Result<Built, BuildError> {
    let manifest = Manifest::load(inputs.manifest)?;
    let tables = Tables::read(&manifest)?;
    let (mut kernel, architecture, kernel_version) = open_kernel(inputs.kernel)?;
    let mut init = released::open(inputs.init, architecture, INIT_ADVICE)?;
    let signer = inputs
        .signing
        .map(|files| load_signer(&files))
        .transpose()?;
    let pcr8 = signer.as_ref().map(Signer::pcr8);
    keys::check_signer(&manifest, tables.keys.as_ref(), pcr8)?;
    check_outputs(inputs)?;

    let memory = manifest.enclave.memory_mib;
    let memory_bytes = u64::from(memory.get()).saturating_mul(MIB);
    let mut image = image::load(
        &manifest.enclave.image,
        architecture,
        inputs.platform,
        memory_bytes.saturating_mul(LAYERS_PER_MEMORY),
        progress,
    )?;
    enclave_kms::add(&manifest, inputs.enclave_kms, architecture, &mut image)?;
    let files = memory::Files::of(&image.tree).map_err(|reason| BuildError::Image {
        image: manifest.enclave.image.path.clone(),
        reason,
    })?;
    let init_bytes = init
        .metadata()
        .map_err(BuildError::read(inputs.init, "try again"))?
        .len();
    let unpacked = memory::of_file(init_bytes).saturating_add(files.unpacked);
    // Before the work; what the image itself takes is known after it.
    memory::check(0, unpacked, files.largest.as_ref(), memory)
        .map_err(|reason| manifest.invalid(&["enclave", "memory_mib"], reason))?;
    let measured = config::measured(&manifest, tables, &image, architecture)?;
    let notes = config::notes(&manifest, &image, &measured);
    let measured = measured
        .to_json()
        .map_err(|error| config::too_large(&manifest, &measured, &error))?;

    let init_digest = Hashing::new(&init)
        .finish()
        .map_err(BuildError::read(inputs.init, "try again"))?;
    let mut boot = ramdisk::boot(&mut init).map_err(BuildError::temporary)?;
    progress(Step::Compress {
        bytes: files.contents,
    });
    let mut application =
        ramdisk::application(&image.tree, &image.spool, MEASURED_CONFIG_PATH, &measured)
            .map_err(BuildError::temporary)?;

    let mut output = BufWriter::new(new_file(inputs.output)?);
    let measurements = eif::write(
        eif::Image {
            architecture,
            default_memory: memory_bytes,
            default_cpus: manifest.enclave.cpus.get().into(),
            kernel: &mut kernel,
            command_line: COMMAND_LINE,
            metadata: &metadata(
                &manifest,
                &image,
                unpacked,
                kernel_version,
                inputs.build_time,
            ),
            ramdisks: vec![&mut boot, &mut application],
            signer: signer.as_ref(),
        },
        &mut output,
    )
    .map_err(|error| match error {
        eif::Error::Write(source) => BuildError::write(inputs.output)(source),
        error => BuildError::Eif(error),
    })?;
    let output = output
        .into_inner()
        .map_err(|error| BuildError::write(inputs.output)(error.into_error()))?;
    let size = output
        .as_file()
        .metadata()
        .map_err(BuildError::write(inputs.output))?
        .len();
    memory::check(size, unpacked, files.largest.as_ref(), memory)
        .map_err(|reason| manifest.invalid(&["enclave", "memory_mib"], reason))?;
    if let Some(path) = inputs.measurements {
        let mut file = new_file(path)?;
        writeln!(file, "{:#}", json!(measurements)).map_err(BuildError::write(path))?;
        publish(file, path)?;
    }
    publish(output, inputs.output)?;
    Ok(Built {
        name: manifest.enclave.name.to_string(),
        size,
        init: init_digest.hex().to_owned(),
        measurements,
        notes,
    })
}

/// Whether what is built can be put where it is wanted.
fn check_outputs(inputs: &Inputs<'_>) -> Result<(), BuildError> {
    if inputs.measurements == Some(inputs.output) {
        return Err(BuildError::Argument(format!(
            "{} cannot be both the image and its measurements: give two files",
            inputs.output.display()
        )));
    }
    std::iter::once(inputs.output)
        .chain(inputs.measurements)
        .try_for_each(check_writable)
}

impl Default for BuildTime {
    fn default() -> Self {
        Self(OffsetDateTime::UNIX_EPOCH)
    }
}

impl FromStr for BuildTime {
    type Err = BuildError;

    /// Reads the value of `SOURCE_DATE_EPOCH`: whole seconds since 1970
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    fn from_str(text: &str) -> Result<Self, BuildError> {
        Some(text)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .map(Self)
            .ok_or_else(|| {
                BuildError::Argument(format!(
                    "SOURCE_DATE_EPOCH is `{text}`: set it to whole seconds since 1970, up to the year 9999, or unset it"
                ))
            })
    }
}

fn metadata(
    manifest: &Manifest,
    image: &Image,
    unpacked_bytes: u64,
    kernel_version: String,
    build_time: BuildTime,
) -> Metadata {
    let host = HostConfig {
        schema: CONFIG_SCHEMA,
        name: manifest.enclave.name.clone(),
        cpus: manifest.enclave.cpus,
        memory_mib: manifest.enclave.memory_mib,
        unpacked_bytes,
        ingress: manifest.network.ingress.clone(),
        egress: manifest.network.egress.clone(),
        aws_services: manifest.network.aws_services.clone(),
        aws_fips: manifest.network.aws_fips,
        aws_credentials: manifest.has_credentials(),
    };
    let docker_info = match &image.config_digest {
        Some(digest) => json!({ "ConfigDigest": digest.to_string() }),
        None => json!({}),
    };
    Metadata {
        image_name: manifest.enclave.name.to_string(),
        image_version: "1".to_owned(),
        build_metadata: BuildMetadata {
            build_time: build_time.0.format(&Rfc3339).expect("it was parsed as one"),
            build_tool: env!("CARGO_PKG_NAME").to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version,
        },
        docker_info: docker_info.into(),
        custom_metadata: json!({ HOST_CONFIG_KEY: host }).into(),
    }
}

fn open_kernel(path: &Path) -> Result<(File, Architecture, String), BuildError> {
    const ADVICE: &str = "give a kernel with --kernel (`cargo xtask kernel` builds one)";
    let mut file = open_regular(path).map_err(BuildError::read(path, ADVICE))?;
    let head = read_head(&mut file, kernel::HEAD_BYTES).map_err(BuildError::read(path, ADVICE))?;
    let (architecture, version) = kernel::identify(&head).map_err(|reason| BuildError::Input {
        path: path.to_owned(),
        reason,
    })?;
    Ok((file, architecture, version))
}

fn load_signer(files: &SigningFiles<'_>) -> Result<Signer, BuildError> {
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        open_regular(path)
            .and_then(|file| file.take(MAX_PEM).read_to_end(&mut bytes))
            .map_err(BuildError::read(path, "give a PEM file"))?;
        Ok::<_, BuildError>(bytes)
    };
    let refused = |path: &Path, reason| BuildError::Input {
        path: path.to_owned(),
        reason,
    };
    let signer =
        Signer::from_pem(&read(files.key)?, &read(files.certificate)?).map_err(|error| {
            let path = match error {
                SigningError::Certificate(_) => files.certificate,
                _ => files.key,
            };
            refused(path, error.to_string())
        })?;
    match signer.certificate().problem_at(OffsetDateTime::now_utc()) {
        None => Ok(signer),
        Some(problem) => Err(refused(
            files.certificate,
            format!(
                "{problem}, and nitro-cli does not start what is signed with it: make a new certificate for the key, which changes PCR8, or set the clock"
            ),
        )),
    }
}

/// The folder of a file that is to be written.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Finds out before the work whether its result can be written, with a file
/// that has no name.
fn check_writable(path: &Path) -> Result<(), BuildError> {
    // A device must not be replaced by a file.
    if std::fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
        let reason = std::io::Error::other("what is there is not a file");
        return Err(BuildError::write(path)(reason));
    }
    tempfile::tempfile_in(folder(path))
        .map(drop)
        .map_err(BuildError::write(path))
}

/// A file that is removed unless it is published.
fn new_file(path: &Path) -> Result<NamedTempFile, BuildError> {
    tempfile::Builder::new()
        .prefix(".image-builder-")
        .tempfile_in(folder(path))
        .map_err(BuildError::write(path))
}

/// Puts the finished file in its place, readable for everybody as any new file
/// under the usual umask: its mode is not part of the image.
fn publish(file: NamedTempFile, path: &Path) -> Result<(), BuildError> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .map_err(BuildError::write(path))?;
    file.persist(path)
        .map_err(|error| BuildError::write(path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_time_is_whole_seconds() {
        for (text, expected) in [
            ("0", "1970-01-01T00:00:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("253402300799", "9999-12-31T23:59:59Z"),
        ] {
            let time: BuildTime = text.parse().unwrap();
            assert_eq!(time.0.format(&Rfc3339).unwrap(), expected);
        }
        for text in [
            "",
            " 1",
            "1.5",
            "-1",
            "+1",
            "now",
            "253402300800",
            "99999999999999999999",
        ] {
            assert!(text.parse::<BuildTime>().is_err(), "{text}");
        }
    }
}
