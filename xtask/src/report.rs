//! What a run of `cargo xtask test` took: its steps, and its slowest tests.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use command_output::outln;

use crate::junit::{self, Test};

/// How many tests are shown.
const SLOWEST: usize = 10;

/// The steps so far, and their times.
pub(crate) struct Report {
    start: Instant,
    /// The stage that runs.
    stage: &'static str,
    steps: Vec<Step>,
    tests: Vec<Test>,
}

struct Step {
    stage: &'static str,
    name: &'static str,
    took: Duration,
    is_ok: bool,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            stage: "",
            steps: Vec::new(),
            tests: Vec::new(),
        }
    }

    /// The next steps belong to this stage.
    pub(crate) fn stage(&mut self, name: &'static str) {
        self.stage = name;
    }

    /// Runs a step; `how` is the command that people would type.
    pub(crate) fn step<T>(
        &mut self,
        name: &'static str,
        how: &str,
        run: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        outln!("--- {name}: {how}");
        let start = Instant::now();
        let result = run();
        let took = start.elapsed();
        let is_ok = result.is_ok();
        if is_ok {
            outln!("ok   {name} in {} s", took.as_secs());
        } else {
            outln!("FAIL {name} after {} s", took.as_secs());
        }
        self.steps.push(Step {
            stage: self.stage,
            name,
            took,
            is_ok,
        });
        result
    }

    /// Runs a step of tests, which writes their times to `junit`, whether they fail
    /// or not.
    pub(crate) fn tests(
        &mut self,
        name: &'static str,
        how: &str,
        junit: &Path,
        run: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // An earlier run's.
        match fs::remove_file(junit) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| junit.display().to_string());
            }
            _ => {}
        }
        let result = self.step(name, how, run);
        let text = fs::read_to_string(junit).with_context(|| junit.display().to_string());
        match text.and_then(|text| junit::read(&text)) {
            Ok(tests) => self.tests.extend(tests),
            // Only what did not get as far as its tests writes none.
            Err(error) => return result.and(Err(error)),
        }
        result
    }

    /// The tables at the end of a run, of one that failed too.
    pub(crate) fn print(&self) {
        outln!("\n{:<10} {:<32} {:>8}", "stage", "step", "time");
        for step in &self.steps {
            let failed = if step.is_ok { "" } else { "  failed" };
            let (stage, name) = (step.stage, step.name);
            outln!("{stage:<10} {name:<32} {}{failed}", seconds(step.took));
        }
        outln!("{:<43} {}", "total", seconds(self.start.elapsed()));
        let mut slowest: Vec<_> = self.tests.iter().collect();
        slowest.sort_by_key(|test| std::cmp::Reverse(test.took));
        if !slowest.is_empty() {
            outln!("\nthe slowest of {} tests", slowest.len());
        }
        for test in slowest.into_iter().take(SLOWEST) {
            outln!("{}  {}", seconds(test.took), test.name);
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:>6.1} s", time.as_secs_f64())
}
