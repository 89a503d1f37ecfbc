//! The demo, step by step.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use measurements::Measurements;
use price_oracle::SignedQuote;
use price_oracle::http::exchange;
use price_oracle::probe::{Outcome, ProbeReport, Way};
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpStream;
use tokio::time::timeout;

use demo::{leftovers, oci};

use crate::agent::{Agent, Serving, output};
use crate::prices::{self, Prices};
use crate::proof::{self, Expected};
use crate::screen::{Screen, mebibytes, seconds};
use crate::{Cli, Hypervisor};

/// The example's manifest; its image is the folder `image` next to it.
const MANIFEST: &str = include_str!("../../price-oracle/enclave.toml");
/// The name in the manifest.
const NAME: &str = "price-oracle";
/// The port in the manifest.
const PORT: u16 = 8080;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer of the service that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Builds, starts, uses, attests and stops. What it starts it puts into
/// `agent`, for the caller to end.
pub(crate) async fn tell(
    cli: &Cli,
    folder: &Path,
    agent: &mut Option<Agent>,
    screen: &Arc<Screen>,
) -> anyhow::Result<()> {
    screen.title(
        "Prices, fetched and signed inside an enclave",
        match cli.hypervisor {
            Hypervisor::Sim => "simulated on this machine: no root, no AWS account, no Nitro hardware",
            Hypervisor::Qemu => "in a virtual machine with a kernel, vsock and an NSM of its own: no AWS account, no Nitro hardware",
        },
    );

    screen.phase("build", "Build the enclave image");
    let prices = Prices::start().await?;
    let runtime_config = prices::runtime_config(&prices.authority);
    let expected = Expected::new(build(cli, folder, screen).await?, &runtime_config);

    screen.phase("start", "Start it");
    let (state, temporary) = (folder.join("state"), folder.join("tmp"));
    for folder in [&state, &temporary] {
        fs::create_dir(folder).context("cannot make the agent's folders")?;
    }
    let run = run_arguments(cli, folder, &state, &prices, &runtime_config)?;
    let running = Agent::start(
        &cli.parent_agent,
        run,
        &temporary,
        &folder.join("kept"),
        screen,
    )?;
    let running = agent.insert(running);
    let enclave = running.ready().await?;
    screen.fact("ready after", &seconds(enclave.boot));
    screen.fact("ingress", &format!("http://{}", enclave.address));

    screen.phase("quote", "Ask it for a price");
    let quote = quote(&enclave, screen).await?;

    screen.phase("egress", "Try to leave it by other ways");
    egress(&enclave, screen).await?;

    screen.phase("attest", "Challenge it");
    let documents = challenge(cli, &state, &enclave).await?;
    match &enclave.nsm_root {
        Some(root) => proof::signed(root, &documents, &expected, &quote, screen)?,
        None => proof::unsigned(&documents, &expected, &quote, screen)?,
    }

    screen.phase("stop", "Stop it");
    output(&cli.parent_agent, target("stop", &state))
        .await
        .context("parent-agent stop")?;
    running.stopped().await?;
    let left = leftovers::find(folder, &[&state, &temporary]);
    ensure!(
        left.is_empty(),
        "the enclave left behind: {}",
        left.join(", ")
    );
    screen.fact(
        "left behind",
        "its logs; no process, no socket, no other file",
    );
    screen.proven("it is gone and left only its logs: no process, socket or other file");

    screen.summary(match cli.hypervisor {
        Hypervisor::Sim => &[
            "isolation: sim runs the image's init as an ordinary process; `cargo xtask demo qemu` boots the same file",
            "AWS's signature: these documents are signed by a software NSM, and only its root accepts them",
        ],
        Hypervisor::Qemu => &[
            "a signature: QEMU's NSM signs nothing; `cargo xtask demo` verifies signed documents of the same file",
            "isolation from this machine, which sees all of the virtual machine's memory",
        ],
    });
    Ok(())
}

async fn build(cli: &Cli, folder: &Path, screen: &Screen) -> anyhow::Result<Measurements> {
    let layer = oci::write(&folder.join("image"), &cli.workload)?;
    screen.fact(
        "container image",
        &format!("{}: one static program, /etc/passwd", mebibytes(layer)),
    );
    let manifest = folder.join("enclave.toml");
    fs::write(&manifest, MANIFEST).context("cannot write enclave.toml")?;
    let image = image(folder);
    let printed = folder.join("measurements.json");
    let start = Instant::now();
    output(
        &cli.image_builder,
        [
            "build".into(),
            "--manifest".into(),
            manifest.into_os_string(),
            "--init".into(),
            cli.enclave_init.clone().into_os_string(),
            "--kernel".into(),
            cli.kernel.clone().into_os_string(),
            "--output".into(),
            image.clone().into_os_string(),
            "--measurements".into(),
            printed.clone().into_os_string(),
        ],
    )
    .await
    .context("image-builder build")?;
    let took = seconds(start.elapsed());
    let size = fs::metadata(&image)
        .context("image-builder wrote no image")?
        .len();
    screen.fact("enclave image", &format!("{} in {took}", mebibytes(size)));
    let printed = fs::read(printed).context("image-builder wrote no measurements")?;
    let measurements: Measurements =
        serde_json::from_slice(&printed).context("image-builder's measurements")?;
    screen.fact("PCR0 whole image", &proof::short(&measurements.pcr0));
    screen.fact("PCR1 kernel and init", &proof::short(&measurements.pcr1));
    screen.fact("PCR2 application", &proof::short(&measurements.pcr2));
    Ok(measurements)
}

