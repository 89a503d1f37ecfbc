//! Calls to KMS that an init has made, counted by what was called and what came of it.
//! Names of both are from closed sets: whoever reads the counts learns nothing of what a
//! workload or KMS has written.

use minicbor::{Decode, Encode};

/// Most entries of a report: every operation with every outcome.
pub const MAX_CALLS: usize = Operation::ALL.len() * Outcome::ALL.len();

/// Calls of one operation that came to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Calls {
    /// What was called.
    #[n(0)]
    pub operation: Operation,
    /// What came of it.
    #[n(1)]
    pub outcome: Outcome,
    /// How many there were.
    #[n(2)]
    pub count: u64,
}

/// An operation of KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Operation {
    /// `Decrypt`.
    #[n(0)]
    Decrypt,
    /// `GenerateDataKey`.
    #[n(1)]
    GenerateDataKey,
    /// `GenerateDataKeyPair`.
    #[n(2)]
    GenerateDataKeyPair,
    /// `GenerateRandom`.
    #[n(3)]
    GenerateRandom,
    /// `DeriveSharedSecret`.
    #[n(4)]
    DeriveSharedSecret,
    /// Any other, which is passed on as it is.
    #[n(5)]
    Other,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Outcome {
    /// KMS answered it.
    #[n(0)]
    Answered,
    /// KMS refused it: the key's policy, or IAM's, does not allow it.
    #[n(1)]
    AccessDenied,
    /// KMS refused it: too many calls.
    #[n(2)]
    Throttled,
    /// KMS refused the credentials, or the time of the signature.
    #[n(3)]
    CredentialsRefused,
    /// KMS refused the ciphertext, or the key that was named for it.
    #[n(4)]
    CiphertextRefused,
    /// KMS refused it otherwise.
    #[n(5)]
    Refused,
    /// KMS failed: a status from 500 on.
    #[n(6)]
    Failed,
    /// There was no connection, no TLS or no whole answer.
    #[n(7)]
    Unreachable,
    /// The answer is not for this enclave, or of another key.
    #[n(8)]
    NotOurs,
    /// There were no credentials.
    #[n(9)]
    NoCredentials,
    /// Too many other calls were being made.
    #[n(10)]
    Busy,
    /// The request was none that KMS takes, or no document could be made for it.
    #[n(11)]
    NotMade,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Decrypt,
        Self::GenerateDataKey,
        Self::GenerateDataKeyPair,
        Self::GenerateRandom,
        Self::DeriveSharedSecret,
        Self::Other,
    ];

    /// The operation of this name at KMS.
    pub fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.unwrap_or(Self::Other)
    }

    /// Its name, as KMS has it and as in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decrypt => "Decrypt",
            Self::GenerateDataKey => "GenerateDataKey",
            Self::GenerateDataKeyPair => "GenerateDataKeyPair",
            Self::GenerateRandom => "GenerateRandom",
            Self::DeriveSharedSecret => "DeriveSharedSecret",
            Self::Other => "other",
        }
    }
}

impl Outcome {
    /// All of them, the good one first.
    pub const ALL: [Self; 12] = [
        Self::Answered,
        Self::AccessDenied,
        Self::Throttled,
        Self::CredentialsRefused,
        Self::CiphertextRefused,
        Self::Refused,
        Self::Failed,
        Self::Unreachable,
        Self::NotOurs,
        Self::NoCredentials,
        Self::Busy,
        Self::NotMade,
    ];

    /// Its name, as in `status` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::AccessDenied => "access-denied",
            Self::Throttled => "throttled",
            Self::CredentialsRefused => "credentials-refused",
            Self::CiphertextRefused => "ciphertext-refused",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::NotOurs => "not-ours",
            Self::NoCredentials => "no-credentials",
            Self::Busy => "busy",
            Self::NotMade => "not-made",
        }
    }
}
