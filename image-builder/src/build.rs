//! Putting an enclave image together.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use eif::{Architecture, BuildMetadata, Image, Measurements, Metadata, Signer};
use manifest::{
    CONFIG_SCHEMA, Command, Environment, HOST_CONFIG_KEY, HostConfig, MEASURED_CONFIG_PATH,
    Manifest, ManifestError, MeasuredConfig, MemoryMib, User, WorkingDirectory, Workload,
};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::container::{Container, Process};
use crate::error::BuildError;
use crate::tree::{Content, Kind, Tree};
use crate::{kernel, oci, program, ramdisk, user};

/// The kernel's command line: as AWS's images have it, with a panic that ends
/// the enclave at once instead of after half a minute.
const COMMAND_LINE: &str =
    "reboot=k panic=-1 pci=off nomodules quiet console=ttyS0 random.trust_cpu=on root=/dev/ram0";
/// An image may be as large as a quarter of the memory that it is started with:
/// it is there once more when unpacked (AWS, "nitro-cli run-enclave").
const MEMORY_PER_IMAGE: u64 = 4;
const MIB: u64 = 1024 * 1024;
/// Largest `/etc/passwd` or `/etc/group` that is read.
const MAX_ACCOUNTS: u64 = 1024 * 1024;

/// What an image is built from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// `enclave.toml`.
    pub manifest: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// The `enclave-init` binary.
    pub init: &'a Path,
    /// Where the image goes; replaced in one step when it is whole.
    pub output: &'a Path,
    /// Key and certificate to sign with.
    pub signing: Option<SigningFiles<'a>>,
    /// The time that the metadata names, in seconds since 1970.
    pub build_time: i64,
}

/// A key and its certificate, both PEM.
#[derive(Debug, Clone, Copy)]
pub struct SigningFiles<'a> {
    /// The private key.
    pub key: &'a Path,
    /// Its certificate.
    pub certificate: &'a Path,
}

/// A finished image.
#[derive(Debug, Clone)]
pub struct Built {
    /// The enclave's name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// What an enclave started from it reports.
    pub measurements: Measurements,
}

/// Builds the image.
pub fn build(inputs: &Inputs<'_>) -> Result<Built, BuildError> {
    let manifest = Manifest::load(inputs.manifest)?;
    let (mut kernel, architecture, kernel_version) = open_kernel(inputs.kernel)?;
    let mut init = open_init(inputs.init, architecture)?;
    let signer = inputs
        .signing
        .map(|files| load_signer(&files))
        .transpose()?;
    let platform = match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
    };
    let Container {
        config: container,
        config_digest,
        layers,
    } = oci::load(&manifest.enclave.image, platform)?;

    let mut tree = Tree::default();
    let mut archives = Vec::with_capacity(layers.len());
    for (index, layer) in layers.into_iter().enumerate() {
        let archive = layer
            .apply(index, &mut tree)
            .map_err(|error| BuildError::Image {
                image: inputs.manifest.to_owned(),
                reason: format!("layer {index}: {error}"),
            })?;
        archives.push(archive);
    }
    let measured = measured_config(
        &manifest,
        &container.config,
        &tree,
        &mut archives,
        architecture,
    )?;
    let config = measured
        .to_json()
        .map_err(|error| manifest.invalid(&["workload"], error.to_string()))?;

    let temporary = |error| BuildError::File {
        path: std::env::temp_dir(),
        source: error,
    };
    let mut boot = ramdisk::boot(&mut init).map_err(temporary)?;
    let mut application = ramdisk::application(&tree, &mut archives, MEASURED_CONFIG_PATH, &config)
        .map_err(temporary)?;

    let host = HostConfig {
        schema: CONFIG_SCHEMA,
        name: manifest.enclave.name.clone(),
        cpus: manifest.enclave.cpus,
        memory_mib: manifest.enclave.memory_mib,
        ingress: manifest.network.ingress.clone(),
        egress: manifest.network.egress.clone(),
    };
    let metadata = Metadata {
        image_name: manifest.enclave.name.to_string(),
        image_version: "1".to_owned(),
        build_metadata: BuildMetadata {
            build_time: rfc3339(inputs.build_time),
            build_tool: env!("CARGO_PKG_NAME").to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version,
        },
        docker_info: json!({ "ConfigDigest": format!("sha256:{config_digest}") }),
        custom_metadata: json!({ HOST_CONFIG_KEY: host }),
    };

    let folder = match inputs.output.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let output_failed = || BuildError::file(inputs.output);
    let mut output =
        BufWriter::new(tempfile::NamedTempFile::new_in(folder).map_err(output_failed())?);
    let measurements = eif::write(
        Image {
            architecture,
            default_memory: u64::from(manifest.enclave.memory_mib.get()) * MIB,
            default_cpus: manifest.enclave.cpus.get().into(),
            kernel: &mut kernel,
            command_line: COMMAND_LINE,
            metadata: &metadata,
            ramdisks: vec![&mut boot, &mut application],
            signer: signer.as_ref(),
        },
        &mut output,
    )?;
    output.flush().map_err(output_failed())?;
    let output = output
        .into_inner()
        .map_err(|error| BuildError::file(inputs.output)(error.into_error()))?;
    let size = output.as_file().metadata().map_err(output_failed())?.len();
    check_memory(size, manifest.enclave.memory_mib)
        .map_err(|reason| manifest.invalid(&["enclave", "memory_mib"], reason))?;
    publish(output, inputs.output)?;
    Ok(Built {
        name: manifest.enclave.name.to_string(),
        size,
        measurements,
    })
}

