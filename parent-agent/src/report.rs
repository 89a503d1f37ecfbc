//! What `run` tells its user: lines for people on standard error, or JSON on
//! standard output; log records always on standard output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use enclave_host::console::Viewer;
use enclave_host::duration::milliseconds;
use enclave_host::image::Pcrs;
use link::EndCode;
use log_sinks::Output;
use log_sinks::losses::LostRecords;
use serde::Serialize;

use crate::clock::ClockStatus;
use crate::crash::Crash;
use crate::enclave::{Cause, Code, Health, WorkloadHealth};
use crate::exit::Exit;
use crate::ingress::OpenPort;
use crate::self_check::SelfCheck;
use plain_text::plain;

/// How long the last report may wait for a reader.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);

/// One event, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report<'a> {
    /// The image was found sound and is about to be started.
    Starting(Opening<'a>),
    /// The enclave runs already and was taken over.
    Attached {
        /// What it is.
        #[serde(flatten)]
        opening: Opening<'a>,
        /// Milliseconds since it was started.
        age_ms: u64,
        /// Whether it was ready when its earlier agent was there.
        ready: bool,
    },
    /// An enclave of the same name, which is gone, ended while it had no agent.
    EndedAlone {
        /// How.
        detail: &'a str,
        /// The console's last lines.
        console: &'a [String],
    },
    /// A boot step has ended well.
    Step {
        /// Its name.
        name: &'a str,
        /// Microseconds from the init's start to its end.
        at_us: u64,
        /// Microseconds that it took.
        took_us: u64,
    },
    /// The workload runs.
    Ready {
        /// Microseconds from the init's start.
        at_us: u64,
        /// Milliseconds from the agent's start.
        elapsed_ms: u64,
    },
    /// The enclave has verified its own document.
    SelfCheck(&'a SelfCheck),
    /// The workload's health has changed.
    Health(&'a Health),
    /// The state of the enclave's clock has changed, or its machine was stopped.
    Clock(&'a ClockStatus),
    /// This agent was not run for a while, as after SIGSTOP or with its machine.
    Paused {
        /// Milliseconds, by which its deadlines have moved.
        lost_ms: u64,
    },
    /// The workload has ended.
    WorkloadExited {
        /// How.
        status: WorkloadStatus,
        /// Milliseconds until it is started again, if it is.
        restart_in_ms: Option<u64>,
        /// The enclave's own code for it, if it gave one.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'a Code>,
        /// Which of several it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        workload: Option<&'a str>,
    },
    /// One of several workloads is otherwise than before.
    Workload(&'a WorkloadHealth),
    /// The attestation gate has judged a document.
    Gate {
        /// Whether it is satisfied.
        accepted: bool,
        /// Its own words.
        message: &'a str,
    },
    /// The image is being fetched.
    Fetching {
        /// Where from.
        source: &'a str,
        /// Bytes that are here.
        bytes: u64,
        /// Bytes of the image, if that is known.
        total: Option<u64>,
    },
    /// A line of the console.
    Console {
        /// The line.
        text: &'a str,
    },
    /// The agent leaves the enclave, which goes on.
    Detached {
        /// Milliseconds until its guard ends it, unless an agent takes it over.
        keep_ms: u64,
        /// What the process will exit with.
        exit_code: u8,
    },
    /// The enclave is gone.
    Ended {
        /// Its cause.
        cause: Cause,
        /// What kind of crash it was, if it was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        crash: Option<Crash>,
        /// The enclave's own code for it, if it gave one.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'a Code>,
        /// The same for people.
        detail: &'a str,
        /// What the process will exit with.
        exit_code: u8,
        /// The console's last lines, if the end was unexpected.
        console: &'a [String],
        /// The last lines of each stream, if the end was unexpected.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        logs: &'a BTreeMap<&'static str, Vec<String>>,
        /// Log records that were lost in its life.
        lost: &'a LostRecords,
    },
}

impl Report<'_> {
    /// That the agent leaves the enclave, whose guard keeps it for so long.
    pub(crate) fn detached(keep_for: Option<Duration>) -> Self {
        Self::Detached {
            keep_ms: keep_for.map_or(0, milliseconds),
            exit_code: Exit::Detached as u8,
        }
    }
}

/// What `run` begins with.
#[derive(Debug, Serialize)]
pub struct Opening<'a> {
    /// The enclave's name.
    pub name: &'a str,
    /// The arguments by which commands name it.
    #[serde(skip)]
    pub target: &'a str,
    /// The image's path.
    pub image: &'a str,
    /// The hypervisor's name.
    pub hypervisor: &'a str,
    /// Whether the measurements read as zero.
    pub debug: bool,
    /// What the image measures to.
    pub pcrs: &'a Pcrs,
    /// The ports opened for it.
    pub ports: &'a [OpenPort],
    /// Its state folder.
    pub state_directory: &'a str,
    /// The root that its documents lead to, where that is not AWS's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nsm_root: Option<&'a str>,
}

/// How a workload ended.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl From<link::control::ExitStatus> for WorkloadStatus {
    fn from(status: link::control::ExitStatus) -> Self {
        match status {
            link::control::ExitStatus::Code(code) => Self::Code(code),
            link::control::ExitStatus::Signal(signal) => Self::Signal(signal),
        }
    }
}

/// Where reports go.
#[derive(Debug, Clone)]
pub struct Reporter {
    output: Output,
    stdout: Output,
    json: bool,
}

impl Reporter {
    /// Reports as JSON to standard output, or for people to standard error.
    pub fn new(stdout: &Output, stderr: &Output, json: bool) -> Self {
        let output = if json { stdout } else { stderr };
        Self {
            output: output.clone(),
            stdout: stdout.clone(),
            json,
        }
    }

    /// Standard output, where log records go as well.
    pub fn stdout(&self) -> &Output {
        &self.stdout
    }

    /// Whether what is printed is JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Reports without waiting.
    pub fn report(&self, report: &Report<'_>) {
        self.output.offer(self.text(report));
    }

    /// Reports the lines of a console, those that come at once together.
    pub fn viewer(&self) -> Viewer {
        let reporter = self.clone();
        Arc::new(move |lines| {
            let texts = lines.iter().map(|text| Report::Console { text });
            let texts: Vec<_> = texts.map(|report| reporter.text(&report)).collect();
            reporter.output.offer(texts.concat());
        })
    }

    /// Reports and waits, within reason, until it is out.
    pub async fn last(&self, report: &Report<'_>) {
        self.output
            .write_within(self.text(report), LAST_TIMEOUT)
            .await;
    }

    fn text(&self, report: &Report<'_>) -> Vec<u8> {
        if self.json {
            json_line(report)
        } else {
            describe(report).into_bytes()
        }
    }
}

fn json_line(report: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(report).expect("nothing that JSON cannot express");
    line.push(b'\n');
    line
}

/// The report for people, in whole lines.
fn describe(report: &Report<'_>) -> String {
    match report {
        Report::Starting(opening) => describe_opening(opening),
        Report::Attached {
            opening,
            age_ms,
            ready,
        } => {
            let state = if *ready { "ready" } else { "not ready yet" };
            let age = seconds(age_ms.saturating_mul(1000));
            describe_opening(opening)
                + &format!("attached    the enclave was started {age} ago and is {state}\n")
        }
        Report::EndedAlone { detail, console } => {
            describe_console(console)
                + &format!("ended       {} while no agent was there\n", plain(detail))
        }
        Report::Step { .. } => String::new(),
        Report::Ready { at_us, elapsed_ms } => format!(
            "ready       {} after the start, {} after the init's\n",
            seconds(elapsed_ms.saturating_mul(1000)),
            seconds(*at_us)
        ),
        Report::SelfCheck(found) => format!("self-check  {}\n", plain(&found.to_string())),
        Report::Health(Health { state, detail }) if detail.is_empty() => {
            format!("health      {state}\n")
        }
        Report::Health(Health { state, detail }) => {
            format!("health      {state}: {}\n", plain(detail))
        }
        Report::Clock(clock) => format!("clock       {}\n", plain(&clock.line())),
        Report::Paused { lost_ms } => format!(
            "paused      this agent was not run for {}: the enclave's deadlines move by that\n",
            seconds(lost_ms.saturating_mul(1000))
        ),
        Report::WorkloadExited {
            status,
            restart_in_ms,
            code,
            workload,
        } => describe_workload(*status, *restart_in_ms, *code, *workload),
        Report::Workload(workload) => format!("workload    {}\n", plain(&workload.to_string())),
        Report::Gate {
            accepted: true,
            message: _,
        } => "gate        the attestation gate has accepted the document\n".to_owned(),
        Report::Gate { message, .. } => {
            format!("gate        the attestation gate has refused the document: {message}\n")
        }
        Report::Fetching {
            source,
            bytes,
            total,
        } => describe_fetching(source, *bytes, *total),
        Report::Console { text } => format!("console | {text}\n"),
        Report::Detached { keep_ms, exit_code } => format!(
            "detached    the enclave continues for {} without an agent (exit code {exit_code})\n",
            seconds(keep_ms.saturating_mul(1000))
        ),
        Report::Ended {
            cause,
            crash,
            code,
            detail,
            exit_code,
            console,
            logs,
            lost,
        } => {
            let mut text = String::new();
            for (stream, lines) in *logs {
                let _ = writeln!(text, "the last lines of `{stream}`:");
                for line in lines {
                    let _ = writeln!(text, "  {line}");
                }
            }
            let code = code.map_or_else(String::new, |code| format!(" ({code})"));
            let crash =
                crash.map_or_else(String::new, |crash| format!("crash       {crash}{code}\n"));
            let lost = if lost.is_empty() {
                String::new()
            } else {
                format!("lost        {lost}\n")
            };
            text + &describe_console(console)
                + &crash
                + &format!(
                    "ended       {cause}: {} (exit code {exit_code})\n",
                    plain(detail)
                )
                + &lost
        }
    }
}

fn describe_workload(
    status: WorkloadStatus,
    restart_in_ms: Option<u64>,
    code: Option<&Code>,
    workload: Option<&str>,
) -> String {
    let is = |known| code.is_some_and(|code| code.is(known));
    let how = match status {
        _ if is(EndCode::WorkloadUnhealthy) => "was unhealthy and was stopped".to_owned(),
        _ if is(EndCode::WorkloadNotReady) => "was not ready in time and was stopped".to_owned(),
        WorkloadStatus::Signal(_) if is(EndCode::WorkloadOutOfMemory) => {
            "was killed because its memory had run out".to_owned()
        }
        WorkloadStatus::Code(code) => format!("ended with code {code}"),
        WorkloadStatus::Signal(signal) => format!("was killed by signal {signal}"),
    };
    let name = workload.map_or_else(String::new, |name| format!("{} ", plain(name)));
    match restart_in_ms {
        Some(delay) => format!("workload    {name}{how}, restarts in {delay} ms\n"),
        None => format!("workload    {name}{how}\n"),
    }
}

fn describe_opening(opening: &Opening<'_>) -> String {
    let Opening {
        name,
        target,
        image,
        hypervisor,
        debug,
        pcrs,
        ports,
        state_directory,
        nsm_root,
    } = opening;
    let mut text = format!("enclave     {name} ({hypervisor})\nimage       {image}\n");
    for (index, value) in &pcrs.0 {
        let _ = writeln!(text, "PCR{index:<9}{value}");
    }
    if *debug {
        text += "debug       the enclave's PCRs read as zero: its documents prove nothing\n";
    }
    for OpenPort { listen, to, .. } in *ports {
        let _ = writeln!(text, "port        {listen} -> {to} in the enclave");
    }
    if let Some(root) = nsm_root {
        let _ = writeln!(text, "NSM root    {root} (software NSM, not AWS's)");
    }
    let _ = writeln!(text, "state       {state_directory}");
    let _ = writeln!(text, "try         parent-agent status {target}");
    text
}

fn describe_fetching(source: &str, bytes: u64, total: Option<u64>) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match total {
        Some(total) => {
            let percent = bytes.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!(
                "fetching    {source}: {} of {} MiB ({percent} %)\n",
                mib(bytes),
                mib(total)
            )
        }
        None => format!("fetching    {source}: {} MiB\n", mib(bytes)),
    }
}

