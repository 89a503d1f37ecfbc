//! What a command prints, to readers that may go away.
//!
//! `println!` panics where nobody reads on (`attest inspect FILE | head -1`), and the default
//! action of SIGPIPE would end a program that also serves sockets. So commands print by
//! [`out!`], [`outln!`] and [`errln!`]:
//!
//! * When the reader of standard output has gone away, nothing more is written, and the
//!   command ends as it would have, with the same exit code. One that would print without end
//!   asks [`reader_is_gone`].
//! * Any other failure, such as a full disk, is an error at the end ([`end`]), as it is for
//!   GNU's commands.
//! * Standard error has nobody to be told that it failed.
//!
//! ```
//! use command_output::{errln, outln};
//!
//! fn main() -> std::process::ExitCode {
//!     outln!("i-0123456789abcdef0-enc0123456789abcdef");
//!     command_output::end("example", std::process::ExitCode::SUCCESS, 1)
//! }
//! ```

#![forbid(unsafe_code)]

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// clap's code for a wrong command line.
#[cfg(feature = "clap")]
const USAGE: u8 = 2;

static READER_IS_GONE: AtomicBool = AtomicBool::new(false);
/// What else has failed, first.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints to standard output, as `print!` does.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::print(::std::format_args!($($text)*)) };
}

/// Prints a line to standard output, as `println!` does.
#[macro_export]
macro_rules! outln {
    () => { $crate::print(::std::format_args!("\n")) };
    ($($text:tt)*) => { $crate::print(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}

/// Prints a line to standard error, as `eprintln!` does.
#[macro_export]
macro_rules! errln {
    ($($text:tt)*) => { $crate::report(::std::format_args!($($text)*)) };
}

/// Prints to standard output; [`end`] reports a failure.
pub fn print(text: Arguments<'_>) {
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    if failure.is_none() {
        *failure = write(text.to_string().as_bytes()).err();
    }
}

/// Writes bytes to standard output at once. It is no failure that nobody reads them.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    if reader_is_gone() {
        return Ok(());
    }
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            READER_IS_GONE.store(true, Ordering::Relaxed);
            Ok(())
        }
        result => result,
    }
}

/// Whether the reader of standard output has gone away, as far as that has shown.
pub fn reader_is_gone() -> bool {
    READER_IS_GONE.load(Ordering::Relaxed)
}

/// Prints a line to standard error.
pub fn report(text: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The exit code of a command: the one that it has come to, or `failed` where its output
/// could not be written, which is said on standard error.
pub fn end(command: &str, code: ExitCode, failed: u8) -> ExitCode {
    let failure = FAILURE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match failure {
        None => code,
        Some(error) => {
            errln!("{command}: cannot write to standard output: {error}");
            ExitCode::from(failed)
        }
    }
}

/// The command line; where it is wrong, or asks for help, that is said, and the command
/// ends with this code.
#[cfg(feature = "clap")]
pub fn parse<C: clap::Parser>(command: &str, failed: u8) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        let printed = error.print().and_then(|()| io::stdout().flush());
        match printed {
            Err(failure) if !error.use_stderr() && failure.kind() != ErrorKind::BrokenPipe => {
                errln!("{command}: cannot write to standard output: {failure}");
                ExitCode::from(failed)
            }
            _ if error.use_stderr() => ExitCode::from(USAGE),
            _ => ExitCode::SUCCESS,
        }
    })
}
