//! A workload that tries to leave its confinement and to exhaust its machine. It
//! takes one command from each connection to port 8080, and says on it what came
//! of the command; the command ends with its connection.
//!
//! | command | what it does |
//! |---|---|
//! | `say TEXT` | prints a log line |
//! | `try NAME ARGUMENTS` | one way out; says `done DETAIL` or `refused ERRNO` |
//! | `memory` | takes memory until there is none |
//! | `fill FOLDER` | writes a file there until it is full |
//! | `forks`, `threads` | starts processes or threads until none can be had |
//! | `orphans N` | leaves N processes to the init, each of which ends at once |
//! | `descriptors` | opens descriptors until none can be had |
//! | `hoard KIND` | takes memory of the kernel's until there is no more: `answers`, `socket-filters`, `call-filters`, `terminals`, `unaccepted`, `watches` |
//! | `count KIND N` | takes N of them; says what the machine lost and what the control group counts |
//! | `unread` | never reads from its connection again |
//! | `flood` | prints lines as fast as they are taken |
//! | `spin N` | keeps N threads busy |
//! | `names N DOMAIN` | asks for the addresses of N names of the domain |
//! | `tunnels N DESTINATION` | opens N connections through the proxy and uses none |
//! | `silent N PORT` | opens N connections to a port of the init's and says nothing |
//! | `lift` | with namespaces, takes the limits of its control group off |
//! | `usurp` | with namespaces, puts itself in the init's place and ends the workload |
//! | `http PORT REQUEST` | sends the init a request in base64; says the answer in base64 |
//!
//! Commands that take something away keep it until their connection ends.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program without a runtime, which ends as it likes"
)]

mod exhaustion;
mod kernel;
mod kernel_memory;
mod namespaces;
mod network;
mod raw;
mod server;
mod ways_out;

use std::process::ExitCode;

use anyhow::{Context, bail};

fn main() -> ExitCode {
    namespaces::reign();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> anyhow::Result<()> {
    let word = |number: usize| {
        let found = words.get(number).copied();
        found.with_context(|| format!("word {number} of {words:?} is missing"))
    };
    let count = |number| Ok::<usize, anyhow::Error>(word(number)?.parse()?);
    match words.first().copied() {
        None => server::serve(),
        Some("try") => {
            ways_out::attempt(word(1)?, words.get(2..).unwrap_or_default());
            Ok(())
        }
        Some("memory") => exhaustion::memory(),
        Some("fill") => exhaustion::fill(word(1)?),
        Some("forks") => exhaustion::forks(),
        Some("threads") => exhaustion::threads(),
        Some("orphans") => exhaustion::orphans(count(1)?),
        Some("descriptors") => exhaustion::descriptors(),
        Some("hoard") => kernel_memory::hoard(word(1)?),
        Some("count") => kernel_memory::count(word(1)?, count(2)?),
        Some("flood") => exhaustion::flood(),
        Some("spin") => exhaustion::spin(count(1)?),
        Some("names") => network::names(count(1)?, word(2)?),
        Some("tunnels") => network::tunnels(count(1)?, word(2)?),
        Some("silent") => network::silent(count(1)?, word(2)?.parse()?),
        Some("lift") => namespaces::lift(),
        Some("usurp") => namespaces::usurp(),
        Some("http") => network::http(word(1)?.parse()?, word(2)?),
        Some(other) => bail!("there is no command {other:?}"),
    }
}
