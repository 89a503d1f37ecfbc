//! Why a request is refused: in one form for all resources, with a code for programs.

use hyper::StatusCode;
use nsm::{NsmError, Refusal};
use serde_json::json;

use super::Answer;
use crate::family::Missing as MissingKey;
use crate::identity::{IdentityError, NamedOtherwise};
use crate::kms::KmsError;
use crate::secrets::Missing as MissingSecret;

/// What a refusal is called. `docs/local-api.json` lists the codes of each operation; they
/// stay as they are, since workloads compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    UnknownResource,
    CallerRefused,
    InvalidRequest,
    BodyTimeout,
    BodyTooLarge,
    InitFailed,
    ModuleRefused,
    ModuleFailed,
    ReservedUserData,
    IdentityUnset,
    IdentityTaken,
    IdentityNotMade,
    NoFamily,
    NoSeed,
    UnknownSecret,
    SecretNotByApi,
    SecretNotPut,
    SecretNotOpened,
    UnknownRegister,
    RegisterClosed,
    RegisterLocked,
    UnknownPeer,
    NoTime,
    NotifyOff,
    EarlierRun,
    SpeakerUnknown,
    NoKms,
    KmsRefused,
    KmsUnreachable,
    KmsAnswer,
}

impl Code {
    #[cfg(test)]
    const ALL: [Self; 30] = [
        Self::UnknownResource,
        Self::CallerRefused,
        Self::InvalidRequest,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::InitFailed,
        Self::ModuleRefused,
        Self::ModuleFailed,
        Self::ReservedUserData,
        Self::IdentityUnset,
        Self::IdentityTaken,
        Self::IdentityNotMade,
        Self::NoFamily,
        Self::NoSeed,
        Self::UnknownSecret,
        Self::SecretNotByApi,
        Self::SecretNotPut,
        Self::SecretNotOpened,
        Self::UnknownRegister,
        Self::RegisterClosed,
        Self::RegisterLocked,
        Self::UnknownPeer,
        Self::NoTime,
        Self::NotifyOff,
        Self::EarlierRun,
        Self::SpeakerUnknown,
        Self::NoKms,
        Self::KmsRefused,
        Self::KmsUnreachable,
        Self::KmsAnswer,
    ];

    /// Its name, and the status that it comes with.
    const fn kind(self) -> (&'static str, u16) {
        match self {
            Self::UnknownResource => ("unknown-resource", 404),
            Self::CallerRefused => ("caller-refused", 403),
            Self::InvalidRequest => ("invalid-request", 400),
            Self::BodyTimeout => ("body-timeout", 408),
            Self::BodyTooLarge => ("body-too-large", 413),
            Self::InitFailed => ("init-failed", 500),
            Self::ModuleRefused => ("module-refused", 400),
            Self::ModuleFailed => ("module-failed", 502),
            Self::ReservedUserData => ("reserved-user-data", 400),
            Self::IdentityUnset => ("identity-unset", 404),
            Self::IdentityTaken => ("identity-taken", 409),
            Self::IdentityNotMade => ("identity-not-made", 409),
            Self::NoFamily => ("no-family", 404),
            Self::NoSeed => ("no-seed", 404),
            Self::UnknownSecret => ("unknown-secret", 404),
            Self::SecretNotByApi => ("secret-not-by-api", 404),
            Self::SecretNotPut => ("secret-not-put", 404),
            Self::SecretNotOpened => ("secret-not-opened", 404),
            Self::UnknownRegister => ("unknown-register", 404),
            Self::RegisterClosed => ("register-closed", 403),
            Self::RegisterLocked => ("register-locked", 409),
            Self::UnknownPeer => ("unknown-peer", 404),
            Self::NoTime => ("no-time", 503),
            Self::NotifyOff => ("notify-off", 409),
            Self::EarlierRun => ("earlier-run", 409),
            Self::SpeakerUnknown => ("speaker-unknown", 409),
            Self::NoKms => ("no-kms", 404),
            Self::KmsRefused => ("kms-refused", 400),
            Self::KmsUnreachable => ("kms-unreachable", 503),
            Self::KmsAnswer => ("kms-answer", 502),
        }
    }

