//! Who calls, and whom a policy names.

use std::fmt;
use std::str::FromStr;

use measurements::RoleArn;
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::arn::{Account, Arn, is_account};
use crate::error::{Place, PolicyError, Problem, shown};
use crate::json::Json;

/// What the id of a user or a role begins with (IAM, "IAM identifiers").
const ID_PREFIXES: [&str; 2] = ["AIDA", "AROA"];
/// The shortest and the longest such id.
const ID_LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;

/// Who calls KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    kind: Kind,
    /// The user's, role's or account's ARN, or the service's name.
    name: String,
    account: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Root,
    User,
    /// With the session's ARN.
    Role(Option<String>),
    FederatedUser,
    Service,
}

/// A text that names no caller.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no caller: give the ARN of a user, a role, a session or an account's root user, or a service such as logs.eu-west-1.amazonaws.com"
)]
pub struct CallerError(String);

impl Caller {
    /// A session of a role.
    pub fn session(role: &RoleArn, name: &str) -> Self {
        let arn = Arn::identity(role.as_str());
        let session = arn.and_then(|arn| {
            let role = arn.resource.rsplit('/').next()?;
            Some(format!(
                "arn:{}:sts::{}:assumed-role/{role}/{name}",
                arn.partition, arn.account
            ))
        });
        Self {
            kind: Kind::Role(session),
            name: role.as_str().to_owned(),
            account: arn.map(|arn| arn.account.to_owned()),
        }
    }

    /// The account; services have none.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The ARN of the user, the role (of a session, too) or the account's root user;
    /// services have none.
    pub fn arn(&self) -> Option<&str> {
        (self.kind != Kind::Service).then_some(self.name.as_str())
    }

    pub(crate) fn is_service(&self) -> bool {
        self.kind == Kind::Service
    }

    fn is_called(&self, name: &str) -> bool {
        let session = match &self.kind {
            Kind::Role(session) => session.as_deref(),
            _ => None,
        };
        self.name == name || session == Some(name)
    }
}

/// A session, as `aws sts get-caller-identity` shows it, is taken for one of a role
/// without a path.
impl FromStr for Caller {
    type Err = CallerError;

    fn from_str(text: &str) -> Result<Self, CallerError> {
        let refused = || CallerError(shown(text));
        if is_service(text) {
            return Ok(Self {
                kind: Kind::Service,
                name: text.to_owned(),
                account: None,
            });
        }
        let arn = Arn::identity(text).ok_or_else(refused)?;
        let mut name = text.to_owned();
        let kind = match (arn.service, arn.resource.split_once('/')) {
            ("iam", None) if arn.resource == "root" => Kind::Root,
            ("iam", Some(("user", _))) => Kind::User,
            ("iam", Some(("role", _))) => Kind::Role(None),
            ("sts", Some(("federated-user", _))) => Kind::FederatedUser,
            ("sts", Some(("assumed-role", session))) => {
                let (role, _) = session.split_once('/').ok_or_else(refused)?;
                name = format!("arn:{}:iam::{}:role/{role}", arn.partition, arn.account);
                Kind::Role(Some(text.to_owned()))
            }
            _ => return Err(refused()),
        };
        Ok(Self {
            kind,
            name,
            account: Some(arn.account.to_owned()),
        })
    }
}

impl From<&RoleArn> for Caller {
    fn from(role: &RoleArn) -> Self {
        Self {
            kind: Kind::Role(None),
            name: role.as_str().to_owned(),
            account: Arn::identity(role.as_str()).map(|arn| arn.account.to_owned()),
        }
    }
}

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Principal {
    /// Everybody, in every account.
    Everybody,
    /// An account: in a statement that allows, whoever the account's IAM policies allow it
    /// to; in one that denies, everybody in it.
    Account(Account),
    /// A user, a role, or a session, by ARN.
    Identity(String),
    /// An AWS service.
    Service(String),
    /// Whoever an identity provider vouches for.
    Federated(String),
    /// A user or a role that is no more: IAM puts its id in the place of its ARN.
    Deleted(String),
}

/// In what way a statement is about a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    /// With its account.
    ByAccount,
    /// Itself, or with everybody.
    Itself,
}