fn image(folder: &Path) -> PathBuf {
    folder.join("price-oracle.eif")
}

fn run_arguments(
    cli: &Cli,
    folder: &Path,
    state: &Path,
    prices: &Prices,
    runtime_config: &[u8],
) -> anyhow::Result<Vec<OsString>> {
    let file = folder.join("runtime-config.json");
    fs::write(&file, runtime_config).context("cannot write the runtime configuration")?;
    let mut arguments: Vec<OsString> = vec!["run".into(), image(folder).into()];
    arguments.extend(match cli.hypervisor {
        Hypervisor::Sim => vec!["--hypervisor".into(), "sim".into()],
        Hypervisor::Qemu => vec![
            "--hypervisor".into(),
            "qemu".into(),
            "--qemu-binary".into(),
            cli.qemu_binary.clone().into(),
            "--vhost-device-vsock".into(),
            cli.vhost_device_vsock.clone().into(),
        ],
    });
    arguments.extend([
        "--json".into(),
        "--state-dir".into(),
        state.into(),
        "--runtime-config".into(),
        file.into(),
        "--connect-to".into(),
        format!("{}:443={}", prices::HOST, prices.address).into(),
        "--publish".into(),
        format!("127.0.0.1:0:{PORT}").into(),
    ]);
    Ok(arguments)
}

/// The arguments of a command for the running enclave.
fn target(command: &str, state: &Path) -> Vec<OsString> {
    vec![
        command.into(),
        "--name".into(),
        NAME.into(),
        "--state-dir".into(),
        state.into(),
    ]
}

async fn quote(enclave: &Serving, screen: &Screen) -> anyhow::Result<SignedQuote> {
    let answer = get(enclave.address, "/quote/BTC-USD").await?;
    let quote: SignedQuote = serde_json::from_slice(&answer).context("no signed quote")?;
    ensure!(
        quote.quote.price.to_string() == prices::PRICE,
        "the source's price is {}, the enclave quotes {}",
        prices::PRICE,
        quote.quote.price
    );
    screen.fact(
        "GET /quote/BTC-USD",
        &format!("{} at {}", quote.quote.price, quote.time.format(&Rfc3339)?),
    );
    screen.fact(
        "fetched from",
        &format!("https://{}, TLS from inside the enclave", prices::HOST),
    );
    Ok(quote)
}

async fn egress(enclave: &Serving, screen: &Screen) -> anyhow::Result<()> {
    let answer = get(enclave.address, "/probe-egress").await?;
    let report: ProbeReport = serde_json::from_slice(&answer).context("no probe report")?;
    for attempt in &report.attempts {
        let way = match attempt.way {
            Way::Name => "by name",
            Way::Proxy => "through the proxy",
            Way::Address => "by address",
        };
        let took = seconds(Duration::from_micros(attempt.took_us));
        ensure!(
            attempt.outcome == Outcome::Refused,
            "{} {way}: {} ({})",
            attempt.destination,
            attempt.reason,
            took
        );
        screen.fact(
            way,
            &format!(
                "{} refused in {took}: {}",
                attempt.destination, attempt.reason
            ),
        );
    }
    ensure!(
        report
            .attempts
            .iter()
            .any(|attempt| attempt.way == Way::Proxy),
        "the enclave has no proxy to ask"
    );
    screen.proven(
        "egress ends at the allowlist: other names, proxied names and addresses are refused",
    );
    Ok(())
}

/// Asks for two documents, each over a path of its own and with a fresh nonce.
async fn challenge(cli: &Cli, state: &Path, enclave: &Serving) -> anyhow::Result<proof::Documents> {
    let nonce = proof::fresh_nonce()?;
    let path = format!("/attestation?nonce={}", hex::encode(nonce));
    let of_service = get(enclave.address, &path).await?.to_vec();
    let agents_nonce = proof::fresh_nonce()?;
    let mut arguments = target("attest", state);
    arguments.extend(["--nonce".into(), hex::encode(agents_nonce).into()]);
    let of_agent = output(&cli.parent_agent, arguments)
        .await
        .context("parent-agent attest")?;
    Ok(proof::Documents {
        of_service: (of_service, nonce),
        of_agent: (of_agent, agents_nonce),
    })
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let request = Request::builder()
        .uri(path)
        .header("host", address.to_string())
        .body(Full::default())?;
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        Ok::<_, anyhow::Error>(exchange(stream, request, MAX_ANSWER).await?)
    };
    let response = timeout(REQUEST_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| bail!("no answer within {REQUEST_TIMEOUT:?}"))
        .with_context(|| format!("GET {path}"))?;
    if !response.status().is_success() {
        bail!(
            "GET {path}: {}: {}",
            response.status(),
            String::from_utf8_lossy(response.body())
        );
    }
    Ok(response.into_body())
}