    /// What to do about it.
    const fn advice(self) -> &'static str {
        match self {
            Self::UnknownResource => "use a method and path of the API's description",
            Self::CallerRefused => "call the API directly, with the header `Enclave-Api: 1`",
            Self::InvalidRequest => "correct the request",
            Self::BodyTimeout => "send the request again, without pauses",
            Self::BodyTooLarge => "send less at a time",
            Self::InitFailed => "try again; the enclave's log may say why",
            Self::ModuleRefused => "change what the request asks of the security module",
            Self::ModuleFailed => "try again",
            Self::ReservedUserData => "begin `user_data` with other bytes than `enclave-purpose:`",
            Self::IdentityUnset => "register a key, or have one made",
            Self::IdentityTaken => {
                "use the key that is registered; it stays until the enclave ends"
            }
            Self::IdentityNotMade => "have the init make the key first",
            Self::NoFamily => "add the table `[keys]` to the manifest",
            Self::NoSeed => "wait until the family's seed is there",
            Self::UnknownSecret => "declare the secret in `[[secrets]]` of the manifest",
            Self::SecretNotByApi => "add `api = true` to the secret in the manifest",
            Self::SecretNotPut => {
                "seal the secret to this boot and put it, or ask again with `wait`"
            }
            Self::SecretNotOpened => "look into the enclave's log for the reason",
            Self::UnknownRegister => "give a number from 0 to 31",
            Self::RegisterClosed => "name the register in `open_registers` of the manifest",
            Self::RegisterLocked => {
                "use another register: this one stays locked until the enclave ends"
            }
            Self::UnknownPeer => "add the peer to `[[attestation.peers]]` of the manifest",
            Self::NoTime => "wait until `GET /v1/time` has a time",
            Self::NotifyOff => "set `health = { notify = true }` in the manifest",
            Self::EarlierRun => {
                "send it again, on a new connection, if the workload still means it"
            }
            Self::SpeakerUnknown => {
                "send it to the Unix socket `/run/enclave/api.sock`, of which each workload has its own"
            }
            Self::NoKms => "add the table `[kms]` to the manifest",
            Self::KmsRefused => "do what KMS's own words ask for",
            Self::KmsUnreachable => "try again; if it stays so, look at the agent and at KMS",
            Self::KmsAnswer => "try again; if it stays so, check that the endpoint is AWS KMS",
        }
    }

    fn status(self) -> StatusCode {
        StatusCode::from_u16(self.kind().1).expect("the table has statuses only")
    }
}

/// Why a request is not answered, for the client: `{"code": …, "error": …, "advice": …}`.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            reason: reason.into(),
        }
    }

    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, reason)
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        let code = failure.code;
        Self::json(
            failure.status,
            &json!({
                "code": code.kind().0,
                "error": failure.reason,
                "advice": code.advice(),
            }),
        )
    }
}

