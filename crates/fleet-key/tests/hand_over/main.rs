//! The hand-over of seeds, explored in every order of a hostile parent's acts.
//!
//! The parent boots what images it likes, restarts them, has seeds made wherever it likes,
//! and carries every message: it may drop, keep, repeat, mix and make up what it delivers,
//! and has documents of images that are its own. What decides is the crate's own code; only
//! signatures and encryption are modelled, and taken to hold.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it has seen"
)]

mod cast;
mod explore;
mod world;

use crate::explore::{Statistics, Violation, explore};
use crate::world::{Budget, Rule, World};

fn check(budget: Budget, slots: usize) -> Statistics {
    let found = explore(World::new(slots, budget));
    let statistics = found.unwrap_or_else(|violation| panic!("{violation}"));
    println!("{slots} enclaves, {budget:?}: {statistics:?}");
    statistics
}

/// Two enclaves at a time: challenges and requests again, after restarts.
#[test]
fn hand_over_holds_between_two_enclaves_that_are_restarted() {
    let budget = Budget {
        boots: 3,
        creations: 1,
        challenges: 2,
        requests: 2,
    };
    let statistics = check(budget, 2);
    assert!(statistics.states > 15_000, "{statistics:?}");
    assert!(statistics.hand_overs > 1_000, "{statistics:?}");
}

/// Three at a time, and two seeds of one name.
#[test]
fn hand_over_holds_among_three_enclaves_with_two_seeds() {
    let budget = Budget {
        boots: 3,
        creations: 2,
        challenges: 1,
        requests: 1,
    };
    let statistics = check(budget, 3);
    assert!(statistics.states > 10_000, "{statistics:?}");
    assert!(statistics.hand_overs > 1_000, "{statistics:?}");
}

/// Without any one of the rules, the parent finds a way: the model can fail.
#[test]
fn hand_over_does_not_hold_without_any_of_its_rules() {
    let budget = Budget {
        boots: 3,
        creations: 2,
        challenges: 1,
        requests: 1,
    };
    // What a later generation holds has been handed over once already.
    let twice = Budget {
        challenges: 2,
        requests: 2,
        ..budget
    };
    for rule in Rule::ALL {
        let budget = match rule {
            Rule::LowerGeneration => twice,
            _ => budget,
        };
        let found = explore(World::new(2, budget).without(rule));
        let Err(Violation { what, way }) = found else {
            panic!("nothing breaks without {rule:?}");
        };
        println!("without {rule:?}: {what} after {} acts", way.len());
    }
}

/// A retired image's fault gives its seeds to the parent, which hands one to the next
/// generation: what pinning prevents.
#[test]
fn hand_over_to_a_later_generation_without_a_pin_takes_what_a_retired_one_plants() {
    let budget = Budget {
        boots: 3,
        creations: 2,
        challenges: 1,
        requests: 1,
    };
    let found = explore(World::new(2, budget).without(Rule::LaterIsPinned));
    let violation = found.expect_err("nothing breaks");
    assert!(
        violation.what.ends_with("a retired image planted"),
        "{violation}"
    );
}