fn open_kernel(path: &Path) -> Result<(File, Architecture, String), BuildError> {
    let mut file = File::open(path).map_err(BuildError::file(path))?;
    let mut head = Vec::new();
    (&mut file)
        .take(kernel::HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(BuildError::file(path))?;
    let (architecture, version) = kernel::identify(&head).map_err(|reason| BuildError::Input {
        path: path.to_owned(),
        reason,
    })?;
    Ok((file, architecture, version))
}

fn open_init(path: &Path, architecture: Architecture) -> Result<File, BuildError> {
    let mut file = File::open(path).map_err(BuildError::file(path))?;
    let mut head = [0; 20];
    let read = file.read_exact(&mut head);
    let machine: u8 = match architecture {
        Architecture::X86_64 => 62,
        Architecture::Aarch64 => 183,
    };
    if read.is_err() || !head.starts_with(b"\x7fELF\x02\x01") || head.get(18) != Some(&machine) {
        return Err(BuildError::Input {
            path: path.to_owned(),
            reason: "this is not an enclave-init for the kernel's processor: give the static binary of this release".to_owned(),
        });
    }
    Ok(file)
}

fn load_signer(files: &SigningFiles<'_>) -> Result<Signer, BuildError> {
    let read = |path: &Path| std::fs::read(path).map_err(BuildError::file(path));
    Signer::from_pem(&read(files.key)?, &read(files.certificate)?).map_err(|error| {
        BuildError::Input {
            path: files.certificate.to_owned(),
            reason: error.to_string(),
        }
    })
}

/// Combines the manifest with the container's own configuration.
fn measured_config(
    manifest: &Manifest,
    process: &Process,
    tree: &Tree,
    layers: &mut [File],
    architecture: Architecture,
) -> Result<MeasuredConfig, ManifestError> {
    let source = &manifest.workload;
    let about =
        |key: &'static str| move |reason: String| manifest.invalid(&["workload", key], reason);
    let command = match &source.command {
        Some(command) => command.clone(),
        None => Command::try_from(process.command()).map_err(|_| {
            about("command")("the image has no entrypoint: set workload.command".to_owned())
        })?,
    };
    let env = environment(process, &source.env).map_err(about("env"))?;
    let working_directory = match (&source.working_directory, &process.working_dir) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) if !folder.is_empty() => WorkingDirectory::try_from(folder.clone())
            .map_err(|error| about("working_directory")(error.to_string()))?,
        _ => WorkingDirectory::default(),
    };
    let is_folder = |path: &str| {
        path == "/"
            || tree
                .lookup(path.as_bytes())
                .is_some_and(|node| node.kind == Kind::Directory)
    };
    if !is_folder(&working_directory) {
        return Err(about("working_directory")(format!(
            "the working directory {working_directory} does not exist in the image: create it there, or set workload.working_directory"
        )));
    }
    let mut read = |content: Content, limit: u64| {
        let mut bytes = Vec::new();
        ramdisk::open(layers, content)?
            .take(limit)
            .read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    program::check(
        tree,
        command.program(),
        &env,
        &working_directory,
        architecture,
        &mut read,
    )
    .map_err(about("command"))?;
    let mut accounts = |path: &str| match tree.lookup(path.as_bytes()).map(|node| &node.kind) {
        Some(Kind::File { content, .. }) => read(*content, MAX_ACCOUNTS)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| about("user")(format!("{path}: {error}"))),
        _ => Ok(String::new()),
    };
    let user = match (&source.user, &process.user) {
        (Some(user), _) => Some(user.clone()),
        (None, Some(user)) if !user.is_empty() => Some(
            user.parse()
                .map_err(|error: manifest::ProcessError| about("user")(error.to_string()))?,
        ),
        _ => None,
    };
    let user = match user {
        Some(user) => user::resolve(&user, &accounts("/etc/passwd")?, &accounts("/etc/group")?)
            .map_err(about("user"))?,
        None => User { uid: 0, gid: 0 },
    };
    Ok(MeasuredConfig {
        schema: CONFIG_SCHEMA,
        name: manifest.enclave.name.clone(),
        workload: Workload {
            kind: source.kind,
            command,
            env,
            working_directory,
            user,
            restart: source.restart(),
            health: source.health.clone(),
            stop_grace: source.stop_grace,
        },
        network: manifest.network.clone(),
        logs: manifest.logs,
    })
}

/// The image's environment, overlaid with the manifest's.
fn environment(process: &Process, overlay: &Environment) -> Result<Environment, String> {
    let mut environment = Environment::default();
    let own = process.environment();
    for (name, value) in own.iter().chain(overlay) {
        environment
            .set(name.clone(), value.clone())
            .map_err(|error| error.to_string())?;
    }
    Ok(environment)
}

fn check_memory(image_bytes: u64, memory: MemoryMib) -> Result<(), String> {
    let needed = image_bytes.saturating_mul(MEMORY_PER_IMAGE).div_ceil(MIB);
    if needed <= u64::from(memory.get()) {
        return Ok(());
    }
    Err(format!(
        "the image has {} MiB and needs four times its size to start: set enclave.memory_mib to at least {needed} (it is {memory})",
        image_bytes.div_ceil(MIB)
    ))
}

/// Puts the finished file in its place, readable for everybody as any new file
/// under the usual umask: its mode is not part of the image.
fn publish(file: tempfile::NamedTempFile, output: &Path) -> Result<(), BuildError> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .map_err(BuildError::file(output))?;
    file.persist(output)
        .map_err(|error| BuildError::file(output)(error.error))?;
    Ok(())
}

fn rfc3339(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// Describes an image, whole or damaged.
pub fn describe_image(path: &Path) -> Result<eif::Description, BuildError> {
    let file = File::open(path).map_err(BuildError::file(path))?;
    eif::describe(BufReader::new(file)).map_err(|error| BuildError::Input {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}
