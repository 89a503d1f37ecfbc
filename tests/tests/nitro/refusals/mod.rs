//! What the driver refuses, and what the agent says of it: the tables of
//! `docs/nitro-driver.md`.

mod calls;
mod commands;
mod pools;

use std::thread;
use std::time::Duration;

use enclave_tests::nitro::probe::{At, Outcome, Step};
use enclave_tests::nitro::{PROBE, Parent};

use crate::pages;

const PAGE: &str = include_str!("../../../../docs/nitro-driver.md");
const MIB: u64 = 1 << 20;

/// Whether the page has that line.
fn is_in_page(what: &str, code: i32) -> bool {
    PAGE.contains(&format!("| {what} | {code} |"))
}

/// Starts a process that makes these steps, and has what it got of them until it is killed.
fn hold(parent: &mut Parent, steps: &[Step]) -> u32 {
    let script = [steps, &[Step::Hold]].concat();
    let script = serde_json::to_string(&[script]).unwrap();
    let output = "/run/held";
    let holder = parent.spawn(&[PROBE, &script], output).unwrap();
    for _ in 0..200 {
        let text = parent.text(output).unwrap();
        if let Ok(outcomes) = serde_json::from_str::<Vec<Outcome>>(&text) {
            let is_done = |outcome: &Outcome| matches!(outcome, Outcome::Done(_));
            assert!(outcomes.iter().all(is_done), "{text}");
            assert_eq!(outcomes.len(), steps.len(), "{text}");
            return holder;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("{}", parent.text(output).unwrap());
}

fn map(pages: u64, node: u32) -> Step {
    Step::Map { pages, node }
}

/// Memory of this size in pages, from where the pages are that were mapped last.
fn memory(pages: u64) -> Step {
    Step::AddMemory {
        flags: 0,
        at: At::Mapped(0),
        size: pages * 2 * MIB,
    }
}

fn start(cid: u64) -> Step {
    Step::Start { flags: 0, cid }
}

/// An enclave that can be started, with so many pages.
fn whole(pages: u64) -> Vec<Step> {
    use Step::{AddCpu, Create, Load};
    vec![
        Create,
        map(pages, 1),
        Load,
        memory(pages),
        AddCpu(0),
        AddCpu(0),
    ]
}

fn set_pages(parent: &mut Parent, node: u32, count: u64) {
    let folder = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
    let file = format!("{folder}/nr_hugepages");
    parent.write(&file, &count.to_string()).unwrap();
    assert_eq!(pages(parent, node, "nr"), count);
}
