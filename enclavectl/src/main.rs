//! Deploy, watch and destroy enclaves from a terminal.
//!
//! Exit codes: 0 done, 1 an error, 2 the command line or the request is wrong, 3 the
//! enclave failed or a check did, 4 the time is up and the enclave still in motion.

#![forbid(unsafe_code)]

mod attest;
mod cli;
mod cloud;
mod doctor;
mod events;
mod list;
mod logs;
mod publish;
mod request;
mod secret;
mod table;
mod watch;

use std::process::ExitCode;

use command_output::errln;

use crate::cli::{Cli, Command, SecretCommand};
use crate::cloud::Cloud;

/// How a command ended, if nothing went wrong with the command itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As asked.
    Done,
    /// The request breaks a rule.
    Refused,
    /// The enclave failed, or a check did.
    Failed,
    /// The time is up.
    InMotion,
}

impl End {
    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 2,
            Self::Failed => 3,
            Self::InMotion => 4,
        }
    }
}

fn main() -> ExitCode {
    let cli: Cli = match command_output::parse("enclavectl", 1) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(error.into()),
    };
    let code = match result {
        Ok(end) => ExitCode::from(end.code()),
        Err(error) => {
            errln!("enclavectl: {error:#}");
            ExitCode::FAILURE
        }
    };
    command_output::end("enclavectl", code, 1)
}

async fn run(cli: Cli) -> anyhow::Result<End> {
    let json = cli.json;
    if let Command::Doctor = cli.command {
        return doctor::run(&cli.installation, json).await;
    }
    let cloud = Cloud::connect(&cli.installation).await?;
    match cli.command {
        Command::Deploy(arguments) => request::deploy(&cloud, &arguments, json).await,
        Command::Destroy(arguments) => request::destroy(&cloud, &arguments, json).await,
        Command::Pause(arguments) => request::pause(&cloud, &arguments, json).await,
        Command::Resume(arguments) => request::resume(&cloud, &arguments, json).await,
        Command::Status(arguments) => watch::status(&cloud, &arguments, json).await,
        Command::List { status } => list::list(&cloud, status.as_deref(), json).await,
        Command::Inventory => list::inventory(&cloud, json).await,
        Command::Logs(arguments) => logs::run(&cloud, &arguments, json).await,
        Command::Attest(arguments) => attest::run(&cloud, &arguments, json).await,
        Command::Events { id } => events::run(&cloud, &id, json).await,
        Command::Secret {
            command: SecretCommand::Put(arguments),
        } => secret::put(&cloud, &arguments, json).await,
        Command::Publish(arguments) => publish::run(&cloud, &arguments, json).await,
        Command::Doctor => Ok(End::Done),
    }
}
