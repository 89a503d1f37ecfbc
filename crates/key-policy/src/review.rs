//! Who could read under a policy without being an attested enclave.

use std::fmt;

use measurements::Pcr;
use serde::Serialize;

use crate::action::Action;
use crate::condition::{Condition, WrittenCondition};
use crate::operator::Comparison;
use crate::policy::{Policy, StatementId};
use crate::principal::Principal;
use crate::scenario::{Calls, Scenario};
use crate::statement::{Effect, Statement};
use crate::truth::Truth;

/// What a policy lets whom do.
///
/// It errs on the safe side: a condition on what is not known here, such as an address, is
/// taken to hold where it allows, and not to hold where it denies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Review {
    /// How somebody could read who is no attested enclave.
    pub holes: Vec<Hole>,
    /// The statements that let attested enclaves read.
    pub attested: Vec<Attested>,
    /// Who may replace the policy, and so lift all that it says.
    pub replacing: Vec<Replacing>,
}

/// How somebody could read who is no attested enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Hole {
    /// The statement that allows it.
    pub statement: StatementId,
    /// Who could. An account stands for whom its IAM policies allow it.
    pub principals: Vec<Principal>,
    /// By which calls.
    pub actions: Vec<Action>,
    /// In which way.
    pub way: Way,
    /// What else the statement demands.
    pub conditions: Vec<WrittenCondition>,
}

/// How somebody reads without being the enclave that should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Way {
    /// The call needs no attestation document.
    WithoutAttestation,
    /// The document may be of an enclave with another image.
    AnotherImage,
    /// The document may be of an enclave in debug mode, whose registers are zero, and whose
    /// console its parent instance reads.
    DebugMode,
    /// A grant can allow what no statement that denies takes away.
    Grant,
    /// The policy can be replaced, or put aside in a copy of the key.
    AnotherPolicy,
    /// What enclaves decrypt for their seed can be made of a seed that somebody chose.
    ChosenSeed,
}

/// A statement that lets attested enclaves read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attested {
    /// The statement.
    pub statement: StatementId,
    /// Who calls.
    pub principals: Vec<Principal>,
    /// Which calls.
    pub actions: Vec<Action>,
    /// What it demands of documents.
    pub demands: Vec<WrittenCondition>,
    /// Values that are not what they should be.
    pub notes: Vec<Note>,
}

/// A value of a register that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Note {
    /// The condition key.
    pub key: String,
    /// The value.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Who may replace the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Replacing {
    /// The statement that allows it.
    pub statement: StatementId,
    /// Who may.
    pub principals: Vec<Principal>,
    /// By which calls.
    pub actions: Vec<Action>,
    /// What else the statement demands.
    pub conditions: Vec<WrittenCondition>,
}

/// Calls after which another policy holds.
const REPLACING: [Action; 2] = [Action::PUT_KEY_POLICY, Action::REPLICATE_KEY];

impl Policy {
    /// Says who could read without being an attested enclave, by which statement, and what
    /// is demanded of those that are.
    pub fn review(&self) -> Review {
        let mut review = Review {
            holes: Vec::new(),
            attested: Vec::new(),
            replacing: Vec::new(),
        };
        for allowing in self.allowing() {
            allowing.review(&mut review);
        }
        find_replacing_callers(&mut review);
        review
    }

    /// The same of a key that wraps the seed of a family of enclaves: also who could choose
    /// the seed.
    pub fn review_for_seed(&self) -> Review {
        let mut review = self.review();
        let chosen = self.allowing().flat_map(|allowing| allowing.choosing());
        review.holes.extend(chosen);
        review
    }

    /// The statements that allow something.
    fn allowing(&self) -> impl Iterator<Item = Allowing<'_>> {
        let statements = self.statements.iter().enumerate();
        let allowing = statements.filter(|(_, statement)| statement.effect == Effect::Allow);
        allowing.map(|(index, statement)| Allowing {
            policy: self,
            statement,
            index,
        })
    }

    /// Whether a statement is certain to deny the call.
    fn denies(&self, principal: &Principal, action: &Action, scenario: &Scenario) -> bool {
        let values = |key: &_| scenario.value(key);
        self.statements.iter().any(|statement| {
            statement.effect == Effect::Deny
                && statement.has_action(action)
                && statement.includes(principal)
                && statement.has_resource(None, &values) == Truth::Yes
                && statement.conditions_hold(&values) == Truth::Yes
        })
    }

    /// Whether a grantee, who may be anybody, could make the call without being the enclave
    /// that should: a statement that denies goes before grants.
    fn leaves_to_grants(&self, action: &Action) -> bool {
        let everybody = &Principal::Everybody;
        Calls::ALL.into_iter().any(|calls| {
            takes(action, calls)
                && !self.denies(everybody, action, &Scenario::new(everybody, calls))
        })
    }
}

