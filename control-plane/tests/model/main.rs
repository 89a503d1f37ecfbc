//! A model of the whole control plane, explored in every order.
//!
//! Clients write what they like, the stream delivers records late, again and out of
//! order, executions fail or are killed at each step, and the monitor looks whenever
//! it can, always as if a long time had passed. What decides and what is written are
//! the crate's own functions; only the services around them are modelled.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it has seen"
)]

mod explore;
mod item;
mod world;

use proptest::prelude::*;

use crate::explore::{Statistics, explore, walk};
use crate::world::{Budget, Style, World};

fn check(style: Style, budget: Budget) -> Statistics {
    let statistics = explore(World::new(style, budget));
    println!("{style:?} {budget:?}: {statistics:?}");
    statistics
}

/// No request waits for the monitor to give it up, whatever was asked before it and
/// how often: the trigger works on the last one, or refuses it.
#[test]
fn no_request_is_forgotten() {
    for (style, writes) in [(Style::Update, 3), (Style::Put, 4)] {
        let budget = Budget { writes, faults: 0 };
        let statistics = explore(World::new(style, budget).unmonitored());
        println!("{style:?} {budget:?}, no monitor: {statistics:?}");
        assert!(statistics.states > 1_000, "{statistics:?}");
    }
}

/// Records come late, again, never and in any order, and executions are killed.
#[test]
fn clients_that_set_a_status_cannot_break_it() {
    let statistics = check(
        Style::Update,
        Budget {
            writes: 2,
            faults: 1,
        },
    );
    assert!(statistics.states > 10_000, "{statistics:?}");
}

/// Records come late, but in order and before the monitor gives up a request.
#[test]
fn clients_that_write_whole_items_cannot_break_it() {
    let statistics = check(
        Style::Put,
        Budget {
            writes: 3,
            faults: 0,
        },
    );
    assert!(statistics.states > 1_000, "{statistics:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn long_histories_cannot_break_it(
        choices in prop::collection::vec(any::<u16>(), 200),
        put in any::<bool>(),
    ) {
        let style = if put { Style::Put } else { Style::Update };
        let faults = if put { 0 } else { 3 };
        walk(World::new(style, Budget { writes: 8, faults }), &choices);
    }
}
