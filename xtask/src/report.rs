//! What a run of `cargo xtask test` took, step by step.

use std::time::{Duration, Instant};

/// The steps so far, and their times.
pub(crate) struct Report {
    start: Instant,
    /// The stage that runs.
    stage: &'static str,
    steps: Vec<Step>,
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
        println!("--- {name}: {how}");
        let start = Instant::now();
        let result = run();
        let took = start.elapsed();
        let is_ok = result.is_ok();
        if is_ok {
            println!("ok   {name} in {} s", took.as_secs());
        } else {
            println!("FAIL {name} after {} s", took.as_secs());
        }
        self.steps.push(Step {
            stage: self.stage,
            name,
            took,
            is_ok,
        });
        result
    }

    /// The tables at the end of a run, of one that failed too.
    pub(crate) fn print(&self) {
        println!("\n{:<10} {:<32} {:>8}", "stage", "step", "time");
        for step in &self.steps {
            let failed = if step.is_ok { "" } else { "  failed" };
            let (stage, name) = (step.stage, step.name);
            println!("{stage:<10} {name:<32} {}{failed}", seconds(step.took));
        }
        println!("{:<43} {}", "total", seconds(self.start.elapsed()));
    }
}

fn seconds(time: Duration) -> String {
    format!("{:>6.1} s", time.as_secs_f64())
}
