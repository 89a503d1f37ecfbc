//! The measured configuration: the manifest, and what it leaves to the image.

use std::io::{self, Read};
use std::net::Ipv4Addr;

use eif::Architecture;
use manifest::{
    Attestation, CONFIG_SCHEMA, Command, ConfigError, Environment, HostPattern, Keys, Kms,
    LogRelease, Manifest, ManifestError, MeasuredConfig, NameOrId, Profile, Reaction, Secret,
    SelfCheck, StopSignal, UserSource, WorkingDirectory, Workload, WorkloadSource, Workloads,
    check_credentials, check_kms_environment,
};

use crate::access::Access;
use crate::container::Process;
use crate::healthcheck;
use crate::image::Image;
use crate::node::{Content, Kind};
use crate::program::Surroundings;
use crate::user::{self, Account};
use crate::{attestation, fields, keys, kms, secrets};

/// `PATH` where neither image nor manifest sets one: Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_ACCOUNTS: u64 = 1024 * 1024;
/// The bit of a mode that lets everybody read.
const EVERYBODY_READS: u32 = 0o004;

/// The tables that name files, with what is in these.
pub(crate) struct Tables {
    pub(crate) attestation: Attestation,
    pub(crate) kms: Option<Kms>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) keys: Option<Keys>,
}

impl Tables {
    /// Reads the files.
    pub(crate) fn read(manifest: &Manifest) -> Result<Self, ManifestError> {
        Ok(Self {
            attestation: attestation::measured(manifest)?,
            kms: kms::measured(manifest)?,
            secrets: secrets::measured(manifest)?,
            keys: keys::measured(manifest)?,
        })
    }
}

/// Combines the manifest with the container's own configuration, and checks
/// that each workload can be started in the image.
pub(crate) fn measured(
    manifest: &Manifest,
    tables: Tables,
    image: &Image,
    architecture: Architecture,
) -> Result<MeasuredConfig, ManifestError> {
    let Tables {
        attestation,
        kms,
        secrets,
        keys,
    } = tables;
    let has_kms = kms.is_some();
    let workloads = manifest.workloads.try_map(|index, source| {
        let entry = Entry {
            manifest,
            index,
            source,
            image,
        };
        entry.measured(has_kms, architecture)
    })?;
    check_readers(manifest, &secrets, &workloads)?;
    Ok(MeasuredConfig {
        schema: CONFIG_SCHEMA,
        name: manifest.enclave.name.clone(),
        workloads,
        network: manifest.network.clone(),
        logs: manifest.logs.clone(),
        attestation,
        confinement: manifest.confinement.clone(),
        kms,
        secrets,
        keys,
    })
}

/// One of the manifest's workloads.
struct Entry<'a> {
    manifest: &'a Manifest,
    index: usize,
    source: &'a WorkloadSource,
    image: &'a Image,
}

impl Entry<'_> {
    fn measured(
        &self,
        has_kms: bool,
        architecture: Architecture,
    ) -> Result<Workload, ManifestError> {
        let Self {
            manifest,
            index,
            source,
            image,
        } = *self;
        let process = &image.process;
        let about = |key: &'static str| {
            move |reason: String| manifest.invalid_workload(index, &[key], reason)
        };
        let command = command(source, process).map_err(about(program_key(source, process)))?;
        let account = account(source, image).map_err(about("user"))?;
        let env = environment(process, &source.env, &account.home).map_err(about("env"))?;
        check_credentials(source.aws_credentials, &env).map_err(about("aws_credentials"))?;
        if has_kms {
            check_kms_environment(&env).map_err(|error| about("env")(error.to_string()))?;
        }
        let working_directory =
            working_directory(source, image).map_err(about("working_directory"))?;
        let stop_signal = match (source.stop_signal, &process.stop_signal) {
            (Some(signal), _) => signal,
            (None, Some(text)) if !text.is_empty() => {
                text.parse::<StopSignal>().map_err(|error| {
                    about("stop_signal")(format!("the image's StopSignal: {error}"))
                })?
            }
            _ => StopSignal::default(),
        };
        let surroundings = Surroundings {
            tree: &image.tree,
            environment: &env,
            working_directory: &working_directory,
            access: Access::new(account.user, &account.groups, &manifest.confinement),
            architecture,
            read: &|content, limit| read(image, content, limit),
        };
        surroundings
            .check(command.program(), "workload.entrypoint")
            .and_then(|()| check_init(&surroundings, command.program()))
            .map_err(about(program_key(source, process)))?;
        let health = healthcheck::measured(manifest, index, &image.fields, &surroundings)?;
        check_changes(manifest, index, &surroundings)?;
        Ok(Workload {
            name: source.name.clone(),
            after: source.after.clone(),
            essential: source.essential.unwrap_or(true),
            limits: source.limits,
            kind: source.kind,
            command,
            init: source.init,
            env,
            working_directory,
            user: account.user,
            groups: account.groups,
            restart: source.restart(),
            health,
            stop_signal,
            stop_grace: source.stop_grace,
            aws_credentials: source.aws_credentials,
        })
    }
}

