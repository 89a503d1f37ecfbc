//! Every order, nearest first.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::world::World;

/// What was explored.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// Hand-overs that were begun in a state and succeeded, with an honest parent from there.
    pub(crate) hand_overs: usize,
}

/// A rule was broken: the shortest way there.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) what: String,
    pub(crate) way: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; the way there:\n  {}",
            self.what,
            self.way.join("\n  ")
        )
    }
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Visits every state that can be reached.
pub(crate) fn explore(start: World) -> Result<Statistics, Violation> {
    let mut statistics = Statistics::default();
    let mut seen = HashSet::from([hash(&start)]);
    // Each state's predecessor and what led to it, for the way back.
    let mut ways: Vec<(usize, String)> = vec![(0, "start".to_owned())];
    let mut queue = VecDeque::from([(0_usize, start)]);
    while let Some((index, world)) = queue.pop_front() {
        statistics.states += 1;
        let progress = world.check().and_then(|()| world.progress());
        match progress {
            Ok(hand_overs) => statistics.hand_overs += hand_overs,
            Err(what) => {
                let way = way(&ways, index);
                return Err(Violation { what, way });
            }
        }
        for (what, world) in world.acts() {
            statistics.transitions += 1;
            if seen.insert(hash(&world)) {
                ways.push((index, what));
                queue.push_back((ways.len() - 1, world));
            }
        }
    }
    Ok(statistics)
}

fn way(ways: &[(usize, String)], mut index: usize) -> Vec<String> {
    let mut way = Vec::new();
    while index != 0 {
        way.push(ways[index].1.clone());
        index = ways[index].0;
    }
    way.reverse();
    way
}
