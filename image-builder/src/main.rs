//! `image-builder`: builds enclave images and shows what is in them.

#![forbid(unsafe_code)]

mod text;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use command_output::errln;
use image_builder::{
    BuildError, BuildTime, Inputs, KeyPolicyInputs, Platform, SigningFiles, Step, build,
    compare_images, describe_image, review_key_policy, write_key_policy,
};
use key_policy::{Account, Principal};
use measurements::{InstanceId, RoleArn};
use serde_json::json;

/// The exit code of `diff` for images that are not the same.
const DIFFERENT: u8 = 4;
/// The exit code of `kms-policy check` for a policy that lets others than attested enclaves
/// read.
const OPEN: u8 = 5;
/// Steps with fewer bytes than this are over before anybody wonders.
const SLOW_STEP: u64 = 32 * 1024 * 1024;

/// Build enclave images (EIF) from OCI images, without Docker.
///
/// Exit codes: 0 done, 1 a file could not be read or written, 2 the manifest or
/// the command line is wrong, 3 an input (kernel, init, image, key) cannot be used,
/// 4 the images that `diff` compares are not the same, 5 the policy that `kms-policy check`
/// reads lets others than attested enclaves read or, with `--fleet-key`, choose the seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the image that a manifest describes, and print its measurements.
    ///
    /// The same inputs give the same bytes. The build time in the metadata is
    /// 1970-01-01 unless `SOURCE_DATE_EPOCH` is set. Temporary files, as
    /// large as all layers unpacked and the image itself, go to TMPDIR.
    ///
    /// PCR0 is measured over the whole image, PCR1 over kernel, command line and
    /// init, PCR2 over the application, PCR8 over the signing certificate.
    Build(BuildArgs),
    /// Check an image and show what is in it.
    Describe {
        /// The image.
        image: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what distinguishes two images: sections, files, measurements.
    ///
    /// A line of a file begins with `+` where only the second image has it, `-` where
    /// only the first has it, and `~` where it is not the same in both. The container's
    /// files are below `rootfs/`.
    Diff {
        /// The first image.
        first: PathBuf,
        /// The second image.
        second: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a key policy for KMS, under which only enclaves of an image read, or check one.
    ///
    /// The policy: administrators manage the key and do not decrypt; encrypters encrypt;
    /// enclaves of the image, and of the next one, decrypt and make data keys; to everybody
    /// else that is denied, whatever IAM policies and grants allow. Whoever may put another
    /// policy in its place (kms:PutKeyPolicy) may lift all that. KMS takes the policy from one
    /// of the administrators only, so that nobody is locked out.
    ///
    /// A principal is an account's number, or the ARN of a user or a role.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    KmsPolicy {
        #[command(flatten)]
        write: Option<KmsPolicyArgs>,
        #[command(subcommand)]
        command: Option<KmsPolicyCommand>,
    },
}

#[derive(Debug, Args)]
struct KmsPolicyArgs {
    /// The measurements of the image, as `build --measurements` writes them.
    #[arg(long, value_name = "FILE", required = true)]
    measurements: PathBuf,
    /// Those of the release that takes its place, while both run.
    #[arg(long, value_name = "FILE")]
    next: Option<PathBuf>,
    /// Demand that the image is signed with this certificate (PEM, PCR8). A signed image's
    /// measurements demand it already.
    #[arg(long, value_name = "PEM")]
    signer: Option<PathBuf>,
    /// The parent instance's IAM role, with its path: demand it (PCR3), and let enclaves call
    /// KMS as it.
    #[arg(long, value_name = "ARN")]
    role: Option<RoleArn>,
    /// Demand this parent instance (PCR4).
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// Let enclaves call KMS as this principal instead of --role. May be repeated.
    #[arg(long, value_name = "PRINCIPAL")]
    caller: Vec<Principal>,
    /// Let the IAM policies of this account say who administers the key and, without
    /// --encrypter, who encrypts.
    #[arg(long, value_name = "NUMBER", required_unless_present = "administrator")]
    account: Option<Account>,
    /// Let this principal administer the key. May be repeated.
    #[arg(long, value_name = "PRINCIPAL")]
    administrator: Vec<Principal>,
    /// Let this principal encrypt. May be repeated.
    #[arg(long, value_name = "PRINCIPAL")]
    encrypter: Vec<Principal>,
    /// The key wraps the seed of a family of enclaves (`keys` in enclave.toml), and nothing
    /// else: nobody encrypts, because whoever could would choose the seed.
    #[arg(long, conflicts_with = "encrypter")]
    fleet_key: bool,
}

