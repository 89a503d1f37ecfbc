//! JSON whose objects have each name once.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::{Place, PolicyError, Problem, shown};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Object(Vec<(String, Json)>),
    List(Vec<Json>),
    Text(String),
    /// A number or a truth value, as the policy language takes them for texts.
    Bare(String),
    Null,
}

impl Json {
    pub(crate) fn parse(text: &str) -> Result<Self, PolicyError> {
        serde_json::from_str(text)
            .map_err(|error| Place::Root.error(Problem::Json(error.to_string())))
    }

    pub(crate) fn object(&self, place: &Place<'_>) -> Result<&[(String, Self)], PolicyError> {
        match self {
            Self::Object(members) => Ok(members),
            _ => Err(place.error(Problem::Expected("an object"))),
        }
    }

    pub(crate) fn text(&self, place: &Place<'_>) -> Result<&str, PolicyError> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(place.error(Problem::Expected("a string"))),
        }
    }

    /// The texts of a value that is one text or a list of at least one.
    pub(crate) fn texts(&self, place: &Place<'_>) -> Result<Vec<&str>, PolicyError> {
        self.members(place, Self::text)
    }

    /// The same, of a condition, whose numbers and truth values need no quotation marks.
    pub(crate) fn values(&self, place: &Place<'_>) -> Result<Vec<&str>, PolicyError> {
        self.members(place, |value, place| match value {
            Self::Text(text) | Self::Bare(text) => Ok(text.as_str()),
            _ => Err(place.error(Problem::Expected("a string, a number, true or false"))),
        })
    }

    fn members<'a>(
        &'a self,
        place: &Place<'_>,
        one: impl Fn(&'a Self, &Place<'_>) -> Result<&'a str, PolicyError>,
    ) -> Result<Vec<&'a str>, PolicyError> {
        match self {
            Self::List(members) if members.is_empty() => Err(place.error(Problem::Empty)),
            Self::List(members) => members
                .iter()
                .enumerate()
                .map(|(index, member)| one(member, &Place::Member(place, index)))
                .collect(),
            single => Ok(vec![one(single, place)?]),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bare(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Bare(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Bare(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Bare(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = list.next_element()? {
            members.push(member);
        }
        Ok(Json::List(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        while let Some((name, value)) = object.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                let name = shown(&name);
                return Err(A::Error::custom(format_args!("{name:?} is there twice")));
            }
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}
