//! The spool and its sinks, from the start of an enclave to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::dns::SharedDnsResolver;
use link::logs::LogStream;
use log_spool::{Boot, LastLines, Recovery, Spool, SpoolError, SpoolOptions};
use manifest::EnclaveName;
use thiserror::Error;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use super::Sink;
use super::cloudwatch::{CloudWatch, CloudWatchConfig, ConnectError, Service};
use super::config::SinkSpec;
use super::file::Files;
use super::forward::Forwarder;
use super::otlp::Otlp;
use super::stdout::Stdout;
use super::syslog::Syslog;
use super::telemetry::{SinkMetrics, Telemetry};
use crate::output::Output;

/// How often the pipeline's own state is recorded in the stream `system`.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// How long the sinks' thread may take to end once nobody waits for its work.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a pipeline is made of.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// The spool's folder.
    pub directory: PathBuf,
    /// How the spool is kept.
    pub spool: SpoolOptions,
    /// The destinations; each only once.
    pub sinks: Vec<SinkSpec>,
    /// What the CloudWatch sink needs to know.
    pub cloudwatch: CloudWatchConfig,
}

/// Why logs cannot be taken.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// CloudWatch cannot be used.
    #[error(transparent)]
    CloudWatch(#[from] ConnectError),
    /// The sinks' thread did not start.
    #[error("the log sinks cannot be started: {0}")]
    Thread(String),
}

/// An open spool and running sinks. The sinks have a thread and a runtime of
/// their own: what they compute does not hold up the enclave's traffic.
#[derive(Debug)]
pub struct Pipeline {
    telemetry: Arc<Telemetry>,
    has_remote: bool,
    stop: watch::Sender<bool>,
    /// Dropped when nobody waits any more.
    patience: oneshot::Sender<()>,
    done: oneshot::Receiver<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// Opens the spool and starts the sinks, which look up host names with `resolver`.
    pub async fn open(
        config: PipelineConfig,
        name: &EnclaveName,
        stdout: Output,
        json: bool,
        resolver: SharedDnsResolver,
    ) -> Result<Self, PipelineError> {
        let (directory, options) = (config.directory.clone(), config.spool);
        let opened = tokio::task::spawn_blocking(move || Spool::open(&directory, options)).await;
        let (spool, recovery) =
            opened.map_err(|error| PipelineError::Thread(error.to_string()))??;
        report_recovery(&spool, &recovery).await;

        // Who reads standard output sees the state of it.
        let has_remote = config.sinks.iter().any(|sink| *sink != SinkSpec::Stdout);
        let (stop, stopped) = watch::channel(false);
        let (patience, impatience) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let (finished, done) = oneshot::channel();
        let sinks = Sinks {
            spool: Arc::clone(&spool),
            name: name.clone(),
            config,
            stdout,
            json,
            resolver,
            stop: stopped,
            metrics: Vec::new(),
            forwarders: JoinSet::new(),
        };
        std::thread::Builder::new()
            .name(format!("sinks-{name}"))
            .spawn(move || {
                sinks.serve(ready, impatience);
                let _ = finished.send(());
            })
            .map_err(|error| PipelineError::Thread(error.to_string()))?;
        let metrics = started
            .await
            .map_err(|_| PipelineError::Thread("their thread has ended".to_owned()))??;
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&spool), metrics));
        let mut tasks = vec![tokio::spawn(Arc::clone(&spool).maintain())];
        if has_remote {
            tasks.push(tokio::spawn(report(Arc::clone(&telemetry))));
        }
        Ok(Self {
            telemetry,
            has_remote,
            stop,
            patience,
            done,
            tasks,
        })
    }

    /// The spool.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.telemetry.spool
    }

    /// Whether there is a sink other than standard output.
    pub fn has_remote(&self) -> bool {
        self.has_remote
    }

    /// What is known of it.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// The last lines of each stream of a boot.
    pub async fn last_lines(&self, boot: Option<Boot>, count: usize) -> LastLines {
        let Some(boot) = boot else {
            return LastLines::default();
        };
        let directory = self.spool().directory().to_owned();
        let reading = move || log_spool::last_lines(&directory, boot, count);
        match tokio::task::spawn_blocking(reading).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(error)) => {
                warn!(%error, "the log spool cannot be read");
                LastLines::default()
            }
            // The runtime ends.
            Err(_) => LastLines::default(),
        }
    }

    /// Passes on what is in the spool, for at most `limit`. What is left stays
    /// there for the next run.
    pub async fn finish(self, limit: Duration) {
        let Self {
            telemetry,
            has_remote: _,
            stop,
            patience,
            mut done,
            tasks,
        } = self;
        for task in tasks {
            task.abort();
        }
        stop.send_replace(true);
        if timeout(limit, &mut done).await.is_err() {
            for sink in telemetry.read().sinks {
                if sink.lag_records > 0 {
                    let stream = sink.stream.unwrap_or_default();
                    warn!(
                        records = sink.lag_records,
                        "the sink {} {stream} is behind: the rest stays in {} and is sent by the next run",
                        sink.sink,
                        telemetry.spool.directory().display()
                    );
                }
            }
            drop(patience);
            if timeout(ABORT_TIMEOUT, done).await.is_err() {
                error!("the log sinks do not end and are given up");
            }
        }
        Arc::clone(&telemetry.spool).close().await;
    }
}

