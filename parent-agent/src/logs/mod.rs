//! `parent-agent logs`: records from the spool, whether or not an agent runs.

mod args;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use command_output::errln;
use log_spool::{Batch, Reader, Stored, location};
use manifest::EnclaveName;
use thiserror::Error;

use crate::exit::Exit;

pub use args::{LogsArgs, Since};

/// How often a followed spool is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Bytes of lines that are printed at once.
const MAX_LINES: usize = 64 * 1024;
/// Records of which `--lines` may print the last; those before are passed over.
const MAX_TAIL: u64 = 100_000;

/// Why records cannot be shown.
#[derive(Debug, Error)]
pub enum LogsError {
    /// No enclave has left a spool.
    #[error(
        "no enclave has logs under {}: name the spool's folder with --log-dir if `run` was told another", .0.display()
    )]
    None(PathBuf),
    /// The named one has none.
    #[error(
        "the enclave `{name}` has no logs in {}: name the folder with --log-dir if `run` was told another", path.display()
    )]
    Unknown {
        /// The enclave.
        name: String,
        /// Where they would be.
        path: PathBuf,
    },
    /// Several have one.
    #[error("several enclaves have logs ({0}): choose one with --name")]
    Several(String),
    /// The spool cannot be read.
    #[error("the logs in {} cannot be read: {source}", path.display())]
    Io {
        /// The spool's folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was read cannot be printed.
    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
    /// `--lines` is out of range.
    #[error("--lines is at most {MAX_TAIL}")]
    TooManyLines,
}

/// Prints records. A reader of them that goes away is a good end.
pub fn show(args: &LogsArgs) -> Result<Exit, LogsError> {
    if args.lines.is_some_and(|lines| lines > MAX_TAIL) {
        return Err(LogsError::TooManyLines);
    }
    let directory = find(args)?;
    let mut printer = Printer {
        args,
        reader: Reader::oldest(&directory, args.stream),
        batch: Batch::default(),
        lines: Vec::new(),
        output_failed: false,
    };
    match printer.print() {
        Ok(()) => Ok(Exit::Success),
        Err(error) if printer.output_failed => Err(LogsError::Output(error)),
        Err(error) => Err(LogsError::Io {
            path: directory,
            source: error,
        }),
    }
}

fn find(args: &LogsArgs) -> Result<PathBuf, LogsError> {
    let base = location::base();
    let (name, path) = match (&args.log_dir, &args.name) {
        (Some(path), _) => (path.display().to_string(), path.clone()),
        (None, Some(name)) => (name.to_string(), location::spool(&base, name)),
        (None, None) => {
            let names = location::names(&base).map_err(|source| LogsError::Io {
                path: base.clone(),
                source,
            })?;
            match names.as_slice() {
                [] => return Err(LogsError::None(base)),
                [only] => (only.to_string(), location::spool(&base, only)),
                several => {
                    let names: Vec<_> = several.iter().map(EnclaveName::as_str).collect();
                    return Err(LogsError::Several(names.join(", ")));
                }
            }
        }
    };
    if path.is_dir() {
        Ok(path)
    } else {
        Err(LogsError::Unknown { name, path })
    }
}

struct Printer<'a> {
    args: &'a LogsArgs,
    reader: Reader,
    batch: Batch,
    lines: Vec<u8>,
    /// Whether what failed was to print, and not to read.
    output_failed: bool,
}

impl Printer<'_> {
    fn print(&mut self) -> io::Result<()> {
        if let Some(count) = self.args.lines {
            self.print_last(count)?;
        }
        // Nothing is ever sent: it wakes at the poll, without a runtime.
        let (_sender, receiver) = channel::<()>();
        loop {
            while !command_output::reader_is_gone() && self.reader.read(None, &mut self.batch)? {
                self.print_batch()?;
            }
            let losses = self.reader.take_losses();
            if losses.damaged > 0 {
                // To standard error: the records on standard output are whole.
                errln!(
                    "{} records were damaged on the disk and are left out",
                    losses.damaged
                );
            }
            self.flush()?;
            if !self.args.follow || command_output::reader_is_gone() {
                return Ok(());
            }
            if receiver.recv_timeout(POLL) == Err(RecvTimeoutError::Disconnected) {
                return Ok(());
            }
        }
    }

    fn print_batch(&mut self) -> io::Result<()> {
        while let Some((_, record)) = self.batch.peek() {
            if is_wanted(self.args, &record) {
                log_spool::log_line(&record, self.args.json, &mut self.lines);
            }
            self.batch.advance();
            if self.lines.len() >= MAX_LINES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Prints the last records of what is there, and leaves the reader behind them.
    fn print_last(&mut self, count: u64) -> io::Result<()> {
        let count = usize::try_from(count).expect("usize has 64 bits");
        let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
        while self.reader.read(None, &mut self.batch)? {
            while let Some((_, record)) = self.batch.peek() {
                if is_wanted(self.args, &record) && count > 0 {
                    // The line's memory is used again.
                    let mut line = if kept.len() >= count {
                        kept.pop_front().unwrap_or_default()
                    } else {
                        Vec::new()
                    };
                    line.clear();
                    log_spool::log_line(&record, self.args.json, &mut line);
                    kept.push_back(line);
                }
                self.batch.advance();
            }
        }
        for line in kept {
            self.lines.extend(line);
            if self.lines.len() >= MAX_LINES {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = command_output::write(&self.lines);
        self.output_failed = written.is_err();
        self.lines.clear();
        written
    }
}

fn is_wanted(args: &LogsArgs, record: &Stored<'_>) -> bool {
    args.stream.is_none_or(|stream| stream == record.stream)
        && args.since.is_none_or(|since| since.0 <= record.time_us)
}
