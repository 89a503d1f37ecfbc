//! The price oracle: see the library's documentation.
//!
//! Exit codes: 0 after SIGTERM or SIGINT, 1 if it could not start.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use price_oracle::config::Environment;
use price_oracle::enclave_api::EnclaveApi;
use price_oracle::names::Names;
use price_oracle::probe::Probe;
use price_oracle::source::Source;
use price_oracle::source_key::SourceKey;
use price_oracle::{RuntimeConfig, Service, SigningKey};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

/// Where the service listens; `enclave.toml` maps a port of the parent to it.
const LISTEN: &str = "127.0.0.1:8080";
/// Where the key is kept, in the enclave's memory.
const KEY_FILE: &str = "/tmp/price-oracle.key";
/// Where the source's key is, if `[[secrets]]` of `enclave.toml` declares one.
const SOURCE_KEY_FILE: &str = "/run/secrets/price-source-key";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // A line of JSON each; the enclave adds the time.
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .without_time()
        .with_target(false)
        // It would be said on standard error, and panic where nobody reads it.
        .log_internal_errors(false)
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    let file = &environment.runtime_config;
    let config = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let config = RuntimeConfig::parse(&config)?;
    let upstream = config.upstream.clone();
    let names = Names::system()?;
    let key = SigningKey::open(Path::new(KEY_FILE))?;
    let source_key = SourceKey::open(Path::new(SOURCE_KEY_FILE))
        .with_context(|| format!("cannot read {SOURCE_KEY_FILE}"))?;
    let has_source_key = source_key.is_some();
    let api = EnclaveApi::new(environment.api);
    api.name_identity(key.public_key_der())
        .await
        .context("the key cannot be named as the enclave's identity")?;
    let service = Service {
        key,
        source: Source::new(config, names.clone(), source_key)?,
        api,
        probe: Probe::new(names, environment.proxy),
    };
    let listener = TcpListener::bind(LISTEN)
        .await
        .with_context(|| format!("cannot listen on {LISTEN}"))?;
    info!(
        listen = LISTEN,
        upstream = format!("{}:{}", upstream.host.as_ref(), upstream.port),
        key = "P-384, made in this enclave",
        source_key = has_source_key,
        "started"
    );
    service
        .serve(listener, either(&mut terminate, &mut interrupt))
        .await;
    info!("stopped");
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