/// A statement that allows, in its policy.
struct Allowing<'a> {
    policy: &'a Policy,
    statement: &'a Statement,
    index: usize,
}

impl Allowing<'_> {
    fn review(&self, review: &mut Review) {
        for (way, calls) in [
            (Way::WithoutAttestation, &[Calls::WithoutDocument][..]),
            (
                Way::AnotherImage,
                &[Calls::WithAnotherApplication, Calls::WithAnotherKernel],
            ),
            (Way::DebugMode, &[Calls::InDebugMode]),
        ] {
            let reads = |principal: &Principal, action: &Action| {
                // Who needs no document needs none of another enclave.
                let without = Calls::WithoutDocument;
                (way == Way::WithoutAttestation || !self.allows(principal, action, without))
                    && calls
                        .iter()
                        .any(|calls| self.allows(principal, action, *calls))
            };
            let found = self.who(&Action::READING, reads);
            review
                .holes
                .extend(found.map(|found| self.hole(way, found)));
        }
        let grants = |principal: &Principal, _: &Action| self.grants_reading(principal);
        let found = self.who(&[Action::CREATE_GRANT], grants);
        review
            .holes
            .extend(found.map(|found| self.hole(Way::Grant, found)));

        let replaces = |principal: &Principal, action: &Action| {
            self.allows(principal, action, Calls::WithoutDocument)
        };
        if let Some((principals, actions)) = self.who(&REPLACING, replaces) {
            if principals.contains(&Principal::Everybody) && self.statement.conditions.is_empty() {
                let found = (vec![Principal::Everybody], actions.clone());
                review.holes.push(self.hole(Way::AnotherPolicy, found));
            }
            review.replacing.push(Replacing {
                statement: self.id(),
                principals,
                actions,
                conditions: self.statement.written(|_| true),
            });
        }
        review.attested.extend(self.attested());
    }

    /// How somebody could choose what enclaves take for their seed: by a call, or by a
    /// grant for one.
    fn choosing(&self) -> Vec<Hole> {
        let calls = |principal: &Principal, action: &Action| {
            self.allows(principal, action, Calls::WithoutDocument)
        };
        let grants = |principal: &Principal, _: &Action| {
            Action::CHOOSING.iter().any(|action| {
                let scenario = Scenario::granting(principal, action);
                self.allows_in(principal, &Action::CREATE_GRANT, &scenario)
                    && self.policy.leaves_to_grants(action)
            })
        };
        let found = [
            self.who(&Action::CHOOSING, calls),
            self.who(&[Action::CREATE_GRANT], grants),
        ];
        let found = found.into_iter().flatten();
        found
            .map(|found| self.hole(Way::ChosenSeed, found))
            .collect()
    }

    fn attested(&self) -> Option<Attested> {
        let statement = self.statement;
        let demands = statement.written(|condition| condition.key.is_attestation());
        let takes = |_: &Principal, action: &Action| {
            statement.has_action(action) && *action != Action::RE_ENCRYPT_FROM
        };
        let (principals, actions) = self.who(&Action::READING, takes)?;
        (!demands.is_empty()).then(|| Attested {
            statement: self.id(),
            principals,
            actions,
            demands,
            notes: statement.conditions.iter().flat_map(notes).collect(),
        })
    }

    /// The principals that can do one of the actions, and the actions that one of them can.
    fn who(
        &self,
        actions: &[Action],
        can: impl Fn(&Principal, &Action) -> bool,
    ) -> Option<(Vec<Principal>, Vec<Action>)> {
        let able = |principal: &Principal| actions.iter().any(|action| can(principal, action));
        let mut principals = self.statement.allowed();
        principals.retain(able);
        let possible = |action: &&Action| principals.iter().any(|principal| can(principal, action));
        let actions = actions.iter().filter(possible).cloned().collect();
        (!principals.is_empty()).then_some((principals, actions))
    }

    fn hole(&self, way: Way, (principals, actions): (Vec<Principal>, Vec<Action>)) -> Hole {
        let conditions = self
            .statement
            .written(|condition| !condition.key.is_attestation());
        Hole {
            statement: self.id(),
            principals,
            actions,
            way,
            conditions,
        }
    }

    fn id(&self) -> StatementId {
        StatementId {
            index: self.index,
            sid: self.statement.sid.clone(),
        }
    }

    /// Whether the statement may allow a call that no other is certain to deny.
    fn allows(&self, principal: &Principal, action: &Action, calls: Calls) -> bool {
        takes(action, calls) && self.allows_in(principal, action, &Scenario::new(principal, calls))
    }

    fn allows_in(&self, principal: &Principal, action: &Action, scenario: &Scenario) -> bool {
        let values = |key: &_| scenario.value(key);
        self.statement.has_action(action)
            && self.statement.has_resource(None, &values) != Truth::No
            && self.statement.conditions_hold(&values) != Truth::No
            && !self.policy.denies(principal, action, scenario)
    }

    /// Whether the statement may allow a grant by which its grantee reads.
    fn grants_reading(&self, principal: &Principal) -> bool {
        Action::READING.iter().any(|action| {
            let scenario = Scenario::granting(principal, action);
            self.allows_in(principal, &Action::CREATE_GRANT, &scenario)
                && self.policy.leaves_to_grants(action)
        })
    }
}