impl Principal {
    pub(crate) fn names(&self, caller: &Caller) -> Option<Named> {
        match self {
            Self::Everybody => Some(Named::Itself),
            Self::Account(account) if caller.account() == Some(account.as_str()) => {
                if caller.kind == Kind::Root {
                    Some(Named::Itself)
                } else {
                    Some(Named::ByAccount)
                }
            }
            Self::Identity(name) | Self::Service(name) if caller.is_called(name) => {
                Some(Named::Itself)
            }
            _ => None,
        }
    }

    /// Whether the statement is for certain about everyone whom `other` is about.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everybody, _) => true,
            (Self::Account(account), Self::Identity(name)) => {
                Arn::identity(name).is_some_and(|arn| arn.account == account.as_str())
            }
            (own, other) => own == other,
        }
    }

    /// Whether both may be about the same caller.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.includes(other) || other.includes(self)
            // A session, and its role, whose path the session's name leaves out.
            || matches!((self, other), (Self::Identity(a), Self::Identity(b))
                if a.contains(":assumed-role/") != b.contains(":assumed-role/"))
    }

    /// The account of a user, a role or a session.
    pub(crate) fn account(&self) -> Option<&str> {
        match self {
            Self::Account(account) => Some(account.as_str()),
            Self::Identity(name) => Arn::identity(name).map(|arn| arn.account),
            _ => None,
        }
    }

    fn of_aws(text: &str) -> Result<Self, Problem> {
        let refused = || Problem::Principal(shown(text));
        if text == "*" {
            return Ok(Self::Everybody);
        }
        if is_account(text) {
            return text.parse().map(Self::Account).map_err(|_| refused());
        }
        let is_id = ID_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
            && ID_LENGTHS.contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if is_id {
            return Ok(Self::Deleted(text.to_owned()));
        }
        let arn = Arn::identity(text).ok_or_else(refused)?;
        match (arn.service, arn.resource.split_once('/')) {
            ("iam", None) if arn.resource == "root" => arn
                .account
                .parse()
                .map(Self::Account)
                .map_err(|_| refused()),
            ("iam", Some(("user" | "role", name)))
            | ("sts", Some(("assumed-role" | "federated-user", name)))
                if !name.is_empty() =>
            {
                Ok(Self::Identity(text.to_owned()))
            }
            _ => Err(refused()),
        }
    }
}

impl From<&RoleArn> for Principal {
    fn from(role: &RoleArn) -> Self {
        Self::Identity(role.as_str().to_owned())
    }
}

/// An account's number or the ARN of an account, a user, a role or a session.
impl FromStr for Principal {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if is_service(text) {
            Ok(Self::Service(text.to_owned()))
        } else {
            Self::of_aws(text)
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Account(account) => write!(f, "{account}"),
            Self::Identity(name)
            | Self::Service(name)
            | Self::Federated(name)
            | Self::Deleted(name) => f.write_str(name),
        }
    }
}

impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The value of `Principal` or `NotPrincipal`.
pub(crate) fn principals(json: &Json, place: &Place<'_>) -> Result<Vec<Principal>, PolicyError> {
    if let Json::Text(text) = json {
        return if text == "*" {
            Ok(vec![Principal::Everybody])
        } else {
            Err(place.error(Problem::Principal(shown(text))))
        };
    }
    let mut principals = Vec::new();
    for (kind, names) in json.object(place)? {
        let place = Place::Element(place, kind);
        let read: fn(&str) -> Result<Principal, Problem> = match kind.as_str() {
            "AWS" => Principal::of_aws,
            "Service" => |text| {
                if is_service(text) {
                    Ok(Principal::Service(text.to_owned()))
                } else {
                    Err(Problem::Service(shown(text)))
                }
            },
            "Federated" => |text| {
                if text.is_empty() || text.contains(['*', '?']) {
                    Err(Problem::Principal(shown(text)))
                } else {
                    Ok(Principal::Federated(text.to_owned()))
                }
            },
            _ => return Err(place.error(Problem::UnknownElement(shown(kind)))),
        };
        for name in names.texts(&place)? {
            principals.push(read(name).map_err(|problem| place.error(problem))?);
        }
    }
    if principals.is_empty() {
        return Err(place.error(Problem::Empty));
    }
    Ok(principals)
}

/// Whether the text is a service principal.
fn is_service(text: &str) -> bool {
    let suffixes = [".amazonaws.com", ".amazonaws.com.cn", ".aws.internal"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    text.bytes().all(plain)
        && suffixes.iter().any(|suffix| {
            text.strip_suffix(suffix)
                .is_some_and(|name| !name.is_empty())
        })
}
