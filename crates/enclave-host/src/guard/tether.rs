//! A program that dies with its parent.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::SELF;

/// The arguments of the hidden command `tether`.
#[derive(Debug, Args)]
pub struct TetherArgs {
    /// The process that the program shall die with.
    parent: i32,
    /// The program.
    program: OsString,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Has the kernel kill this process when its parent ends, then becomes the
/// program. The kernel keeps the arrangement across `execve`.
pub fn tether(args: TetherArgs) -> anyhow::Result<std::convert::Infallible> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot be tied to the guard")?;
    // The parent may have ended before that took effect.
    ensure!(getppid().as_raw() == args.parent, "the guard has ended");
    let mut command = Command::new(&args.program);
    if args.program == SELF {
        command.arg0("parent-agent");
    }
    let error = command.args(args.arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", args.program.display()))
}