/// The folder that it starts in, which is there.
fn working_directory(source: &WorkloadSource, image: &Image) -> Result<WorkingDirectory, String> {
    let folder = match (&source.working_directory, &image.process.working_dir) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) if !folder.is_empty() => WorkingDirectory::try_from(folder.clone())
            .map_err(|error| format!("the image's {error}"))?,
        _ => WorkingDirectory::default(),
    };
    let node = image.tree.lookup(folder.as_bytes());
    if node.is_some_and(|node| node.kind == Kind::Directory) {
        return Ok(folder);
    }
    Err(format!(
        "the working directory {folder} does not exist in the image: create it there, or set workload.working_directory"
    ))
}

/// The file of a secret has one owner: that of the first workload.
fn check_readers(
    manifest: &Manifest,
    secrets: &[Secret],
    workloads: &Workloads<Workload>,
) -> Result<(), ManifestError> {
    let mut users = workloads.iter().map(|workload| workload.user);
    let first = users.next();
    let Some(other) = users.find(|user| Some(*user) != first) else {
        return Ok(());
    };
    let is_closed = |secret: &Secret| {
        let file = secret.file.as_ref();
        file.is_some_and(|file| file.mode.bits() & EVERYBODY_READS == 0)
    };
    match secrets.iter().position(is_closed) {
        None => Ok(()),
        Some(index) => {
            let message = format!(
                "the secret's file belongs to the user of the first workload, {}, and another workload runs as {other}, which could not read it: write `mode = \"0444\"`, or the same `user` for both",
                first.map(|user| user.to_string()).unwrap_or_default(),
            );
            Err(manifest.invalid(&["secrets", &index.to_string(), "file"], message))
        }
    }
}

/// The command line, as Compose makes it of the image's and its own: an entrypoint that is
/// given takes the image's command away, which was meant for the image's entrypoint.
fn command(source: &WorkloadSource, process: &Process) -> Result<Command, String> {
    let command = match (source.command.as_deref(), &source.entrypoint) {
        (Some(command), _) => command,
        (None, Some(_)) => &[],
        (None, None) => process.cmd.as_deref().unwrap_or_default(),
    };
    let words = [entrypoint(source, process), command].concat();
    match words.first() {
        None if source.entrypoint.is_some() || source.command.is_some() => Err(
            "there is no program to run: name one in workload.entrypoint, as in `[\"/app/server\"]`"
                .to_owned(),
        ),
        None => Err(
            "the image has no entrypoint and no command: set workload.entrypoint".to_owned(),
        ),
        Some(program) if program.is_empty() => Err(
            "the first word of the command line, which is the program, is empty: set workload.entrypoint to a program"
                .to_owned(),
        ),
        Some(_) => Command::try_from(words).map_err(|error| error.to_string()),
    }
}

/// Other inits run; this one is for machines.
fn check_init(surroundings: &Surroundings<'_>, program: &str) -> Result<(), String> {
    if surroundings.file_name(program).as_deref() != Some("systemd") {
        return Ok(());
    }
    Err(format!(
        "{program} is systemd, which mounts file systems and manages control groups that are not the workload's to change: run the service's own program, or several under s6-overlay, tini or dumb-init"
    ))
}

