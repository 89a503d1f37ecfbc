//! A policy's statement.

use crate::action::{Action, ActionPattern};
use crate::condition::Condition;
use crate::context::Values;
use crate::error::{Place, PolicyError, Problem, shown};
use crate::json::Json;
use crate::pattern::{self, Template};
use crate::principal::{Caller, Named, Principal, principals};
use crate::truth::Truth;

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    pub(crate) sid: Option<String>,
    pub(crate) effect: Effect,
    pub(crate) principals: Listed<Principal>,
    actions: Listed<ActionPattern>,
    resources: Listed<Template>,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// What a statement is about: what it lists, or everything else.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed<T> {
    pub(crate) but: bool,
    pub(crate) list: Vec<T>,
}

/// The elements of a statement.
const ELEMENTS: [&str; 9] = [
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
];

impl Statement {
    pub(crate) fn parse(
        json: &Json,
        variables: bool,
        place: &Place<'_>,
    ) -> Result<Self, PolicyError> {
        let elements = json.object(place)?;
        if let Some((name, _)) = elements
            .iter()
            .find(|(name, _)| !ELEMENTS.contains(&name.as_str()))
        {
            return Err(place.error(Problem::UnknownElement(shown(name))));
        }
        let get = |wanted: &str| {
            let found = elements.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value)
        };
        let one_of = |plain: &'static str, but: &'static str| match (get(plain), get(but)) {
            (Some(_), Some(_)) => Err(place.error(Problem::Both(plain, but))),
            (Some(value), None) => Ok((plain, false, value)),
            (None, Some(value)) => Ok((but, true, value)),
            (None, None) => Err(place.error(Problem::Missing(plain))),
        };

        let sid = match get("Sid") {
            Some(sid) => {
                let place = Place::Element(place, "Sid");
                Some(sid.text(&place)?.to_owned())
            }
            None => None,
        };
        let effect = {
            let value = get("Effect").ok_or_else(|| place.error(Problem::Missing("Effect")))?;
            let place = Place::Element(place, "Effect");
            match value.text(&place)? {
                "Allow" => Effect::Allow,
                "Deny" => Effect::Deny,
                other => return Err(place.error(Problem::Effect(shown(other)))),
            }
        };
        let principals = {
            let (name, but, value) = one_of("Principal", "NotPrincipal")?;
            let list = principals(value, &Place::Element(place, name))?;
            Listed { but, list }
        };
        let actions = {
            let (name, but, value) = one_of("Action", "NotAction")?;
            Listed::read(
                value,
                but,
                &Place::Element(place, name),
                ActionPattern::parse,
            )?
        };
        let resources = {
            let (name, but, value) = one_of("Resource", "NotResource")?;
            Listed::read(value, but, &Place::Element(place, name), |text| {
                if text == "*" || text.starts_with("arn:") {
                    Template::parse(text, variables)
                } else {
                    Err(Problem::Resource(shown(text)))
                }
            })?
        };
        let conditions = match get("Condition") {
            Some(value) => Condition::parse(value, variables, &Place::Element(place, "Condition"))?,
            None => Vec::new(),
        };
        Ok(Self {
            sid,
            effect,
            principals,
            actions,
            resources,
            conditions,
        })
    }

    /// In what way the statement is about the caller.
    pub(crate) fn names(&self, caller: &Caller) -> Option<Named> {
        let Listed { but, list } = &self.principals;
        let named = list
            .iter()
            .filter_map(|principal| principal.names(caller))
            .max();
        match (but, named) {
            (false, named) => named,
            (true, None) => Some(Named::Itself),
            (true, Some(_)) => None,
        }
    }

    pub(crate) fn has_action(&self, action: &Action) -> bool {
        self.actions.has(|pattern| pattern.matches(action))
    }

    /// Whether the statement is about the key; `None` is one whose ARN is not known.
    pub(crate) fn has_resource(&self, key: Option<&str>, values: &Values<'_>) -> Truth {
        let is = |resource: &Template| match key {
            _ if resource.matches_all() => Truth::Yes,
            Some(key) => resource.compare(values, |tokens| {
                pattern::matches(tokens, key, pattern::exactly)
            }),
            None => Truth::Maybe,
        };
        let listed = Truth::any(self.resources.list.iter().map(is));
        if self.resources.but { !listed } else { listed }
    }

    pub(crate) fn conditions_hold(&self, values: &Values<'_>) -> Truth {
        Truth::all(
            self.conditions
                .iter()
                .map(|condition| condition.holds(values)),
        )
    }
}

impl<T> Listed<T> {
    fn read(
        json: &Json,
        but: bool,
        place: &Place<'_>,
        one: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Self, PolicyError> {
        let list = json
            .texts(place)?
            .into_iter()
            .map(|text| one(text).map_err(|problem| place.error(problem)))
            .collect::<Result<_, _>>()?;
        Ok(Self { but, list })
    }

    fn has(&self, is: impl FnMut(&T) -> bool) -> bool {
        self.list.iter().any(is) != self.but
    }
}
