//! A key policy.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::context::Values;
use crate::error::{Place, PolicyError, Problem, shown};
use crate::json::Json;
use crate::principal::Named;
use crate::request::Request;
use crate::statement::{Effect, Statement};
use crate::truth::Truth;

/// Largest policy in bytes (AWS KMS, "Resource quotas").
pub const MAX_POLICY_BYTES: usize = 32 * 1024;
/// The version of the policy language that has variables.
pub(crate) const VERSION: &str = "2012-10-17";
/// The one without them, which a policy without a version is in.
const OLD_VERSION: &str = "2008-10-17";

/// A key policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub(crate) statements: Vec<Statement>,
}

/// A statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StatementId {
    /// Its place in the policy, from 0.
    pub index: usize,
    /// Its name, if it has one.
    pub sid: Option<String>,
}

/// What a key policy says of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A statement denies it, which nothing else can lift.
    ExplicitDeny(StatementId),
    /// A statement allows it.
    Allow(StatementId),
    /// A statement leaves it to the IAM policies of the caller's account: it names the
    /// account, or the caller is in another account than the key.
    LeftToIam(StatementId),
    /// No statement allows it. (A grant may.)
    ImplicitDeny,
}

impl Policy {
    /// What the policy says of the request: a statement that denies goes before all that
    /// allow (IAM, "Policy evaluation logic").
    ///
    /// Where AWS does not define whether a condition holds (several values of a key that its
    /// operator takes for one; `ForAnyValue:…IfExists` without the key), a statement that
    /// denies applies, and one that allows does not.
    pub fn evaluate(&self, request: &Request) -> Decision {
        let values: &Values<'_> = &|key| request.value(key);
        let key = Some(request.key.as_str());
        let applying = |effect| {
            self.statements()
                .filter(move |(_, statement)| {
                    statement.effect == effect && statement.has_action(&request.action)
                })
                .filter_map(|(index, statement)| {
                    let named = statement.names(&request.caller)?;
                    let truth = statement
                        .has_resource(key, values)
                        .min(statement.conditions_hold(values));
                    Some((index, statement, named, truth))
                })
        };
        let id = |index, statement: &Statement| StatementId {
            index,
            sid: statement.sid.clone(),
        };
        for (index, statement, _, truth) in applying(Effect::Deny) {
            if truth != Truth::No {
                return Decision::ExplicitDeny(id(index, statement));
            }
        }
        let foreign = request
            .caller
            .account()
            .is_some_and(|account| account != request.key.account());
        let mut left = None;
        for (index, statement, named, truth) in applying(Effect::Allow) {
            match (truth, named) {
                (Truth::Yes, Named::Itself) if !foreign => {
                    return Decision::Allow(id(index, statement));
                }
                (Truth::Yes, _) => left = left.or(Some(id(index, statement))),
                (Truth::No | Truth::Maybe, _) => {}
            }
        }
        left.map_or(Decision::ImplicitDeny, Decision::LeftToIam)
    }

    fn statements(&self) -> impl Iterator<Item = (usize, &Statement)> {
        self.statements.iter().enumerate()
    }

    fn read(text: &str) -> Result<Self, PolicyError> {
        let root = &Place::Root;
        if text.len() > MAX_POLICY_BYTES {
            return Err(root.error(Problem::TooLong {
                bytes: text.len(),
                limit: MAX_POLICY_BYTES,
            }));
        }
        let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}');
        if let Some(character) = text.chars().find(|c| !allowed(*c)) {
            return Err(root.error(Problem::Character(character)));
        }
        let json = Json::parse(text)?;
        let mut variables = false;
        let mut statements = None;
        for (name, value) in json.object(root)? {
            let place = Place::Element(root, name);
            match name.as_str() {
                "Version" => match value.text(&place)? {
                    VERSION => variables = true,
                    OLD_VERSION => {}
                    other => return Err(place.error(Problem::Version(shown(other)))),
                },
                "Id" => {
                    value.text(&place)?;
                }
                "Statement" => statements = Some(value),
                _ => return Err(root.error(Problem::UnknownElement(shown(name)))),
            }
        }
        let list = statements.ok_or_else(|| root.error(Problem::Missing("Statement")))?;
        let place = Place::Element(root, "Statement");
        let statements = match list {
            Json::List(list) if list.is_empty() => return Err(place.error(Problem::Empty)),
            Json::List(list) => list
                .iter()
                .enumerate()
                .map(|(index, json)| {
                    Statement::parse(json, variables, &Place::Member(&place, index))
                })
                .collect::<Result<Vec<_>, _>>()?,
            single => vec![Statement::parse(single, variables, &place)?],
        };
        let mut sids = std::collections::BTreeSet::new();
        for (index, statement) in statements.iter().enumerate() {
            if let Some(sid) = &statement.sid
                && !sids.insert(sid)
            {
                let place = Place::Member(&place, index);
                return Err(place.error(Problem::SidTwice(shown(sid))));
            }
        }
        Ok(Self { statements })
    }
}

/// Reads a policy: JSON, in the characters and up to the size that KMS takes.
impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text)
    }
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sid {
            Some(sid) => write!(f, "{sid:?}"),
            None => write!(f, "Statement[{}]", self.index),
        }
    }
}