/// What follows the change of a secret can be executed, too.
fn check_changes(
    manifest: &Manifest,
    workload: usize,
    surroundings: &Surroundings<'_>,
) -> Result<(), ManifestError> {
    for (index, secret) in manifest.secrets.iter().enumerate() {
        let Some(on_change) = &secret.on_change else {
            continue;
        };
        let Reaction::Command(command) = &on_change.reaction else {
            continue;
        };
        let named = on_change.workload.as_ref();
        let beside = named.and_then(|name| manifest.workloads.place(name));
        if beside.unwrap_or_default() != workload {
            continue;
        }
        surroundings
            .check(command.program(), "on_change.command")
            .map_err(|reason| {
                manifest.invalid(&["secrets", &index.to_string(), "on_change"], reason)
            })?;
    }
    Ok(())
}

/// The key that the program's name comes from, or would.
fn program_key(source: &WorkloadSource, process: &Process) -> &'static str {
    if source.command.is_some() && entrypoint(source, process).is_empty() {
        "command"
    } else {
        "entrypoint"
    }
}

/// The entrypoint that counts; none is empty.
fn entrypoint<'a>(source: &'a WorkloadSource, process: &'a Process) -> &'a [String] {
    let own = source.entrypoint.as_deref();
    own.or(process.entrypoint.as_deref()).unwrap_or_default()
}

/// The error about a configuration that is larger than the enclave reads.
pub(crate) fn too_large(
    manifest: &Manifest,
    config: &MeasuredConfig,
    error: &ConfigError,
) -> ManifestError {
    let table = config.largest_table();
    let shorten = match table {
        "attestation" => "the peers' policies: fewer peers, or fewer images in each",
        "network" => "the lists of rules",
        "logs" => "the redactions",
        "kms" => "the roots",
        "secrets" => {
            "the ciphertexts: store the longest outside the image, by `ssm` or `secretsmanager`"
        }
        _ => "the command and the environment, the image's included",
    };
    let message = format!("{error}; most of them are [{table}]'s: shorten {shorten}");
    manifest.invalid(&[table], message)
}

/// Variables that name a proxy to programs.
const PROXIES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What is allowed and should be known.
pub(crate) fn notes(manifest: &Manifest, image: &Image, config: &MeasuredConfig) -> Vec<String> {
    let notes = [
        profile_note(config),
        release_note(config),
        credentials_note(config),
    ];
    let mut notes: Vec<String> = notes.into_iter().flatten().map(str::to_owned).collect();
    let mut entries = manifest.workloads.iter();
    notes.extend(entries.find_map(|source| entrypoint_note(source, &image.process)));
    for rule in &config.network.egress {
        let HostPattern::Exact(host) = rule.host() else {
            continue;
        };
        let is_loopback = host.parse().is_ok_and(|host: Ipv4Addr| host.is_loopback());
        if is_loopback || host == "localhost" {
            let proxy = if config.network.proxy {
                "through the proxy"
            } else {
                "through the proxy, which this enclave does not have: set network.proxy = true"
            };
            notes.push(format!(
                "the egress rule `{rule}` is for the parent's own loopback address, and only {proxy}; what the workload connects to there itself is inside the enclave"
            ));
        }
    }
    notes.extend(image.notes.iter().cloned());
    notes.extend(proxy_note(&image.process, config));
    notes.extend(healthcheck::note(
        manifest,
        &image.fields,
        &config.workloads,
    ));
    notes.extend(fields::notes(&image.fields, manifest));
    // What each of them has.
    let are_root = config
        .workloads
        .iter()
        .all(|workload| workload.user.uid == 0);
    let granted = config.confinement.capabilities_of(are_root);
    notes.extend(image.tree.left_out().notes(&granted));
    notes
}

/// A proxy of the place where the image was made is none inside the enclave. Its value may
/// have a password.
fn proxy_note(image: &Process, config: &MeasuredConfig) -> Option<String> {
    let image = image.environment();
    let is_images = |name: &&&str| {
        let mut kept = config
            .workloads
            .iter()
            .filter_map(|workload| workload.env.get(**name));
        kept.any(|kept| !kept.is_empty() && image.get(**name) == Some(kept))
    };
    let name = PROXIES.iter().find(is_images)?;
    Some(format!(
        "the image sets {name}: the workload's programs will ask that proxy, which they reach only if the egress list has it; if that is not meant, set {name} to \"\" in workload.env"
    ))
}

