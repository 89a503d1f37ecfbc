//! Why a text is no key policy.

use plain_text::plain_start;
use thiserror::Error;

/// Characters of a foreign text that an error shows.
const MAX_SHOWN: usize = 128;

/// Why a text is no key policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct PolicyError {
    /// The element, such as `Statement[1].Condition.StringEquals`.
    pub place: String,
    /// What is wrong with it, and what to write instead.
    pub problem: Problem,
}

/// What is wrong with an element of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// More bytes than KMS takes.
    #[error("the policy has {bytes} bytes, and KMS takes no more than {limit}")]
    TooLong {
        /// The policy's bytes.
        bytes: usize,
        /// KMS's limit.
        limit: usize,
    },
    /// A character that KMS does not take.
    #[error("the character {0:?} is not allowed in key policies")]
    Character(char),
    /// No JSON, or a name twice in an object.
    #[error("{0}")]
    Json(String),
    /// Another type of value.
    #[error("here must be {0}")]
    Expected(&'static str),
    /// An element that the policy language does not have here.
    #[error("there is no element {0:?} here; names are case-sensitive")]
    UnknownElement(String),
    /// An element that has to be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Two elements that exclude each other.
    #[error("{0} and {1} exclude each other")]
    Both(&'static str, &'static str),
    /// An empty list.
    #[error("the list is empty; leave the element out, or name something")]
    Empty,
    /// A version of the policy language.
    #[error("the version is 2012-10-17 (or 2008-10-17), not {0:?}")]
    Version(String),
    /// An effect.
    #[error("the effect is Allow or Deny, not {0:?}")]
    Effect(String),
    /// A statement's name that another statement has.
    #[error("another statement has the Sid {0:?}")]
    SidTwice(String),
    /// A principal that KMS does not know.
    #[error(
        "{0:?} is no principal: here can be `*`, an account's number, or the ARN of an account, user, role or session, without wildcards"
    )]
    Principal(String),
    /// A service principal that is none.
    #[error("{0:?} is no service principal, such as logs.eu-west-1.amazonaws.com")]
    Service(String),
    /// An action that is none of KMS.
    #[error("{0:?} is no action of KMS, such as kms:Decrypt or kms:Describe*")]
    Action(String),
    /// A resource that is no ARN.
    #[error("{0:?} is no resource: in a key policy, write `*`, which is the key itself")]
    Resource(String),
    /// A condition operator that does not exist.
    #[error("there is no condition operator {0:?}")]
    Operator(String),
    /// A condition key that does not exist.
    #[error(
        "there is no condition key {0:?}; those for enclaves are kms:RecipientAttestation:ImageSha384 and kms:RecipientAttestation:PCR0 to PCR31"
    )]
    ConditionKey(String),
    /// A condition key twice, in whatever case.
    #[error("the condition key {0:?} is there twice; case does not distinguish condition keys")]
    ConditionKeyTwice(String),
    /// A value that the operator cannot compare with.
    #[error("{value:?} is no {kind}")]
    Value {
        /// The value.
        value: String,
        /// What the operator compares.
        kind: &'static str,
    },
    /// A policy variable that is none.
    #[error("{0:?} has a policy variable that is not closed or not known")]
    Variable(String),
}

/// Where in a policy something is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// The policy itself.
    Root,
    /// A named element of another.
    Element(&'a Place<'a>, &'a str),
    /// A member of a list.
    Member(&'a Place<'a>, usize),
}

impl Place<'_> {
    pub(crate) fn error(&self, problem: Problem) -> PolicyError {
        PolicyError {
            place: self.text(),
            problem,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Root => "the policy".to_owned(),
            Self::Element(Place::Root, name) => plain_start(name, MAX_SHOWN),
            Self::Element(parent, name) => {
                format!("{}.{}", parent.text(), plain_start(name, MAX_SHOWN))
            }
            Self::Member(parent, index) => format!("{}[{index}]", parent.text()),
        }
    }
}

/// What is shown of a foreign text.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}
