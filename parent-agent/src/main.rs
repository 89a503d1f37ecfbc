//! The command line of the agent on the EC2 instance.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use command_output::errln;
use enclave_host::{guard, hypervisor};
use log_sinks::Output;
use parent_agent::cli::{Cli, Command, Keys, Secret};
use parent_agent::client::Step;
use parent_agent::{Error, Exit, bootstrap, client, diagnostics, dispatch, logs, run};
use tokio::runtime;

/// How long a thread that is stuck in a write may hold up the exit.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a slow reader of standard error may hold up the exit.
const STDERR_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli: Cli = match command_output::parse("parent-agent", Exit::Failure as u8) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match execute(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let (text, exit) = match error.downcast_ref::<Error>() {
                // These name their causes themselves.
                Some(own) => (own.to_string(), own.exit()),
                None => (format!("{error:#}"), Exit::Failure),
            };
            errln!("error: {text}");
            exit.into()
        }
    }
}

fn execute(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Tether(args) => match guard::tether(args)? {},
        Command::Version { json } => version(json),
        Command::Guard { directory } => block_on(async move {
            let (stderr, _task) = Output::new(tokio::io::stderr());
            diagnostics::set_up(&stderr);
            if let Some(name) = directory.file_name().and_then(|name| name.to_str()) {
                diagnostics::name_enclave(name);
            }
            let result = guard::serve(&directory).await;
            stderr.flush(STDERR_TIMEOUT).await;
            result?;
            Ok(Exit::Success)
        }),
        Command::SoftwareNsm(args) => block_on(async {
            hypervisor::serve_software_nsm(args).await?;
            Ok(Exit::Success)
        }),
        Command::SimTree(args) => match hypervisor::become_sim_init(args)? {},
        Command::SimUsers => {
            hypervisor::hold_sim_users()?;
            Ok(Exit::Success)
        }
        Command::NitroEnclave(args) => block_on(async {
            hypervisor::serve_nitro_enclave(args).await?;
            Ok(Exit::Success)
        }),
        Command::Bootstrap(args) => {
            on_runtime(|runtime| Ok(bootstrap::run(*args, runtime).map_err(Error::from)?))
        }
        Command::Preflight(args) => {
            on_runtime(
                |runtime| Ok(bootstrap::examine(*args, false, runtime).map_err(Error::from)?),
            )
        }
        Command::Doctor(args) => {
            on_runtime(|runtime| Ok(bootstrap::examine(*args, true, runtime).map_err(Error::from)?))
        }
        Command::Dispatch => block_on(async {
            let (stderr, _task) = Output::new(tokio::io::stderr());
            diagnostics::set_up(&stderr);
            let result = dispatch::run().await;
            stderr.flush(STDERR_TIMEOUT).await;
            Ok(result.map_err(Error::from)?)
        }),
        Command::Run(args) => block_on(async {
            let (stderr, _task) = Output::new(tokio::io::stderr());
            diagnostics::set_up(&stderr);
            let result = run::run(*args, &stderr).await;
            stderr.flush(STDERR_TIMEOUT).await;
            Ok(result?)
        }),
        Command::Status(args) => {
            block_on(async { Ok(client::status(args).await.map_err(Error::from)?) })
        }
        Command::Logs(args) => Ok(logs::show(&args).map_err(Error::from)?),
        Command::Attest(args) => {
            block_on(async { Ok(client::attest(args).await.map_err(Error::from)?) })
        }
        Command::Secret(Secret::Put(args)) => {
            block_on(async { Ok(client::put_secret(args).await.map_err(Error::from)?) })
        }
        Command::Keys(keys) => block_on(async {
            let done = match keys {
                Keys::Create(args) => client::create_keys(args).await,
                Keys::HandOver(args) => client::hand_over_keys(args).await,
                Keys::Challenge(args) => client::keys_step(Step::Challenge, args).await,
                Keys::Request(args) => client::keys_step(Step::Request, args).await,
                Keys::Give(args) => client::keys_step(Step::Give, args).await,
                Keys::Take(args) => client::keys_step(Step::Take, args).await,
            };
            Ok(done.map_err(Error::from)?)
        }),
        Command::Detach(args) => {
            block_on(async { Ok(client::detach(args).await.map_err(Error::from)?) })
        }
        Command::Stop(args) => {
            block_on(async { Ok(client::stop(args).await.map_err(Error::from)?) })
        }
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    on_runtime(|runtime| runtime.block_on(future))
}

fn on_runtime(
    work: impl FnOnce(&runtime::Runtime) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let result = work(&runtime);
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

fn version(json: bool) -> anyhow::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let line = if json {
        serde_json::json!({ "name": "parent-agent", "version": version }).to_string()
    } else {
        format!("parent-agent {version}")
    };
    command_output::write(format!("{line}\n").as_bytes())
        .context("standard output cannot be written")?;
    Ok(Exit::Success)
}
