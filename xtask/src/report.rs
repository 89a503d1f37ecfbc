//! What a run of `cargo xtask test` took: its steps, and its slowest tests.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
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
    stage: String,
    name: String,
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
            stage: self.stage.to_owned(),
            name: name.to_owned(),
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

    /// Leaves it to the run that has started this one: a line for each step and test, its
    /// fields separated by tabs.
    pub(crate) fn save(&self, file: &Path) -> anyhow::Result<()> {
        let steps = self.steps.iter().map(|step| {
            let (stage, name, ok) = (&step.stage, &step.name, step.is_ok);
            format!("step\t{}\t{stage}\t{name}\t{ok}\n", step.took.as_millis())
        });
        let tests = self.tests.iter().map(|test| {
            let (name, took) = (&test.name, test.took);
            format!("test\t{}\t{name}\n", took.as_millis())
        });
        let text: String = steps.chain(tests).collect();
        fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// Adds what a run that this one has started has left.
    pub(crate) fn add(&mut self, file: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for line in text.lines() {
            let fields: Vec<_> = line.split('\t').collect();
            let time = |text: &str| text.parse().map(Duration::from_millis).context("a time");
            match *fields.as_slice() {
                ["step", took, stage, name, is_ok] => self.steps.push(Step {
                    stage: stage.to_owned(),
                    name: name.to_owned(),
                    took: time(took)?,
                    is_ok: is_ok == "true",
                }),
                ["test", took, name] => self.tests.push(Test {
                    name: name.to_owned(),
                    took: time(took)?,
                }),
                _ => bail!("{}: a line is not a report's: {line}", file.display()),
            }
        }
        Ok(())
    }

    /// The tables at the end of a run, of one that failed too.
    pub(crate) fn print(&self) {
        outln!("\n{:<10} {:<32} {:>8}", "stage", "step", "time");
        for step in &self.steps {
            let failed = if step.is_ok { "" } else { "  failed" };
            let (stage, name) = (&step.stage, &step.name);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_a_run_beside_is_added_whole() {
        let mut beside = Report::new();
        beside.stage("cloud");
        beside.step("good", "true", || Ok(())).unwrap();
        let failed: anyhow::Result<()> = beside.step("bad", "false", || bail!("it failed"));
        assert!(failed.is_err());
        beside.tests.push(Test {
            name: "scenarios test_one".to_owned(),
            took: Duration::from_millis(1500),
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report");
        beside.save(&file).unwrap();
        let mut report = Report::new();
        report.add(&file).unwrap();
        let steps: Vec<_> = report
            .steps
            .iter()
            .map(|step| (&*step.stage, &*step.name, step.is_ok))
            .collect();
        assert_eq!(steps, [("cloud", "good", true), ("cloud", "bad", false)]);
        assert_eq!(report.tests, beside.tests);
        fs::write(&file, "step\tsoon\n").unwrap();
        assert!(report.add(&file).is_err());
    }
}
