//! One workload or several, and the order in which they are started and stopped.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::name::WorkloadName;

/// The longest time between the stop signal and SIGKILL: the agent waits for an enclave's end no
/// longer than this.
pub const MAX_STOP_GRACE: Duration = Duration::from_secs(300);
/// The most workloads of one enclave.
pub const MAX_WORKLOADS: usize = 16;

/// Why a list of workloads was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorkloadsError {
    /// None, or too many.
    #[error("there are {0} workloads: write 1 to {MAX_WORKLOADS}")]
    Count(usize),
    /// One of a list has no name.
    #[error(
        "a workload of a list needs a name, by which logs and status tell it from the others: add `name = \"web\"`"
    )]
    Unnamed,
    /// What only one of several can have.
    #[error(
        "`{0}` is for one of several workloads, and `[workload]` is the only one: remove it, or write `[[workload]]`"
    )]
    Alone(&'static str),
    /// The enclave would end before any has been started.
    #[error(
        "no workload is essential, and an enclave ends when no essential one is left: remove `essential = false` from at least one"
    )]
    NoneEssential,
    /// Two have the same name.
    #[error("two workloads have the name `{0}`: choose another one")]
    Twice(WorkloadName),
    /// One is started after itself.
    #[error("the workload `{0}` cannot be started after itself: remove it from `after`")]
    Itself(WorkloadName),
    /// One is started after one that is not there.
    #[error("the workload `{name}` is started after `{after}`, which is not there: {known}")]
    Unknown {
        /// The workload.
        name: WorkloadName,
        /// What it names.
        after: WorkloadName,
        /// What there is.
        known: String,
    },
    /// They wait for each other.
    #[error(
        "these workloads would wait for each other for ever, each being started after the next: {}; remove one from its `after`",
        names(.0)
    )]
    Cycle(Vec<WorkloadName>),
    /// To stop them takes longer than anybody waits.
    #[error(
        "these workloads are stopped one after the other, which may take {} s: {}; the agent waits {} s for an enclave to end: shorten their `stop_grace`",
        took.as_secs_f64(), names(chain), MAX_STOP_GRACE.as_secs()
    )]
    StopGrace {
        /// In the order in which they are stopped.
        chain: Vec<WorkloadName>,
        /// Together.
        took: Duration,
    },
}