impl From<NsmError> for Failure {
    fn from(error: NsmError) -> Self {
        let code = match error {
            NsmError::Refused(
                Refusal::InvalidArgument
                | Refusal::InvalidIndex
                | Refusal::ReadOnlyIndex
                | Refusal::InvalidOperation
                | Refusal::InputTooLarge,
            ) => Code::ModuleRefused,
            // The module's own fault, whatever is asked of it.
            NsmError::Refused(
                Refusal::InvalidResponse | Refusal::BufferTooSmall | Refusal::InternalError,
            )
            | NsmError::NoDevice
            | NsmError::Socket(_)
            | NsmError::Message(_)
            | NsmError::Unexpected => Code::ModuleFailed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let code = match error {
            IdentityError::Registered => Code::IdentityTaken,
            IdentityError::NotMade => Code::IdentityNotMade,
            IdentityError::Failed => Code::InitFailed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NamedOtherwise> for Failure {
    fn from(error: NamedOtherwise) -> Self {
        Self::new(Code::IdentityTaken, error.to_string())
    }
}

impl From<MissingKey> for Failure {
    fn from(missing: MissingKey) -> Self {
        let code = match missing {
            MissingKey::NoFamily => Code::NoFamily,
            MissingKey::NotYet => Code::NoSeed,
        };
        Self::new(code, missing.to_string())
    }
}

impl From<MissingSecret> for Failure {
    fn from(missing: MissingSecret) -> Self {
        let code = match missing {
            MissingSecret::Undeclared => Code::UnknownSecret,
            MissingSecret::NotByApi => Code::SecretNotByApi,
            MissingSecret::NotPut => Code::SecretNotPut,
            MissingSecret::NotOpened => Code::SecretNotOpened,
        };
        Self::new(code, missing.to_string())
    }
}

impl From<KmsError> for Failure {
    fn from(error: KmsError) -> Self {
        let status = error.kind().0;
        let code = match (&error, status) {
            (KmsError::Refused(_), _) => Code::KmsRefused,
            (_, StatusCode::BAD_REQUEST) => Code::InvalidRequest,
            (_, StatusCode::SERVICE_UNAVAILABLE) => Code::KmsUnreachable,
            _ => Code::KmsAnswer,
        };
        // KMS's own, where it has one.
        Self {
            status,
            ..Self::new(code, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    fn description() -> Value {
        let text = std::fs::read_to_string("../docs/local-api.json").unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The codes that a schema of refusals names.
    fn codes(schema: &Value) -> impl Iterator<Item = &str> {
        let codes = schema["properties"]["code"]["enum"].as_array();
        codes.into_iter().flatten().filter_map(Value::as_str)
    }

    #[test]
    fn local_api_codes_are_described_with_their_advice() {
        let description = description();
        let described = &description["components"]["schemas"]["Error"]["properties"]["code"];
        let described: BTreeMap<_, _> = described["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|code| {
                let text = |name: &str| code[name].as_str().unwrap().to_owned();
                (text("const"), text("description"))
            })
            .collect();
        let known = Code::ALL.map(|code| (code.kind().0.to_owned(), code));
        let names: BTreeSet<_> = known.iter().map(|(name, _)| name).collect();
        assert_eq!(described.keys().collect::<BTreeSet<_>>(), names);
        for (name, code) in &known {
            let advice = code.advice();
            let meaning = &described[name];
            assert!(
                meaning.ends_with(&format!("To do: {advice}.")),
                "{name}: {meaning}"
            );
        }
    }

    #[test]
    fn local_api_codes_are_in_the_manual_as_in_the_description() {
        let manual = std::fs::read_to_string("../docs/local-api.md").unwrap();
        let rows: Vec<_> = manual
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter(|row| row.split(" | ").count() == 4)
            .collect();
        let description = description();
        let described = &description["components"]["schemas"]["Error"]["properties"]["code"];
        let described = described["oneOf"].as_array().unwrap();
        let wanted: Vec<_> = Code::ALL
            .iter()
            .zip(described)
            .map(|(code, described)| {
                let (name, status) = code.kind();
                let status = if *code == Code::KmsRefused {
                    "KMS's".to_owned()
                } else {
                    status.to_string()
                };
                let text = described["description"].as_str().unwrap();
                let meaning = text.split(". To do: ").next().unwrap();
                (
                    format!("{name}` | {status} |"),
                    meaning.to_lowercase(),
                    code.advice(),
                )
            })
            .collect();
        assert_eq!(rows.len(), wanted.len());
        for (row, (begin, meaning, advice)) in rows.iter().zip(wanted) {
            assert!(row.starts_with(&begin), "{row}: {begin}");
            assert!(row.to_lowercase().contains(&meaning), "{row}: {meaning}");
            assert!(row.ends_with(&format!("| {advice} |")), "{row}: {advice}");
        }
    }

    #[test]
    fn local_api_codes_come_with_the_statuses_of_the_description() {
        let description = description();
        let mut named = BTreeSet::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let response = match response["$ref"].as_str() {
                        Some(name) => description.pointer(&name[1..]).unwrap(),
                        None => response,
                    };
                    let schema = &response["content"]["application/json"]["schema"];
                    for name in codes(schema) {
                        let code = Code::ALL.iter().find(|code| code.kind().0 == name);
                        let code = code.unwrap_or_else(|| panic!("{name} is unknown"));
                        let own = code.kind().1.to_string();
                        // KMS has its own.
                        let fits = *status == own || name == "kms-refused";
                        assert!(fits, "{method} {path}: {status} with {name}");
                        named.insert(name.to_owned());
                    }
                    let refuses = !status.starts_with('2');
                    let is_named = codes(schema).next().is_some();
                    assert_eq!(refuses, is_named, "{method} {path}: {status} has no codes");
                }
            }
        }
        // What no path of the description can be answered with.
        named.insert("unknown-resource".to_owned());
        let known = Code::ALL.map(|code| code.kind().0.to_owned());
        assert_eq!(named, BTreeSet::from(known));
    }
}