#[derive(Debug, Subcommand)]
enum KmsPolicyCommand {
    /// Say who could read under a policy without being an attested enclave, by which
    /// statement, and what is demanded of attested ones.
    ///
    /// What other policies say, as those of IAM and of the organisation, is not known here: a
    /// principal that is an account stands for whom its IAM policies allow the call.
    Check {
        /// The policy, as `aws kms get-key-policy --output text --query Policy` prints it;
        /// `-` is standard input.
        policy: PathBuf,
        /// The key wraps the seed of a family of enclaves: also say who could choose it.
        #[arg(long)]
        fleet_key: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The manifest.
    #[arg(long, default_value = "enclave.toml")]
    manifest: PathBuf,
    /// The kernel (`cargo xtask kernel` builds one).
    #[arg(long, env = "ENCLAVE_KERNEL")]
    kernel: PathBuf,
    /// The enclave-init program [default: the one beside this program].
    #[arg(long)]
    init: Option<PathBuf>,
    /// The enclave-kms program, which images get whose manifest sets `command` in `[kms]`
    /// [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    enclave_kms: Option<PathBuf>,
    /// Of a container image that is there for several platforms, take the best for this one, as
    /// in `linux/amd64/v3` [default: the kernel's, which every processor of its kind runs].
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Where to write the image.
    #[arg(long, short)]
    output: PathBuf,
    /// Also write the measurements to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
    /// Sign the image with this key (PEM, P-256, P-384 or P-521).
    #[arg(long, value_name = "PEM", requires = "signing_certificate")]
    signing_key: Option<PathBuf>,
    /// The key's certificate (PEM), measured into PCR8.
    #[arg(long, value_name = "PEM", requires = "signing_key")]
    signing_certificate: Option<PathBuf>,
    /// Print the measurements as JSON, as attestation policies take them.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli: Cli = match command_output::parse("image-builder", 1) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let result = match cli.command {
        Command::Build(args) => build_image(&args).map(|()| ExitCode::SUCCESS),
        Command::Describe { image, json } => describe(&image, json).map(|()| ExitCode::SUCCESS),
        Command::Diff {
            first,
            second,
            json,
        } => diff(&first, &second, json),
        Command::KmsPolicy { write, command } => match (command, write) {
            (
                Some(KmsPolicyCommand::Check {
                    policy,
                    fleet_key,
                    json,
                }),
                _,
            ) => check_kms_policy(&policy, fleet_key, json),
            (None, Some(args)) => write_kms_policy(&args).map(|()| ExitCode::SUCCESS),
            (None, None) => Err(BuildError::Argument(
                "kms-policy needs --measurements, or check and a policy".to_owned(),
            )),
        },
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            errln!("image-builder: {}", plain_text::plain(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn build_image(args: &BuildArgs) -> Result<(), BuildError> {
    let given_or_beside = |given: &Option<PathBuf>, name: &str| {
        given.clone().unwrap_or_else(|| {
            let program = std::env::current_exe().unwrap_or_default();
            program.with_file_name(name)
        })
    };
    let init = given_or_beside(&args.init, "enclave-init");
    let enclave_kms = given_or_beside(&args.enclave_kms, "enclave-kms");
    let signing = match (&args.signing_key, &args.signing_certificate) {
        (Some(key), Some(certificate)) => Some(SigningFiles { key, certificate }),
        _ => None,
    };
    let build_time = match std::env::var_os("SOURCE_DATE_EPOCH") {
        Some(seconds) => seconds.to_string_lossy().parse()?,
        None => BuildTime::default(),
    };
    let mut progress: Box<dyn FnMut(Step)> = if io::stderr().is_terminal() {
        Box::new(show)
    } else {
        Box::new(|_| ())
    };
    let built = build(
        &Inputs {
            manifest: &args.manifest,
            kernel: &args.kernel,
            init: &init,
            enclave_kms: &enclave_kms,
            output: &args.output,
            measurements: args.measurements.as_deref(),
            platform: args.platform.as_ref(),
            signing,
            build_time,
        },
        &mut progress,
    )?;
    for note in &built.notes {
        errln!("image-builder: note: {}", plain_text::plain(note));
    }
    if args.json {
        print(&format!("{:#}\n", json!(built.measurements)))
    } else {
        print(&text::built(&args.output, &built))
    }
}

/// Says what takes time.
fn show(step: Step) {
    match step {
        Step::Layer {
            number,
            count,
            bytes,
        } if bytes >= SLOW_STEP => {
            errln!("unpacking layer {number} of {count}, {}", text::size(bytes));
        }
        Step::Compress { bytes } if bytes >= SLOW_STEP => {
            errln!("compressing {} of files", text::size(bytes));
        }
        Step::Layer { .. } | Step::Compress { .. } => {}
    }
}

fn describe(path: &Path, json: bool) -> Result<(), BuildError> {
    let described = describe_image(path)?;
    if json {
        print(&format!("{:#}\n", json!(described)))?;
    } else {
        print(&text::description(path, &described))?;
    }
    let reason = match described.image.problems.as_slice() {
        [] => return Ok(()),
        [problem] => problem.to_string(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
    };
    Err(BuildError::Input {
        path: path.to_owned(),
        reason,
    })
}

fn diff(first: &Path, second: &Path, json: bool) -> Result<ExitCode, BuildError> {
    let difference = compare_images(first, second)?;
    if json {
        print(&format!("{:#}\n", json!(difference)))?;
    } else {
        print(&text::difference(&difference))?;
    }
    Ok(if difference.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DIFFERENT)
    })
}

fn write_kms_policy(args: &KmsPolicyArgs) -> Result<(), BuildError> {
    let policy = write_key_policy(&KeyPolicyInputs {
        measurements: &args.measurements,
        next: args.next.as_deref(),
        signer: args.signer.as_deref(),
        role: args.role.as_ref(),
        instance: args.instance.as_ref(),
        callers: &args.caller,
        account: args.account.as_ref(),
        administrators: &args.administrator,
        encrypters: &args.encrypter,
        is_for_seed: args.fleet_key,
    })?;
    print(&format!("{policy}\n"))
}

fn check_kms_policy(path: &Path, fleet_key: bool, json: bool) -> Result<ExitCode, BuildError> {
    let review = review_key_policy(path, fleet_key)?;
    if json {
        print(&format!("{:#}\n", json!(review)))?;
    } else {
        print(&text::review(&review))?;
    }
    Ok(if review.holes.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(OPEN)
    })
}

fn print(text: &str) -> Result<(), BuildError> {
    command_output::write(text.as_bytes()).map_err(|source| BuildError::Write {
        path: "standard output".into(),
        source,
        advice: "make room for it",
    })
}
