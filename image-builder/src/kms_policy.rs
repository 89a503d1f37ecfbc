//! Key policies of KMS for the enclaves of an image.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use attestation::{ImageMeasurements, read_measurements};
use key_policy::{
    Account, MAX_POLICY_BYTES, Policy, Principal, Release, Review, Rules, RulesError, WrittenPolicy,
};
use measurements::{InstanceId, Pcr, RoleArn};

use crate::error::BuildError;
use crate::stored::{SignerError, open_regular, read_signer};

const FILE_ADVICE: &str = "name a file that is there";

/// What a key policy is written from.
#[derive(Debug)]
pub struct KeyPolicyInputs<'a> {
    /// The measurements of the image that runs, as `build` writes them.
    pub measurements: &'a Path,
    /// Those of the one that takes its place.
    pub next: Option<&'a Path>,
    /// The certificate that both are signed with (PEM).
    pub signer: Option<&'a Path>,
    /// The parent instance's role: measured into PCR3, and whom enclaves call KMS as unless
    /// `callers` says otherwise.
    pub role: Option<&'a RoleArn>,
    /// The parent instance: measured into PCR4.
    pub instance: Option<&'a InstanceId>,
    /// Whom enclaves call KMS as.
    pub callers: &'a [Principal],
    /// The account whose IAM policies say who administers the key, and, without
    /// `encrypters`, who encrypts.
    pub account: Option<&'a Account>,
    /// Who administers the key.
    pub administrators: &'a [Principal],
    /// Who encrypts.
    pub encrypters: &'a [Principal],
    /// Whether the key wraps the seed of a family of enclaves, and nothing else.
    pub is_for_seed: bool,
}

/// Writes a key policy under which only enclaves of the images read.
pub fn write_key_policy(inputs: &KeyPolicyInputs<'_>) -> Result<WrittenPolicy, BuildError> {
    let signer = inputs.signer.map(signer_in).transpose()?;
    let release = |path: &Path| {
        let mut release = read_release(path)?;
        if let Some(signer) = signer {
            if release.signer.is_some_and(|other| other != signer) {
                return Err(BuildError::Input {
                    path: path.to_owned(),
                    reason: "the image is signed with another certificate than --signer names"
                        .to_owned(),
                });
            }
            release.signer = Some(signer);
        }
        Ok(release)
    };
    let mut callers = inputs.callers.to_vec();
    if let (true, Some(role)) = (callers.is_empty(), inputs.role) {
        callers.push(Principal::from(role));
    }
    let account = inputs.account.cloned().map(Principal::Account);
    let mut administrators = inputs.administrators.to_vec();
    administrators.extend(account.clone());
    let mut encrypters = inputs.encrypters.to_vec();
    if encrypters.is_empty() && !inputs.is_for_seed {
        encrypters.extend(account);
    }
    let rules = Rules {
        current: release(inputs.measurements)?,
        next: inputs.next.map(release).transpose()?,
        role: inputs.role.map(RoleArn::pcr3),
        instance: inputs.instance.map(InstanceId::pcr4),
        callers,
        administrators,
        encrypters,
        is_for_seed: inputs.is_for_seed,
    };
    rules
        .write()
        .map_err(|error| BuildError::Argument(error.to_string()))
}

/// Says who could read under a key policy without being an attested enclave, and of a key
/// for the seed of a family of enclaves who could choose it. `-` is standard input.
pub fn review_key_policy(path: &Path, is_for_seed: bool) -> Result<Review, BuildError> {
    let read = BuildError::read(path, FILE_ADVICE);
    let text = if path == Path::new("-") {
        read_text(&mut io::stdin().lock())
    } else {
        open_regular(path).and_then(|mut file| read_text(&mut file))
    };
    let policy: Policy = text.map_err(read)?.parse().map_err(unusable(path))?;
    Ok(if is_for_seed {
        policy.review_for_seed()
    } else {
        policy.review()
    })
}

/// One byte more than a policy can have, which is how it is found out that one has more.
fn read_text(file: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    let limit = MAX_POLICY_BYTES as u64 + 1;
    file.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

fn read_release(path: &Path) -> Result<Release, BuildError> {
    open_regular(path).map_err(BuildError::read(path, FILE_ADVICE))?;
    // The error names the file itself.
    match read_measurements(path) {
        Ok(ImageMeasurements::Enclave(measurements)) if measurements.pcr0 == Pcr::ZERO => {
            Err(unusable(path)(RulesError::Zero(0)))
        }
        Ok(ImageMeasurements::Enclave(measurements)) => Ok(Release::from(&measurements)),
        Ok(ImageMeasurements::NitroTpm(_)) => Err(unusable(path)(
            "these are measurements of a NitroTPM: give those of an enclave's image",
        )),
        Err(error) => Err(BuildError::Measurements(error)),
    }
}

fn signer_in(path: &Path) -> Result<Pcr, BuildError> {
    read_signer(path).map_err(|error| match error {
        // Not the system's: the file is too large.
        SignerError::Read(source) if source.raw_os_error().is_none() => unusable(path)(source),
        SignerError::Read(source) => BuildError::read(path, FILE_ADVICE)(source),
        SignerError::Certificate(error) => unusable(path)(error),
    })
}

fn unusable<E: ToString>(path: &Path) -> impl FnOnce(E) -> BuildError {
    let path: PathBuf = path.to_owned();
    move |error| BuildError::Input {
        path,
        reason: error.to_string(),
    }
}
