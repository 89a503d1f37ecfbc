//! What `run` starts: from its command line, or from the configuration that it
//! names and the image that this names.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use link::control::MAX_RUNTIME_CONFIG;
use tokio::time::Instant;

use crate::cli::RunArgs;
use crate::config::{EnclaveConfig, Source};
use crate::embedded_metrics::EmbeddedMetrics;
use crate::error::Error;
use crate::fetch::{self, Cache};
use crate::gate::{DEFAULT_INTERVAL, FunctionName, GateConfig};
use crate::image::{Image, RuntimeConfigError, read_runtime_config};
use crate::report::{Report, Reporter};
use crate::sink::config::SinkSpec;
use crate::status::milliseconds;

/// Progress is reported no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What is started.
pub(crate) struct Launch {
    /// The image's file.
    pub(crate) path: PathBuf,
    /// The image, checked.
    pub(crate) image: Image,
    /// Handed to the workload.
    pub(crate) runtime_config: link::Bytes<MAX_RUNTIME_CONFIG>,
    /// The gate that wants to see documents.
    pub(crate) gate: Option<GateConfig>,
    /// What CloudWatch makes metrics of.
    pub(crate) metrics: Option<EmbeddedMetrics>,
    /// The region of requests to AWS, if not the environment's.
    pub(crate) region: Option<String>,
    /// Of the manifest's services of AWS those that are open, if not all.
    pub(crate) aws_services: Option<Vec<String>>,
}

impl Launch {
    /// Reads the configuration, if there is one, fills in what the command line
    /// leaves open, and gets and checks the image.
    pub(crate) async fn resolve(args: &mut RunArgs, reporter: &Reporter) -> Result<Self, Error> {
        let Some(source) = args.config.clone() else {
            let path = args.image.clone().ok_or(Error::Usage(
                "name an image, or a configuration with --config",
            ))?;
            let image = open(path.clone()).await?;
            let name = args.name.clone().unwrap_or(image.host().name.clone());
            return Ok(Self {
                path,
                image,
                runtime_config: runtime_config(args, None)?,
                gate: gate(args, name.as_str(), None),
                metrics: metrics(args, name.as_str())?,
                region: None,
                aws_services: None,
            });
        };
        let (region, enclave) = select(&source, args).await?;
        fill_in(args, &enclave);
        let path = fetch_image(args, &enclave, region.as_deref(), reporter).await?;
        let image = open(path.clone()).await?;
        check_signer(&enclave, &image)?;
        Ok(Self {
            path,
            image,
            runtime_config: runtime_config(args, enclave.runtime_configuration.as_deref())?,
            gate: gate(args, &enclave.id, enclave.gate),
            metrics: metrics(args, &enclave.id)?,
            region,
            aws_services: enclave.aws_services,
        })
    }
}

/// The enclave that `--name` means, or the only one.
async fn select(source: &Source, args: &RunArgs) -> Result<(Option<String>, EnclaveConfig), Error> {
    let (config, found) = source.read().await?;
    if let Some(enclave) = config.enclave(args.name.as_ref()) {
        let enclave = enclave.clone();
        return Ok((config.region, enclave));
    }
    let names = config.names();
    Err(Error::Selection(match &args.name {
        Some(name) => format!("the configuration {found} has no enclave `{name}`, but {names}"),
        None => format!(
            "the configuration {found} has several enclaves, of which one `run` serves one: choose with --name from {names}"
        ),
    }))
}

/// The command line comes first.
fn fill_in(args: &mut RunArgs, enclave: &EnclaveConfig) {
    args.name = Some(enclave.name.clone());
    args.cpus = args.cpus.or(enclave.cpus);
    args.memory_mib = args.memory_mib.or(enclave.memory_mib);
    args.debug |= enclave.debug;
    if args.publish.is_empty() {
        args.publish.clone_from(&enclave.publish);
    }
    let limits = &mut args.limits;
    limits.egress_connections = limits.egress_connections.or(enclave.egress.connections);
    limits.egress_rate = limits.egress_rate.or(enclave.egress.rate);
    limits.ingress_connections = limits.ingress_connections.or(enclave.ingress.connections);
    limits.ingress_rate = limits.ingress_rate.or(enclave.ingress.rate);
    if args.logs.sinks.is_empty() && enclave.log_group.is_some() {
        args.logs.sinks.push(SinkSpec::CloudWatch);
    }
    if args.logs.log_group.is_none() {
        args.logs.log_group.clone_from(&enclave.log_group);
    }
    args.logs.log_retention_days = args.logs.log_retention_days.or(enclave.log_retention);
    if args.logs.metrics_namespace.is_none() {
        let configured = &enclave.metrics_namespace;
        args.logs.metrics_namespace.clone_from(configured);
    }
}

