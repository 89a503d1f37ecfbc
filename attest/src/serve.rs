//! `attest serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use attestation::parse_duration;
use attestation_results::Issuer;
use attestation_service::{Command, Config, ForwardedHeader, Service, listen};
use clap::{Args, ValueEnum};
use command_input::Trust;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, failed, usage};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to listen; plain HTTP, so put a proxy that speaks TLS before it.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where to serve GET /metrics; not at all unless said.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// The folder of policies: NAME.toml or NAME.json each.
    #[arg(long, value_name = "FOLDER")]
    policies: PathBuf,
    /// The folder of signing keys and used challenges; made if it is not there.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    #[command(flatten)]
    trust: Trust,
    /// Take policies in requests too; results name them by their digest only.
    #[arg(long)]
    allow_inline_policies: bool,
    /// Who answers for this verifier: `developer` in results.
    #[arg(long, value_name = "NAME", default_value = "attest")]
    developer: String,
    /// The claim `iss` of results.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// How long a result is valid.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = seconds)]
    result_lifetime: Duration,
    /// How long a challenge is open.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = seconds)]
    challenge_lifetime: Duration,
    /// The age at which the signing key gets a successor.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = hours)]
    rotate_keys_every: Duration,
    /// Threads that carry bytes and verify; as many as there are cores unless said.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Requests that may wait for a thread; further ones are told to come again.
    #[arg(long, value_name = "N", default_value = "256")]
    queue: NonZeroUsize,
    /// Connections at once; a further one ends that which waits for its client the
    /// longest.
    #[arg(long, value_name = "N", default_value = "512")]
    max_connections: NonZeroUsize,
    /// Connections from one client address at once, and behind a proxy its requests.
    #[arg(long, value_name = "N", default_value = "128")]
    max_connections_per_client: NonZeroUsize,
    /// Requests per second from one client address; 0 is no limit.
    #[arg(long, value_name = "N", default_value = "100")]
    rate_limit: u32,
    /// Take the client's address from the last entry of this header, which the proxy
    /// in front writes; x-forwarded-for unless said.
    #[arg(
        long,
        value_name = "HEADER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "x-forwarded-for"
    )]
    behind_proxy: Option<Forwarded>,
    /// How long open requests may take after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    drain_timeout: Duration,
    /// The form of the log, on standard error.
    #[arg(long, value_name = "FORM", default_value = "text")]
    log: Log,
}

/// The header by which a proxy says whom it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Forwarded {
    XForwardedFor,
    Forwarded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    Text,
    Json,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    start_log(arguments.log).map_err(usage)?;
    let threads = match arguments.threads {
        Some(threads) => threads.get(),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let (address, metrics_address) = (arguments.listen, arguments.metrics_listen);
    let data = arguments.data.display().to_string();
    let config = config(arguments, threads).map_err(usage)?;
    let service = Service::open(config).map_err(|error| usage(error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| failed(error.into()))?;
    runtime
        .block_on(async {
            let listener = bind(address)?;
            let metrics = metrics_address.map(bind).transpose()?;
            let stop = stop_signal()?;
            let commands = commands()?;
            announce(&service, &listener, metrics.as_ref(), &data)?;
            service.run(listener, metrics, commands, stop).await;
            Ok(ExitCode::SUCCESS)
        })
        .map_err(failed)
}

fn config(arguments: Arguments, threads: usize) -> anyhow::Result<Config> {
    Ok(Config {
        policies: arguments.policies,
        inline_policies: arguments.allow_inline_policies,
        data: arguments.data,
        roots: arguments.trust.roots()?,
        issuer: Issuer {
            developer: arguments.developer,
            url: arguments.issuer,
            lifetime: arguments.result_lifetime,
        },
        rotation_period: arguments.rotate_keys_every,
        challenge_lifetime: arguments.challenge_lifetime,
        verifications: threads.saturating_add(arguments.queue.get()),
        connections: arguments.max_connections.get(),
        connections_per_client: arguments.max_connections_per_client.get(),
        rate: arguments.rate_limit,
        behind_proxy: arguments.behind_proxy.map(|header| match header {
            Forwarded::XForwardedFor => ForwardedHeader::XForwardedFor,
            Forwarded::Forwarded => ForwardedHeader::Forwarded,
        }),
        drain: arguments.drain_timeout,
    })
}

/// One line on standard output, which is free of the log.
fn announce(
    service: &Service,
    listener: &TcpListener,
    metrics: Option<&TcpListener>,
    data: &str,
) -> anyhow::Result<()> {
    let policies = match service.policies() {
        1 => "1 policy".to_owned(),
        number => format!("{number} policies"),
    };
    let address = listener.local_addr()?;
    let metrics = match metrics {
        Some(metrics) => format!(", metrics on http://{}", metrics.local_addr()?),
        None => String::new(),
    };
    let line = format!("attest: serving {policies} on http://{address}, keys in {data}{metrics}");
    let mut output = std::io::stdout();
    // Nobody need read it.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| format!("cannot listen on {address}"))
}

/// Done at the first SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// SIGHUP reloads the policies, SIGUSR1 makes a new signing key.
fn commands() -> anyhow::Result<mpsc::Receiver<Command>> {
    let mut hangup = listen_for(SignalKind::hangup())?;
    let mut user = listen_for(SignalKind::user_defined1())?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let command = tokio::select! {
                Some(()) = hangup.recv() => Command::ReloadPolicies,
                Some(()) = user.recv() => Command::RotateKey,
                else => return,
            };
            if sender.send(command).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn listen_for(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot handle signals")
}

/// `RUST_LOG` says what is logged; from `info` on unless set.
fn start_log(form: Log) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => {
            EnvFilter::try_new(filter).context("RUST_LOG cannot be used")?
        }
        _ => EnvFilter::new("info"),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be said on standard error, and panic where nobody reads it.
        .log_internal_errors(false);
    match form {
        Log::Text => log.with_ansi(false).try_init(),
        Log::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_secs(1), "a second")
}

fn hours(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_secs(60 * 60), "an hour")
}

fn at_least(text: &str, least: Duration, shown: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration < least {
        return Err(format!("it must be at least {shown}"));
    }
    Ok(duration)
}