/// Whether the action takes a document, or needs none.
fn takes(action: &Action, calls: Calls) -> bool {
    calls == Calls::WithoutDocument || *action != Action::RE_ENCRYPT_FROM
}

/// A caller of attested enclaves has its credentials on the parent instance, too.
fn find_replacing_callers(review: &mut Review) {
    let callers: Vec<&Principal> = review
        .attested
        .iter()
        .flat_map(|attested| &attested.principals)
        .filter(|caller| matches!(caller, Principal::Identity(_)))
        .collect();
    let holes: Vec<Hole> = review
        .replacing
        .iter()
        .filter_map(|replacing| {
            let principals = replacing.principals.iter();
            let principals: Vec<_> = principals
                .filter(|principal| callers.contains(principal))
                .cloned()
                .collect();
            (!principals.is_empty()).then(|| Hole {
                statement: replacing.statement.clone(),
                principals,
                actions: replacing.actions.clone(),
                way: Way::AnotherPolicy,
                conditions: replacing.conditions.clone(),
            })
        })
        .collect();
    review.holes.extend(holes);
}

impl Statement {
    /// Whom a statement that allows is about.
    fn allowed(&self) -> Vec<Principal> {
        if self.principals.but {
            vec![Principal::Everybody]
        } else {
            self.principals.list.clone()
        }
    }

    /// Whether the statement is for certain about everyone whom the principal stands for.
    fn includes(&self, principal: &Principal) -> bool {
        let list = &self.principals.list;
        if self.principals.but {
            !list.iter().any(|other| other.meets(principal))
        } else {
            list.iter().any(|other| other.includes(principal))
        }
    }

    fn written(&self, which: impl Fn(&Condition) -> bool) -> Vec<WrittenCondition> {
        let conditions = self.conditions.iter();
        conditions
            .filter(|condition| which(condition))
            .map(Condition::written)
            .cloned()
            .collect()
    }
}

/// What is wrong with the values that a condition demands of a register.
fn notes(condition: &Condition) -> Vec<Note> {
    let operator = condition.operator;
    let exact = matches!(
        operator.comparison,
        Comparison::Text | Comparison::TextIgnoringCase
    );
    if condition.key.register().is_none() || operator.negated || operator.is_null() {
        return Vec::new();
    }
    let reason = |text: &String| {
        match text.parse::<Pcr>() {
        Ok(Pcr::ZERO) => Some("zero is the register's value in debug mode".to_owned()),
        Ok(_) if operator.comparison == Comparison::TextIgnoringCase => None,
        Ok(pcr) if pcr.to_string() == *text => None,
        Ok(_) => Some(
            "KMS has the register in lower case, so that this never matches: use StringEqualsIgnoreCase".to_owned(),
        ),
        Err(error) if exact => Some(format!("this never matches: {error}")),
        Err(_) => None,
    }
    };
    let texts = condition.written().values.iter();
    texts
        .filter_map(|text| {
            Some(Note {
                key: condition.written().key.clone(),
                value: text.clone(),
                reason: reason(text)?,
            })
        })
        .collect()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithoutAttestation => "without an attestation document",
            Self::AnotherImage => "with the document of an enclave with another image",
            Self::DebugMode => "with the document of an enclave in debug mode",
            Self::Grant => "for grants by which others read",
            Self::AnotherPolicy => "to put another policy in place of this one",
            Self::ChosenSeed => "to choose the seed of the enclaves",
        })
    }
}
