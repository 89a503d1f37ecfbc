//! The rules that a result can break.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

/// Longest text that an error repeats, in characters.
const MAX_SHOWN: usize = 200;

/// A rule of results. Its name is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResultRule {
    /// A signed result is three parts in base64url, of a limited size.
    TokenForm,
    /// The header is a JSON object without duplicate names.
    HeaderForm,
    /// The algorithm is the key's.
    HeaderAlgorithm,
    /// The type is that of a signed EAT.
    HeaderType,
    /// No extension is critical: this verifier knows none.
    HeaderCritical,
    /// The key is one of the key set.
    HeaderKey,
    /// The key has signed the result.
    Signature,
    /// The claims are a JSON object without duplicate names, and those of a result.
    ClaimsForm,
    /// The claims have the meaning of this version of EAR.
    ClaimsProfile,
    /// The issuer is the expected one.
    Issuer,
    /// The result is for everybody, not for another.
    Audience,
    /// The result was issued before now.
    IssuedAt,
    /// The result may be used already.
    NotBefore,
    /// The result has not expired.
    Expires,
    /// The result is not older than expected.
    Age,
    /// The result is for the expected nonce.
    Nonce,
    /// The result shows by enough that the document is new.
    Freshness,
    /// The document is of the expected kind.
    Profile,
    /// The document was accepted, and affirmed.
    Status,
    /// No claim of the trustworthiness vector says less than the status.
    TrustVector,
    /// The hardware is AWS's.
    Hardware,
    /// The policy is an expected one.
    Policy,
    /// The image is an expected one.
    Image,
    /// The registers have expected values.
    Pcr,
    /// The enclave is the expected one.
    ModuleId,
}

impl ResultRule {
    /// Every rule, in the order in which they are checked.
    pub const ALL: [Self; 25] = [
        Self::TokenForm,
        Self::HeaderForm,
        Self::HeaderCritical,
        Self::HeaderType,
        Self::HeaderAlgorithm,
        Self::HeaderKey,
        Self::Signature,
        Self::ClaimsForm,
        Self::ClaimsProfile,
        Self::Issuer,
        Self::Audience,
        Self::IssuedAt,
        Self::NotBefore,
        Self::Expires,
        Self::Age,
        Self::Nonce,
        Self::Profile,
        Self::Status,
        Self::TrustVector,
        Self::Hardware,
        Self::Freshness,
        Self::Policy,
        Self::Image,
        Self::Pcr,
        Self::ModuleId,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokenForm => "token.form",
            Self::HeaderForm => "header.form",
            Self::HeaderAlgorithm => "header.algorithm",
            Self::HeaderType => "header.type",
            Self::HeaderCritical => "header.critical",
            Self::HeaderKey => "header.key",
            Self::Signature => "signature",
            Self::ClaimsForm => "claims.form",
            Self::ClaimsProfile => "claims.profile",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::IssuedAt => "time.issued",
            Self::NotBefore => "time.not-before",
            Self::Expires => "time.expires",
            Self::Age => "time.age",
            Self::Nonce => "nonce",
            Self::Freshness => "freshness",
            Self::Profile => "profile",
            Self::Status => "status",
            Self::TrustVector => "trust-vector",
            Self::Hardware => "hardware",
            Self::Policy => "policy",
            Self::Image => "image",
            Self::Pcr => "pcr",
            Self::ModuleId => "module-id",
        }
    }
}

impl fmt::Display for ResultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for ResultRule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Why a result was refused: the first rule that it broke, and how.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[error("{rule}: {reason}")]
#[non_exhaustive]
pub struct ResultError {
    /// The rule.
    pub rule: ResultRule,
    /// How it was broken, in one line.
    pub reason: String,
}

impl ResultError {
    pub(crate) fn new(rule: ResultRule, reason: impl Into<String>) -> Self {
        Self {
            rule,
            reason: reason.into(),
        }
    }
}

/// A text of a token's or of a key set's, for an error: they are a stranger's.
pub(crate) fn shown(text: &str) -> String {
    plain_text::plain_start(text, MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_of_rules_are_one_each() {
        let names: HashSet<_> = ResultRule::ALL.map(ResultRule::name).into();
        assert_eq!(names.len(), ResultRule::ALL.len());
    }
}
