//! What a test and the first process of a parent instance say to each other, over a serial
//! line: each message is a line of JSON.

use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a test wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Run a program to its end, or at most so long.
    Run {
        /// The program and its arguments.
        command: Vec<String>,
        /// How long.
        seconds: u64,
    },
    /// Start a program.
    Spawn {
        /// The program and its arguments.
        command: Vec<String>,
        /// The file that it prints to.
        output: String,
    },
    /// Wait for the end of one that was started.
    Wait {
        /// Its process.
        pid: u32,
        /// How long.
        seconds: u64,
    },
    /// The processes whose command line has this word.
    Find(String),
    /// Send SIGKILL to any process.
    Kill(u32),
    /// Read a file.
    Read(String),
    /// Write a file, whose folder is made.
    Write {
        /// The file.
        path: String,
        /// What is in it then.
        text: String,
    },
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The instance has booted.
    Booted,
    /// A program has ended.
    Ended {
        /// Its exit code; none if a signal killed it.
        code: Option<i32>,
        /// What it printed.
        stdout: String,
        /// What it printed as errors.
        stderr: String,
    },
    /// Processes.
    Processes(Vec<u32>),
    /// A file's bytes, in hexadecimal.
    Bytes(String),
    /// It was done.
    Done,
    /// It failed.
    Failed(String),
}

/// Sends a message.
pub fn send(mut line: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(message)?;
    text.push('\n');
    line.write_all(text.as_bytes())?;
    line.flush()
}

/// Waits for a message; none comes after the line's end.
pub fn receive<T: DeserializeOwned>(mut line: impl BufRead) -> io::Result<Option<T>> {
    let mut text = String::new();
    if line.read_line(&mut text)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&text)?))
}