/// Who means the whole command line is told that it is not.
fn entrypoint_note(source: &WorkloadSource, process: &Process) -> Option<String> {
    let entrypoint = entrypoint(source, process);
    let is_passed = source.command.is_some() && source.entrypoint.is_none();
    (is_passed && !entrypoint.is_empty()).then(|| {
        format!(
            "workload.command is passed to the image's entrypoint, `{}`: to run it by itself, set workload.entrypoint = []",
            entrypoint.join(" ")
        )
    })
}

fn profile_note(config: &MeasuredConfig) -> Option<&'static str> {
    let has_root = config
        .workloads
        .iter()
        .any(|workload| workload.user.uid == 0);
    match (has_root, config.confinement.profile) {
        (true, Profile::Default) => Some(
            "the workload runs as root, without root's capabilities: it cannot change users or owners, nor pass over the modes of files; where it must, set confinement.profile = \"container\", and where it need not, workload.user",
        ),
        (true, Profile::Container) => Some(
            "the workload runs as root with the capabilities that Docker leaves root, but for MKNOD: whoever takes it over owns every file of the image",
        ),
        (false, Profile::Container) => Some(
            "confinement.profile = \"container\" gives capabilities to root alone, and the workload runs as another user: name those that it needs in confinement.capabilities, or remove the profile",
        ),
        (false, Profile::Default) => None,
    }
}

fn release_note(config: &MeasuredConfig) -> Option<&'static str> {
    let debug_runs =
        config.attestation.allow_debug || config.attestation.self_check == SelfCheck::Report;
    (config.logs.release == LogRelease::DebugOnly && !debug_runs).then_some(
        "logs.release = \"debug-only\" releases lines in debug mode alone, in which this enclave does not start: set attestation.allow_debug, or logs.release to \"never\"",
    )
}

fn credentials_note(config: &MeasuredConfig) -> Option<&'static str> {
    (config.has_credentials() && !config.network.has_egress()).then_some(
        "workload.aws_credentials is of no use to a workload that can connect to nothing: name services in network.aws_services",
    )
}

/// The image's environment, overlaid with the manifest's. As in any container, `HOME` is
/// the user's own unless one of them sets it to something.
fn environment(
    process: &Process,
    overlay: &Environment,
    home: &str,
) -> Result<Environment, String> {
    let mut environment = Environment::default();
    for (name, value) in process.environment() {
        environment
            .set(name, value)
            .map_err(|error| format!("the image's environment: {error}"))?;
    }
    let path = || ("PATH".to_owned(), DEFAULT_PATH.to_owned());
    let path = (!environment.contains_key("PATH")).then(path);
    let overlay = overlay
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    for (name, value) in path.into_iter().chain(overlay) {
        environment
            .set(name, value)
            .map_err(|error| error.to_string())?;
    }
    if environment.get("HOME").is_none_or(String::is_empty) {
        environment
            .set("HOME".to_owned(), home.to_owned())
            .map_err(|error| format!("the user's home in the image's /etc/passwd: {error}"))?;
    }
    Ok(environment)
}

/// The workload's user, as the image's accounts describe it.
fn account(source: &WorkloadSource, image: &Image) -> Result<Account, String> {
    let source = match (&source.user, &image.process.user) {
        (Some(user), _) => user.clone(),
        (None, Some(user)) if !user.is_empty() => user
            .parse()
            .map_err(|error: manifest::ProcessError| format!("the image's {error}"))?,
        _ => UserSource {
            user: NameOrId::Id(0),
            group: None,
        },
    };
    let accounts = |path: &str| match image.tree.lookup(path.as_bytes()).map(|node| &node.kind) {
        Some(Kind::File { content, .. }) if content.size > MAX_ACCOUNTS => Err(format!(
            "the image's {path} has more than {MAX_ACCOUNTS} bytes: make it smaller"
        )),
        Some(Kind::File { content, .. }) => read(image, *content, MAX_ACCOUNTS)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| format!("the image's {path}: {error}")),
        _ => Ok(String::new()),
    };
    user::resolve(&source, &accounts("/etc/passwd")?, &accounts("/etc/group")?)
}

fn read(image: &Image, content: Content, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image
        .spool
        .reader(content)
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
