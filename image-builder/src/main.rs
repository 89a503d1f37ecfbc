//! `image-builder`: builds enclave images and shows what is in them.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use eif::Description;
use image_builder::{BuildError, Inputs, SigningFiles, build, describe_image};
use serde_json::json;

/// Build enclave images (EIF) from OCI images, without Docker.
///
/// Exit codes: 0 done, 1 a file could not be read or written, 2 the manifest or
/// the command line is wrong, 3 an input (kernel, init, image, key) cannot be used.
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
    /// 1970-01-01 unless `SOURCE_DATE_EPOCH` is set.
    Build(BuildArgs),
    /// Check an image and show what is in it.
    Describe {
        /// The image.
        image: PathBuf,
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
    /// The enclave-init binary; the one beside this program unless given.
    #[arg(long)]
    init: Option<PathBuf>,
    /// Where the image goes.
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
    /// Print the measurements as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Build(args) => build_image(&args),
        Command::Describe { image, json } => describe(&image, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-builder: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn build_image(args: &BuildArgs) -> Result<(), BuildError> {
    let init = args.init.clone().unwrap_or_else(|| {
        let program = std::env::current_exe().unwrap_or_default();
        program.with_file_name("enclave-init")
    });
    let signing = match (&args.signing_key, &args.signing_certificate) {
        (Some(key), Some(certificate)) => Some(SigningFiles { key, certificate }),
        _ => None,
    };
    let build_time = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0);
    let built = build(&Inputs {
        manifest: &args.manifest,
        kernel: &args.kernel,
        init: &init,
        output: &args.output,
        signing,
        build_time,
    })?;
    let measurements = json!(built.measurements);
    if let Some(file) = &args.measurements {
        std::fs::write(file, format!("{measurements:#}\n")).map_err(|source| BuildError::File {
            path: file.clone(),
            source,
        })?;
    }
    if args.json {
        println!("{measurements:#}");
        return Ok(());
    }
    println!(
        "{} {} ({} KiB)",
        built.name,
        args.output.display(),
        built.size.div_ceil(1024)
    );
    println!("PCR0  {}  the whole image", built.measurements.pcr0);
    println!(
        "PCR1  {}  kernel, command line, boot ramdisk",
        built.measurements.pcr1
    );
    println!("PCR2  {}  application", built.measurements.pcr2);
    if let Some(pcr8) = built.measurements.pcr8 {
        println!("PCR8  {pcr8}  signing certificate");
    }
    Ok(())
}

fn describe(path: &Path, json: bool) -> Result<(), BuildError> {
    let image = describe_image(path)?;
    if json {
        println!("{:#}", json!(image));
    } else {
        print_description(path, &image);
    }
    match image.problems.into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(BuildError::Input {
            path: path.to_owned(),
            reason: problem.to_string(),
        }),
    }
}

fn print_description(path: &Path, image: &Description) {
    let Description {
        header,
        measurements,
        ..
    } = image;
    println!(
        "{}: EIF version {}, checksum {:08x}",
        path.display(),
        header.version,
        image.crc32
    );
    println!(
        "started with  {} MiB, {} CPUs",
        header.default_memory / (1024 * 1024),
        header.default_cpus
    );
    for section in &image.sections {
        println!("{:<13} {:>12} bytes", section.kind, section.size);
    }
    println!(
        "command line  {}",
        image.command_line.as_deref().unwrap_or("unreadable")
    );
    let signer = image
        .signature
        .as_ref()
        .map(|signature| signature.certificate().subject());
    println!("signed by     {}", signer.unwrap_or("nobody"));
    if let Some(metadata) = &image.metadata {
        let build = &metadata.build_metadata;
        println!(
            "built by      {} {}, kernel {}",
            build.build_tool, build.build_tool_version, build.kernel_version
        );
    }
    println!("PCR0  {}", measurements.pcr0);
    println!("PCR1  {}", measurements.pcr1);
    println!("PCR2  {}", measurements.pcr2);
    if let Some(pcr8) = measurements.pcr8 {
        println!("PCR8  {pcr8}");
    }
}