async fn fetch_image(
    args: &RunArgs,
    enclave: &EnclaveConfig,
    region: Option<&str>,
    reporter: &Reporter,
) -> Result<PathBuf, Error> {
    let cache = Cache::new(args.image_dir.clone());
    let source = enclave.image.location.to_string();
    let start = Instant::now();
    let interval = milliseconds(PROGRESS_INTERVAL);
    let next = AtomicU64::new(0);
    let progress = |bytes: u64, total: Option<u64>| {
        let now = milliseconds(start.elapsed());
        let due = next.load(Ordering::Relaxed);
        if now >= due || total == Some(bytes) {
            next.store(now + interval, Ordering::Relaxed);
            reporter.report(&Report::Fetching {
                source: &source,
                bytes,
                total,
            });
        }
    };
    Ok(fetch::fetch(&enclave.image, region, &cache, &progress).await?)
}

fn check_signer(enclave: &EnclaveConfig, image: &Image) -> Result<(), Error> {
    let Some(wanted) = enclave.image.pcr8 else {
        return Ok(());
    };
    let found = image.measurements().pcr8;
    if found == Some(wanted) {
        return Ok(());
    }
    Err(Error::Signer {
        image: enclave.image.location.to_string(),
        found: found.map_or_else(
            || "absent, since nobody signed it,".to_owned(),
            |pcr| pcr.to_string(),
        ),
        wanted: wanted.to_string(),
    })
}

fn runtime_config(
    args: &RunArgs,
    configured: Option<&str>,
) -> Result<link::Bytes<MAX_RUNTIME_CONFIG>, Error> {
    match (&args.runtime_config, configured) {
        (Some(path), _) => Ok(link::Bytes::new(read_runtime_config(path)?)
            .ok_or_else(|| RuntimeConfigError::TooLarge(path.clone()))?),
        // Its length was checked where it was parsed.
        (None, Some(text)) => Ok(link::Bytes::new(text.as_bytes().to_vec()).unwrap_or_default()),
        (None, None) => Ok(link::Bytes::default()),
    }
}

fn gate(args: &RunArgs, id: &str, configured: Option<GateConfig>) -> Option<GateConfig> {
    let function: FunctionName = match (&args.gate.function, configured) {
        (None, configured) => return configured,
        (Some(function), _) => function.clone(),
    };
    Some(GateConfig {
        function,
        enclave_id: args
            .gate
            .enclave_id
            .clone()
            .unwrap_or_else(|| id.to_owned()),
        interval: args
            .gate
            .interval
            .map_or(DEFAULT_INTERVAL, manifest::Interval::as_duration),
    })
}

fn metrics(args: &RunArgs, id: &str) -> Result<Option<EmbeddedMetrics>, Error> {
    let Some(namespace) = args.logs.metrics_namespace.clone() else {
        return Ok(None);
    };
    if !args.logs.sinks.contains(&SinkSpec::CloudWatch) {
        return Err(Error::Usage(
            "CloudWatch makes metrics of log records: a namespace of metrics needs a log group, or --sink cloudwatch",
        ));
    }
    let enclave_id = args.gate.enclave_id.clone();
    Ok(Some(EmbeddedMetrics {
        namespace,
        enclave_id: enclave_id.unwrap_or_else(|| id.to_owned()),
    }))
}

/// Reads and checks the image without holding up the runtime.
async fn open(path: PathBuf) -> Result<Image, Error> {
    let opened = tokio::task::spawn_blocking(move || Image::open(&path)).await;
    match opened {
        Ok(image) => Ok(image?),
        Err(error) => Err(Error::system("the image cannot be read")(error.into())),
    }
}
