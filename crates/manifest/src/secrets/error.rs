//! Why a declared secret was refused.

use aws_endpoint::Service;
use thiserror::Error;

use super::MAX_SECRETS;
use super::ciphertext::MAX_CIPHERTEXT_BYTES;
use super::delivery::{SECRETS_FOLDER, SecretPath, VariableName};
use crate::name::{EnclaveName, WorkloadName};
use crate::units::Interval;

/// Why a secret was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// More than [`MAX_SECRETS`].
    #[error("{0} secrets are more than the {MAX_SECRETS} that are allowed")]
    Count(usize),
    /// Two secrets have one name.
    #[error("the secret `{0}` is declared twice: give each its own name")]
    NameTwice(EnclaveName),
    /// Nothing says where it comes from, or two keys do.
    #[error(
        "a secret comes from one place: write `kms = {{ ciphertext = \"BASE64\" }}`, with one of `file`, `ssm`, `secretsmanager` and `s3` instead of `ciphertext` if it is not here, or `sealed = {{ sender = \"operator.pem\" }}`"
    )]
    Origin,
    /// What only KMS's ciphertexts have.
    #[error("`{0}` is that of a ciphertext of KMS's, and this secret is sealed: remove it")]
    OfKms(&'static str),
    /// More places than one for a ciphertext, or none.
    #[error(
        "kms needs one place of the ciphertext: write one of `ciphertext`, `file`, `ssm`, `secretsmanager` and `s3`, as in `kms = {{ file = \"password.kms\" }}`"
    )]
    Place,
    /// It would not be delivered.
    #[error(
        "the workload would not get the secret: write `file = \"{SECRETS_FOLDER}/NAME\"`, `env = \"NAME\"` or `api = true`, or several of them"
    )]
    NoDelivery,
    /// Two secrets go to one file.
    #[error("the file `{0}` is another secret's, too: give each its own")]
    FileTwice(SecretPath),
    /// Two secrets go to one variable.
    #[error("the environment variable `{}` is another secret's, too: give each its own", &**.0)]
    VariableTwice(VariableName),
    /// A variable that the workload's environment has from elsewhere.
    #[error("the environment variable `{name}` is set by {by}: give the secret another `env`")]
    VariableTaken {
        /// The variable.
        name: String,
        /// What sets it.
        by: &'static str,
    },
    /// A mode of no file.
    #[error("mode is that of `file`, which is not given: add `file`, or remove `mode`")]
    ModeAlone,
    /// Nothing outside the image could change.
    #[error(
        "refresh looks for another ciphertext where it is stored, and this one is part of the image: use `ssm`, `secretsmanager` or `s3`, or remove `refresh`"
    )]
    RefreshOfImage,
    /// Both things that may follow a change, or none.
    #[error(
        "on_change needs to say what follows: write one of `signal = \"SIGHUP\"` and `command = [\"PROGRAM\", \"ARGUMENT\"]`"
    )]
    OnChange,
    /// A change is for a workload that is not there.
    #[error("on_change is for the workload `{0}`, which is not there: name one of [[workload]]")]
    ChangeOfNobody(WorkloadName),
    /// A change may be for any of several workloads.
    #[error(
        "on_change has to say which workload it is for, as there are several: add `workload = \"{0}\"`, or another one"
    )]
    ChangeOfAny(WorkloadName),
    /// A change is for a workload that has ended by then.
    #[error(
        "on_change is for the workload `{0}`, which is a batch and runs once: name one that goes on"
    )]
    ChangeOfBatch(WorkloadName),
    /// Nobody can look for a sealed secret.
    #[error(
        "refresh looks for another ciphertext, and this secret is sealed: remove `refresh`; a new value is sealed to the next start of the enclave"
    )]
    RefreshOfSealed,
    /// Shorter than is allowed.
    #[error("refresh of {0} is too often: write at least `1s`")]
    RefreshTooOften(Interval),
    /// Nothing changes while the workload runs.
    #[error(
        "on_change would never happen: add `refresh`, as in `refresh = \"10m\"`, or, where the secret is sealed, `on_failure = \"continue\"`, so that it may come while the workload runs; or remove `on_change`"
    )]
    NoChange,
    /// Nothing waits.
    #[error(
        "`{0}` is for secrets that the workload's start waits for, and a sealed one with `api` alone is not: the workload asks the API for it; remove `{0}`"
    )]
    ForApi(&'static str),
    /// A wait for something else.
    #[error(
        "`wait` is for sealed secrets: nobody puts one of KMS's, which is opened when the enclave starts; remove it"
    )]
    WaitForKms,
    /// Measured without a wait.
    #[error("the sealed secret is delivered at the workload's start, and has no `wait`")]
    NoWait,
    /// What has the ciphertext cannot be reached.
    #[error(
        "{place} is out of reach: write `aws_services = [\"{service}\"]` in [network], or name the service's host in `egress`, as in `egress = [\"{}:443\"]`",
        service.host("eu-central-1", aws_endpoint::Variant::default())
    )]
    OutOfReach {
        /// Where the ciphertext is.
        place: String,
        /// The service.
        service: Service,
    },
    /// Nothing opens it.
    #[error(
        "the secret is KMS's to decrypt, and nothing says which KMS: add a table [kms], as in `endpoint = \"https://kms.eu-central-1.amazonaws.com\"`"
    )]
    NoKms,
    /// Not base64.
    #[error(
        "the ciphertext is not base64: write the `CiphertextBlob` that `aws kms encrypt` prints, without spaces and line ends"
    )]
    Base64,
    /// Nothing, or more than KMS takes.
    #[error(
        "a ciphertext of {0} bytes cannot be KMS's, which is one of 1 to {MAX_CIPHERTEXT_BYTES} bytes"
    )]
    CiphertextSize(usize),
    /// No name of a parameter or a secret.
    #[error(
        "`{0}` is not the name of a stored ciphertext: write the name or the ARN, at most 2048 visible characters without spaces"
    )]
    StoredName(String),
    /// Not an object.
    #[error("s3: {0}")]
    S3(String),
    /// Not an ARN of a key.
    #[error(
        "`{0}` is not the ARN of a key: write what KMS says that it used, as in `arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab`; an alias is not told by KMS"
    )]
    KeyArn(String),
    /// An encryption context with an empty name, or more than fits.
    #[error("encryption_context has names that are not empty, and at most {0} bytes in all")]
    Context(usize),
    /// A file elsewhere.
    #[error(
        "`{0}` is not a place for a secret: write `{SECRETS_FOLDER}/NAME` with letters, digits, `.`, `_` and `-`, no dot first, and at most 254 of them"
    )]
    Path(String),
    /// Another mode.
    #[error(
        "mode `{0}` is not one of a secret: write `0400`, `0440` or `0444`, because nobody writes to the file or executes it"
    )]
    Mode(String),
    /// No name of a variable.
    #[error(
        "`{0}` is not a name for a secret's environment variable: use 1 to 255 letters, digits and underscores, and no digit first"
    )]
    Variable(String),
}
