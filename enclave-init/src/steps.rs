//! The steps of the boot and their times.

use std::future::Future;
use std::time::Instant;

use link::control::FromInit;
use link::{EndCode, Text};

use crate::error::InitError;

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Steps {
    start: Instant,
    /// What a failure at this point is called.
    pub(crate) current: EndCode,
    done: Vec<(&'static str, u64, u64)>,
}

impl Steps {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            current: EndCode::BootMounts,
            done: Vec::new(),
        }
    }

    /// Runs the step whose failure has this code.
    pub(crate) async fn run<T>(
        &mut self,
        code: EndCode,
        step: impl Future<Output = Result<T, InitError>>,
    ) -> Result<T, InitError> {
        self.current = code;
        let begun = self.elapsed_us();
        let result = step.await?;
        let ended = self.elapsed_us();
        let name = code.boot_step().expect("steps of the boot have its codes");
        self.done.push((name, ended, ended.saturating_sub(begun)));
        Ok(result)
    }

    /// Waits for what cannot fail, as a step of this name.
    pub(crate) async fn wait<T>(&mut self, name: &'static str, step: impl Future<Output = T>) -> T {
        let begun = self.elapsed_us();
        let result = step.await;
        let ended = self.elapsed_us();
        self.done.push((name, ended, ended.saturating_sub(begun)));
        result
    }

    /// Microseconds since the init's start.
    pub(crate) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The steps as messages for the agent.
    pub(crate) fn messages(&self) -> impl Iterator<Item = FromInit> + '_ {
        self.done
            .iter()
            .map(|&(name, at_us, took_us)| FromInit::Step {
                name: Text::new(name),
                at_us,
                took_us,
            })
    }

    /// The steps as log records.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.done.iter().map(|&(name, at_us, took_us)| {
            format!("boot step={name} at_us={at_us} took_us={took_us}")
        })
    }
}
