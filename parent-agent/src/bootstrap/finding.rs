//! What is said of each step, in words or in JSON.

use std::io;

use serde::Serialize;

use plain_text::plain;

/// How it stands with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It is as it should be.
    Ok,
    /// It was done.
    Done,
    /// It would be done.
    Todo,
    /// It was taken back.
    Undone,
    /// It is not as it should be, which does no harm yet.
    Warn,
    /// It is wrong.
    Fail,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Done => "done",
            Self::Todo => "todo",
            Self::Undone => "undone",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at or done.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// What.
    pub(super) name: String,
    /// How it stands.
    pub(super) state: State,
    /// The same in words; of a failure also what to do.
    pub(super) detail: String,
}

impl Finding {
    pub(super) fn new(name: &str, state: State, detail: String) -> Self {
        Self {
            name: name.to_owned(),
            state,
            detail,
        }
    }
}

/// The findings, printed as they come, or in the end as JSON.
#[derive(Debug)]
pub(super) struct Findings {
    json: bool,
    all: Vec<Finding>,
}

impl Findings {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            all: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, finding: Finding) -> io::Result<()> {
        if !self.json {
            let (state, detail) = (finding.state.word(), plain(&finding.detail));
            let line = format!("{:<10}{state:<8}{detail}\n", finding.name);
            command_output::write(line.as_bytes())?;
        }
        self.all.push(finding);
        Ok(())
    }

    /// The name of the first that is wrong.
    pub(super) fn first_failure(&self) -> Option<String> {
        let mut failures = self.all.iter().filter(|it| it.state == State::Fail);
        failures.next().map(|finding| finding.name.clone())
    }

    /// Prints what is still to be printed.
    pub(super) fn finish(&self) -> io::Result<()> {
        if self.json {
            let text = serde_json::to_string_pretty(&self.all)?;
            command_output::write((text + "\n").as_bytes())?;
        }
        Ok(())
    }
}
