//! Every order, and random long ones.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::world::{Next, World};

/// What was explored.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) ends: usize,
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Visits every state that can be reached, nearest first. The way to one that
/// breaks a rule is the shortest there is, and is printed.
pub(crate) fn explore(start: World) -> Statistics {
    let mut statistics = Statistics::default();
    let mut seen = HashSet::from([hash(&start)]);
    // Each state's predecessor and what led to it, for the way back.
    let mut ways: Vec<(usize, String)> = vec![(0, "start".to_owned())];
    let mut queue = VecDeque::from([(0_usize, start)]);
    while let Some((index, world)) = queue.pop_front() {
        statistics.states += 1;
        let result = catch_unwind(AssertUnwindSafe(|| {
            world.check();
            let system = world.system();
            if system.is_empty() {
                world.check_rest();
                statistics.ends += 1;
            }
            system
                .into_iter()
                .chain(world.clients())
                .collect::<Vec<Next>>()
        }));
        let next = result.unwrap_or_else(|panic| {
            print_way(&ways, index);
            resume_unwind(panic)
        });
        for (what, world) in next {
            statistics.transitions += 1;
            if seen.insert(hash(&world)) {
                ways.push((index, what));
                queue.push_back((ways.len() - 1, world));
            }
        }
    }
    statistics
}

fn print_way(ways: &[(usize, String)], mut index: usize) {
    let mut way = Vec::new();
    while index != 0 {
        way.push(ways[index].1.as_str());
        index = ways[index].0;
    }
    way.reverse();
    println!("the way there:\n  {}", way.join("\n  "));
}

/// Goes one long way, which the choices make, and then to its end.
pub(crate) fn walk(mut world: World, choices: &[u16]) {
    for choice in choices {
        let mut next = world.system();
        next.extend(world.clients());
        if next.is_empty() {
            break;
        }
        let index = usize::from(*choice) % next.len();
        world = next.swap_remove(index).1;
        world.check();
    }
    // Without clients and at the first turn, everything comes to rest.
    for _ in 0..1000 {
        let mut next = world.system();
        if next.is_empty() {
            world.check_rest();
            return;
        }
        world = next.swap_remove(0).1;
        world.check();
    }
    panic!("it never comes to rest: {world:#?}");
}