fn names(names: &[WorkloadName]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// What the order of workloads depends on.
pub trait Member {
    /// Its name; none if it is the only one.
    fn name(&self) -> Option<&WorkloadName>;
    /// Those after which it is started.
    fn after(&self) -> &[WorkloadName];
    /// How long it may take to stop.
    fn stop_grace(&self) -> Duration;
    /// Whether the enclave ends with it.
    fn is_essential(&self) -> bool;
    /// Whether it runs once.
    fn is_batch(&self) -> bool;
    /// A key that it has and only one of several can have.
    fn of_several(&self) -> Option<&'static str>;
}

/// Where a rule is broken: which workload, and its key.
pub type Broken = (usize, &'static str, WorkloadsError);

/// The workloads of an enclave: the `[workload]` table, or the tables of `[[workload]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workloads<W> {
    /// One without a name.
    One([W; 1]),
    /// One or more, each with a name.
    Several(Vec<W>),
}

impl<W> Workloads<W> {
    /// The only one.
    pub fn one(workload: W) -> Self {
        Self::One([workload])
    }

    /// The same kind of workloads, made of each of these, in their order.
    pub fn try_map<V, E>(
        &self,
        mut change: impl FnMut(usize, &W) -> Result<V, E>,
    ) -> Result<Workloads<V>, E> {
        Ok(match self {
            Self::One([workload]) => Workloads::one(change(0, workload)?),
            Self::Several(workloads) => {
                let workloads = workloads.iter().enumerate();
                let changed = workloads.map(|(index, workload)| change(index, workload));
                Workloads::Several(changed.collect::<Result<_, E>>()?)
            }
        })
    }

    /// Where a value stands in `enclave.toml`: the path of `key`, below `[workload]` or the
    /// table of this number.
    pub fn path(&self, index: usize, key: &[&str]) -> Vec<String> {
        let index = match self {
            Self::One(_) => None,
            Self::Several(_) => Some(index.to_string()),
        };
        let table = std::iter::once("workload".to_owned()).chain(index);
        table.chain(key.iter().map(ToString::to_string)).collect()
    }
}

impl<W> Deref for Workloads<W> {
    type Target = [W];

    fn deref(&self) -> &[W] {
        match self {
            Self::One(one) => one,
            Self::Several(workloads) => workloads,
        }
    }
}

impl<'a, W> IntoIterator for &'a Workloads<W> {
    type Item = &'a W;
    type IntoIter = std::slice::Iter<'a, W>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<W: Default> Default for Workloads<W> {
    fn default() -> Self {
        Self::one(W::default())
    }
}

impl<W: Member> Workloads<W> {
    /// Checks names and order: every other method takes them for checked.
    pub fn check(&self) -> Result<(), Broken> {
        let workloads = match self {
            Self::One([workload]) => {
                return match workload.of_several() {
                    Some(key) => Err((0, key, WorkloadsError::Alone(key))),
                    None => Ok(()),
                };
            }
            Self::Several(workloads) => workloads,
        };
        if !(1..=MAX_WORKLOADS).contains(&workloads.len()) {
            return Err((0, "", WorkloadsError::Count(workloads.len())));
        }
        if !workloads.iter().any(Member::is_essential) {
            return Err((0, "essential", WorkloadsError::NoneEssential));
        }
        let mut known = BTreeSet::new();
        for (index, workload) in workloads.iter().enumerate() {
            let Some(name) = workload.name() else {
                return Err((index, "", WorkloadsError::Unnamed));
            };
            if !known.insert(name) {
                return Err((index, "name", WorkloadsError::Twice(name.clone())));
            }
        }
        for (index, name, after) in self.edges() {
            if name == after {
                return Err((index, "after", WorkloadsError::Itself(name.clone())));
            }
            if !known.contains(after) {
                let known: Vec<_> = known.iter().copied().cloned().collect();
                let error = WorkloadsError::Unknown {
                    name: name.clone(),
                    after: after.clone(),
                    known: format!("there are {}", names(&known)),
                };
                return Err((index, "after", error));
            }
        }
        let order = self.order()?;
        self.check_stop(&order)
    }

    /// The workloads after which this one is started, by their place in the list.
    pub fn before(&self, index: usize) -> Vec<usize> {
        let after = self.get(index).map(Member::after).unwrap_or_default();
        let found = after.iter().map(|name| self.place(name));
        found.flatten().collect()
    }

    /// The workloads that are started after this one, at once or after others that are, and
    /// stopped before it.
    pub fn dependents(&self, index: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let waits = |other: &usize, found: &[usize]| {
            let mut before = self.before(*other).into_iter();
            before.any(|before| before == index || found.contains(&before))
        };
        while let Some(next) =
            (0..self.len()).find(|other| !found.contains(other) && waits(other, &found))
        {
            found.push(next);
        }
        found
    }

    /// The place of the workload of this name.
    pub fn place(&self, name: &WorkloadName) -> Option<usize> {
        self.iter()
            .position(|workload| workload.name() == Some(name))
    }

    /// How long those may take to stop, one after the other, that are stopped after this one,
    /// where of all workloads only these are left.
    pub fn stop_below(&self, index: usize, is_left: impl Fn(usize) -> bool) -> Duration {
        let mut below = vec![Duration::ZERO; self.len()];
        for place in self.order().unwrap_or_default() {
            let before = self.before(place).into_iter();
            let longest = before.map(|other| {
                let own = self.get(other).filter(|_| is_left(other));
                let own = own.map(Member::stop_grace).unwrap_or_default();
                own.saturating_add(below.get(other).copied().unwrap_or_default())
            });
            let longest = longest.max().unwrap_or_default();
            if let Some(below) = below.get_mut(place) {
                *below = longest;
            }
        }
        below.get(index).copied().unwrap_or_default()
    }

    /// Who is started after whom.
    fn edges(&self) -> impl Iterator<Item = (usize, &WorkloadName, &WorkloadName)> {
        self.iter().enumerate().flat_map(|(index, workload)| {
            let name = workload.name();
            let after = workload.after().iter();
            after.filter_map(move |after| Some((index, name?, after)))
        })
    }

    /// An order in which each comes after those that it is started after.
    fn order(&self) -> Result<Vec<usize>, Broken> {
        let mut order: Vec<usize> = Vec::new();
        while order.len() < self.len() {
            let is_placed = |index: &usize| order.contains(index);
            let next = (0..self.len())
                .find(|index| !is_placed(index) && self.before(*index).iter().all(is_placed));
            match next {
                Some(next) => order.push(next),
                None => return Err(self.cycle(&order)),
            }
        }
        Ok(order)
    }

    /// A cycle of those that are not in the order: each of them is started after another.
    fn cycle(&self, order: &[usize]) -> Broken {
        let left = |index: &usize| !order.contains(index);
        let mut walk: Vec<usize> = Vec::new();
        let mut next = (0..self.len()).find(left);
        while let Some(index) = next {
            if let Some(begin) = walk.iter().position(|passed| *passed == index) {
                walk.drain(..begin);
                break;
            }
            walk.push(index);
            next = self.before(index).into_iter().find(left);
        }
        let first = walk.first().copied().unwrap_or_default();
        (first, "after", WorkloadsError::Cycle(self.names(&walk)))
    }

    fn names(&self, places: &[usize]) -> Vec<WorkloadName> {
        let workloads = places.iter().filter_map(|index| self.get(*index));
        workloads.filter_map(Member::name).cloned().collect()
    }

    /// When each has stopped at the latest, and which of its dependents stops last before it.
    fn stops(&self, order: &[usize]) -> Vec<(Duration, Option<usize>)> {
        let mut stops = vec![(Duration::ZERO, None); self.len()];
        for index in order.iter().rev().copied() {
            let dependents = self.dependents(index).into_iter();
            let when = |other: usize| stops.get(other).map_or(Duration::ZERO, |(took, _)| *took);
            let last = dependents.max_by_key(|other| when(*other));
            let grace = self.get(index).map(Member::stop_grace).unwrap_or_default();
            let took = grace.saturating_add(last.map(when).unwrap_or_default());
            if let Some(stop) = stops.get_mut(index) {
                *stop = (took, last);
            }
        }
        stops
    }

    /// Who stops the enclave does not wait for longer. That of one alone is another rule's.
    fn check_stop(&self, order: &[usize]) -> Result<(), Broken> {
        let stops = self.stops(order);
        let longest = (0..self.len()).max_by_key(|index| stops.get(*index).map(|(took, _)| *took));
        let mut chain = Vec::new();
        let mut next = longest;
        while let Some((index, (_, before))) =
            next.and_then(|index| Some((index, stops.get(index)?)))
        {
            chain.insert(0, index);
            next = *before;
        }
        let took = longest
            .and_then(|index| stops.get(index))
            .map(|(took, _)| *took);
        match (longest, took) {
            (Some(index), Some(took)) if took > MAX_STOP_GRACE && chain.len() > 1 => {
                let chain = self.names(&chain);
                Err((
                    index,
                    "stop_grace",
                    WorkloadsError::StopGrace { chain, took },
                ))
            }
            _ => Ok(()),
        }
    }
}

impl<W: Serialize> Serialize for Workloads<W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One([workload]) => workload.serialize(serializer),
            Self::Several(workloads) => workloads.serialize(serializer),
        }
    }
}