async fn report_recovery(spool: &Arc<Spool>, recovery: &Recovery) {
    if recovery.is_clean() {
        return;
    }
    let text = format!(
        "the log spool was repaired: {} bytes of an unfinished batch were cut off, {} damaged bytes with {} records were passed over",
        recovery.cut_bytes, recovery.damaged_bytes, recovery.damaged_records
    );
    warn!("{text}");
    spool.note(LogStream::System, text.clone()).await;
    spool.note(LogStream::Errors, text).await;
}

/// Records the pipeline's own state from time to time.
async fn report(telemetry: Arc<Telemetry>) {
    loop {
        sleep(REPORT_INTERVAL).await;
        let state = serde_json::json!({ "log_pipeline": telemetry.read() });
        telemetry
            .spool
            .note(LogStream::System, state.to_string())
            .await;
    }
}

/// The sinks, on their own thread.
struct Sinks {
    spool: Arc<Spool>,
    name: EnclaveName,
    config: PipelineConfig,
    stdout: Output,
    json: bool,
    resolver: SharedDnsResolver,
    stop: watch::Receiver<bool>,
    metrics: Vec<Arc<SinkMetrics>>,
    forwarders: JoinSet<()>,
}

impl Sinks {
    fn serve(
        mut self,
        ready: oneshot::Sender<Result<Vec<Arc<SinkMetrics>>, PipelineError>>,
        impatience: oneshot::Receiver<()>,
    ) {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(PipelineError::Thread(error.to_string())));
                return;
            }
        };
        runtime.block_on(async {
            let started = self.start().await;
            let failed = started.is_err();
            let metrics = self.metrics.clone();
            if ready.send(started.map(|()| metrics)).is_err() || failed {
                return;
            }
            let finished = async { while self.forwarders.join_next().await.is_some() {} };
            tokio::select! {
                () = finished => {}
                // Its sender is dropped.
                _ = impatience => {}
            }
        });
        runtime.shutdown_timeout(ABORT_TIMEOUT / 2);
    }

    async fn start(&mut self) -> Result<(), PipelineError> {
        for spec in self.config.sinks.clone() {
            match &spec {
                SinkSpec::Stdout => {
                    let sink = Stdout::new(self.stdout.clone(), self.json);
                    self.forward(&spec, sink);
                }
                SinkSpec::File(config) => {
                    let sink = Files::new(config.clone());
                    self.forward(&spec, sink);
                }
                SinkSpec::Syslog(address) => {
                    let sink = Syslog::new(address.clone(), &self.name, self.resolver.clone());
                    self.forward(&spec, sink);
                }
                SinkSpec::Otlp(url) => {
                    let sink = Otlp::new(url, &self.name, self.resolver.clone());
                    self.forward(&spec, sink);
                }
                SinkSpec::CloudWatch => {
                    let service =
                        Service::connect(self.config.cloudwatch.clone(), self.resolver.clone())
                            .await?;
                    let service = Arc::new(service);
                    for stream in LogStream::ALL {
                        let sink = CloudWatch::new(Arc::clone(&service), stream);
                        let group = self.config.cloudwatch.group.as_str();
                        let place = format!("cloudwatch:{group}:{}", stream.name());
                        self.forward_as(&spec, place, Some(stream), sink);
                    }
                }
            }
        }
        Ok(())
    }

    fn forward(&mut self, spec: &SinkSpec, sink: impl Sink) {
        self.forward_as(spec, spec.name(), None, sink);
    }

    fn forward_as(
        &mut self,
        spec: &SinkSpec,
        place: String,
        stream: Option<LogStream>,
        sink: impl Sink,
    ) {
        let metrics = Arc::new(SinkMetrics::new(spec.name(), stream.map(LogStream::name)));
        self.metrics.push(Arc::clone(&metrics));
        let forwarder =
            Forwarder::new(sink, place, stream, &self.spool, metrics, self.stop.clone());
        self.forwarders.spawn(forwarder.run());
    }
}