fn describe_console(console: &[String]) -> String {
    let mut text = String::new();
    if !console.is_empty() {
        text += "the console's last lines:\n";
    }
    for line in console {
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn seconds(microseconds: u64) -> String {
    format!(
        "{}.{:03} s",
        microseconds / 1_000_000,
        microseconds / 1000 % 1000
    )
}

#[cfg(test)]
mod tests {
    use enclave_host::console::Console;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn an_end_names_cause_detail_and_code() {
        let text = describe(&Report::Ended {
            cause: Cause::BootFailed,
            crash: Some(Crash::KernelPanic),
            code: Some(&EndCode::BootRoot.into()),
            detail: "no heartbeat",
            exit_code: 11,
            console: &["panic".to_owned()],
            logs: &BTreeMap::from([("system", vec!["the clock".to_owned()])]),
            lost: &LostRecords {
                in_enclave: 13,
                complete: true,
                ..LostRecords::default()
            },
        });
        assert_eq!(
            text,
            "the last lines of `system`:\n  the clock\nthe console's last lines:\n  panic\ncrash       kernel panic (boot.root)\nended       boot failed: no heartbeat (exit code 11)\nlost        13 log records in the enclave\n"
        );
    }

    #[test]
    fn an_end_of_the_workload_tells_why_it_was_stopped() {
        for (code, how) in [
            (EndCode::WorkloadUnhealthy, "was unhealthy and was stopped"),
            (
                EndCode::WorkloadNotReady,
                "was not ready in time and was stopped",
            ),
            (EndCode::WorkloadExitCode, "ended with code 0"),
        ] {
            let text = describe_workload(WorkloadStatus::Code(0), None, Some(&code.into()), None);
            assert_eq!(text, format!("workload    {how}\n"));
        }
    }

    #[tokio::test]
    async fn terminal_control_is_made_visible() {
        let (mut printed, writer) = tokio::io::duplex(256);
        let (stderr, _task) = Output::new(writer);
        let console = Console::new(Some(Reporter::new(&stderr, &stderr, false).viewer()));
        drop(stderr);
        console.read(&b"\x1b[2Jgone\xff\n"[..]).await;
        let mut text = String::new();
        printed.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "console | \\u{1b}[2Jgone\u{fffd}\n");
    }
}