impl<'de, W: Deserialize<'de>> Deserialize<'de> for Workloads<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tables<W>(PhantomData<W>);

        impl<'de, W: Deserialize<'de>> Visitor<'de> for Tables<W> {
            type Value = Workloads<W>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, or a list of tables")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                W::deserialize(MapAccessDeserializer::new(map)).map(Workloads::one)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut workloads = Vec::new();
                while let Some(workload) = list.next_element()? {
                    workloads.push(workload);
                }
                Ok(Workloads::Several(workloads))
            }
        }

        deserializer.deserialize_any(Tables(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::Workload;

    fn workload(name: &str, after: &[&str], grace: &str) -> Value {
        json!({
            "name": name, "after": after, "kind": "service", "command": ["/a"], "env": {},
            "working_directory": "/", "user": {"uid": 0, "gid": 0}, "stop_grace": grace,
            "restart": {"policy": "never", "max": 0, "backoff": "1s..1s"},
        })
    }

    fn list(workloads: &[Value]) -> Workloads<Workload> {
        serde_json::from_value(Value::Array(workloads.to_vec())).unwrap()
    }

    fn refusal(workloads: &[Value]) -> (usize, &'static str, String) {
        let (index, key, error) = list(workloads).check().unwrap_err();
        (index, key, error.to_string())
    }

    #[test]
    fn workloads_are_one_table_or_a_list_of_them() {
        let mut one = workload("web", &[], "10s");
        let table = one.as_object_mut().unwrap();
        table.remove("name");
        table.remove("after");
        let read: Workloads<Workload> = serde_json::from_value(one.clone()).unwrap();
        read.check().unwrap();
        assert_eq!(read.path(0, &["env"]), ["workload", "env"]);
        assert_eq!(serde_json::to_value(&read).unwrap(), {
            table_with_defaults(&one)
        });
        let several = list(&[workload("web", &[], "10s")]);
        several.check().unwrap();
        assert_eq!(several.path(0, &["env"]), ["workload", "0", "env"]);
        let again = serde_json::to_value(&several).unwrap();
        assert_eq!(
            serde_json::from_value::<Workloads<Workload>>(again).unwrap(),
            several
        );
        for (key, value) in [
            ("name", json!("web")),
            ("after", json!(["db"])),
            ("essential", json!(false)),
            ("limits", json!({"pids": 8})),
        ] {
            let mut named = one.clone();
            named[key] = value;
            let named: Workloads<Workload> = serde_json::from_value(named).unwrap();
            let (_, found, error) = named.check().unwrap_err();
            assert_eq!((found, error), (key, WorkloadsError::Alone(key)));
        }
    }

    /// A table as it is written, with what has a default and is always written.
    fn table_with_defaults(table: &Value) -> Value {
        let mut table = table.clone();
        table["stop_signal"] = json!("SIGTERM");
        table
    }

    #[test]
    fn workloads_have_names_of_their_own_and_are_not_too_many() {
        let name = |number: usize| workload(&format!("w{number}"), &[], "1s");
        let many: Vec<_> = (0..=MAX_WORKLOADS).map(name).collect();
        list(&many[1..]).check().unwrap();
        assert!(refusal(&many).2.starts_with("there are 17 workloads"));
        assert!(refusal(&[]).2.starts_with("there are 0 workloads"));
        let mut unnamed = workload("x", &[], "1s");
        unnamed.as_object_mut().unwrap().remove("name");
        let found = refusal(&[workload("web", &[], "1s"), unnamed]);
        assert_eq!((found.0, found.1), (1, ""));
        let twice = [workload("web", &[], "1s"), workload("web", &[], "1s")];
        let found = refusal(&twice);
        assert_eq!((found.0, found.1), (1, "name"));
        assert!(found.2.contains("`web`"), "{found:?}");
    }

    #[test]
    fn after_names_others_that_are_there_and_do_not_wait_for_it() {
        let found = refusal(&[workload("web", &["web"], "1s")]);
        assert_eq!((found.0, found.1), (0, "after"));
        assert!(found.2.contains("`web` cannot be started after itself"));
        let found = refusal(&[workload("db", &[], "1s"), workload("web", &["bd"], "1s")]);
        assert_eq!((found.0, found.1), (1, "after"));
        assert!(found.2.contains("`web` is started after `bd`"), "{found:?}");
        assert!(found.2.contains("`db`, `web`"), "{found:?}");
        let found = refusal(&[
            workload("log", &[], "1s"),
            workload("web", &["log", "migrate"], "1s"),
            workload("db", &["web"], "1s"),
            workload("migrate", &["db"], "1s"),
        ]);
        assert_eq!((found.0, found.1), (1, "after"));
        let cycle = "each being started after the next: `web`, `migrate`, `db`;";
        assert!(found.2.contains(cycle), "{found:?}");
    }

    #[test]
    fn stop_grace_of_a_chain_is_no_longer_than_the_agent_waits() {
        let chain = |web: &str| {
            [
                workload("db", &[], "100s"),
                workload("cache", &[], "250s"),
                workload("migrate", &["db"], "100s"),
                workload("web", &["migrate"], web),
            ]
        };
        let workloads = list(&chain("100s"));
        workloads.check().unwrap();
        let below = |index, gone: &[usize]| {
            workloads
                .stop_below(index, |other| !gone.contains(&other))
                .as_secs()
        };
        assert_eq!(below(3, &[]), 200);
        assert_eq!(below(3, &[2]), 100);
        assert_eq!(below(3, &[0, 2]), 0);
        assert_eq!(below(2, &[]), 100);
        // It need not wait for anybody, nor anybody for it.
        assert_eq!((below(0, &[]), below(1, &[])), (0, 0));
        let found = refusal(&chain("100500ms"));
        assert_eq!((found.0, found.1), (0, "stop_grace"));
        let words = "may take 300.5 s: `web`, `migrate`, `db`;";
        assert!(found.2.contains(words), "{found:?}");
    }

    /// Who is started after whom: only those further up in the list, in any order of these.
    fn acyclic() -> impl Strategy<Value = Workloads<Workload>> {
        let edges = proptest::collection::vec(any::<u16>(), 1..=MAX_WORKLOADS);
        (edges, any::<u64>()).prop_map(|(edges, seed)| {
            let name = |index: usize| format!("w{index}");
            let mut tables: Vec<_> = edges
                .iter()
                .enumerate()
                .map(|(index, bits)| {
                    let after = (0..index).filter(|other| bits >> other & 1 == 1).map(name);
                    let after: Vec<_> = after.collect();
                    let after: Vec<_> = after.iter().map(String::as_str).collect();
                    workload(&name(index), &after, "1s")
                })
                .collect();
            let count = tables.len();
            for index in 0..count {
                let other =
                    usize::try_from(seed.rotate_left(u32::try_from(index).unwrap() * 5) % 97);
                tables.swap(index, other.unwrap() % count);
            }
            list(&tables)
        })
    }

    proptest! {
        #[test]
        fn order_of_any_acyclic_list_has_each_after_those_before_it(workloads in acyclic()) {
            workloads.check().unwrap();
            let order = workloads.order().unwrap();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..workloads.len()));
            let place = |index: usize| order.iter().position(|found| *found == index).unwrap();
            for index in 0..workloads.len() {
                for before in workloads.before(index) {
                    prop_assert!(place(before) < place(index));
                    prop_assert!(workloads.dependents(before).contains(&index));
                }
                for dependent in workloads.dependents(index) {
                    prop_assert!(place(index) < place(dependent));
                    // Also where one in between has ended long before.
                    for further in workloads.dependents(dependent) {
                        prop_assert!(workloads.dependents(index).contains(&further));
                    }
                }
            }
        }

        #[test]
        fn order_that_a_further_edge_makes_impossible_is_refused(
            workloads in acyclic(), from in any::<prop::sample::Index>(),
        ) {
            // An edge back from one that others wait for.
            let from = from.index(workloads.len());
            let Some(to) = workloads.dependents(from).first().copied() else {
                return Ok(());
            };
            let Workloads::Several(mut list) = workloads else { unreachable!() };
            let name = list[to].name.clone().unwrap();
            list[from].after.push(name);
            let (_, key, error) = Workloads::Several(list).check().unwrap_err();
            prop_assert_eq!(key, "after");
            prop_assert!(matches!(error, WorkloadsError::Cycle(_)));
        }
    }
}
