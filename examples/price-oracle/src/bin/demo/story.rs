//! The demo, step by step.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use attestation::{Policy, Roots, Time, verify};
use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::rand::fill;
use bytes::Bytes;
use eif::{Measurements, Pcr};
use http_body_util::Full;
use hyper::Request;
use price_oracle::SignedQuote;
use price_oracle::http::exchange;
use price_oracle::probe::{Outcome, ProbeReport, Way};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Cli;
use crate::agent::{Agent, Serving, output};
use crate::prices::{self, Authority, Prices};
use crate::screen::{Screen, mebibytes, seconds};
use crate::{leftovers, oci};

/// The example's manifest; its image is the folder `image` next to it.
const MANIFEST: &str = include_str!("../../../enclave.toml");
/// The name in the manifest.
const NAME: &str = "price-oracle";
/// The port in the manifest.
const PORT: u16 = 8080;
/// The register that the runtime configuration is measured into.
const RUNTIME_CONFIG_PCR: u8 = 16;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer of the service that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
const NONCE_BYTES: usize = 32;

/// What a verifier knows of the enclave before it has spoken.
struct Expected {
    measurements: Measurements,
    runtime_config: Pcr,
}

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
        "simulated on this machine: no root, no AWS account, no Nitro hardware",
    );

    screen.phase("build", "Build the enclave image");
    let prices = Prices::start().await?;
    let runtime_config = runtime_config(&prices.authority);
    let expected = Expected {
        measurements: build(cli, folder, screen).await?,
        runtime_config: measure(&runtime_config),
    };

    screen.phase("start", "Start it");
    let (state, temporary) = (folder.join("state"), folder.join("tmp"));
    for folder in [&state, &temporary] {
        fs::create_dir(folder).context("cannot make the agent's folders")?;
    }
    let run = run_arguments(folder, &state, &prices, &runtime_config)?;
    let running = Agent::start(&cli.parent_agent, run, &temporary, screen)?;
    let running = agent.insert(running);
    let enclave = running.ready().await?;
    screen.fact("ready after", &seconds(enclave.boot));
    screen.fact("ingress", &format!("http://{}", enclave.address));

    screen.phase("quote", "Ask it for a price");
    let quote = quote(&enclave, screen).await?;

    screen.phase("egress", "Try to leave it by other ways");
    egress(&enclave, screen).await?;

    screen.phase("attest", "Challenge it");
    attest(cli, &state, &enclave, &expected, &quote, screen).await?;

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
    screen.fact("left behind", "no process, no socket, no file");
    screen.proven("it is gone without a trace: no process, socket or file is left");

    screen.summary(&[
        "isolation: `sim` runs the image's init as an ordinary process; `cargo xtask test` boots the same file in QEMU",
        "AWS's signature: these documents are signed by a software NSM, and only its root accepts them",
    ]);
    Ok(())
}

/// What the deployment decides, and the image does not.
fn runtime_config(authority: &str) -> Vec<u8> {
    let upstream = format!("https://{}:443{}", prices::HOST, prices::PATH);
    let config = serde_json::json!({ "upstream": upstream, "ca": authority });
    config.to_string().into_bytes()
}

/// What PCR16 holds once `enclave-init` has measured this configuration.
fn measure(runtime_config: &[u8]) -> Pcr {
    Pcr::ZERO.extend(digest(&SHA384, runtime_config).as_ref())
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
    screen.fact("PCR0 whole image", &short(&measurements.pcr0));
    screen.fact("PCR1 kernel and init", &short(&measurements.pcr1));
    screen.fact("PCR2 application", &short(&measurements.pcr2));
    Ok(measurements)
}

fn image(folder: &Path) -> PathBuf {
    folder.join("price-oracle.eif")
}

fn run_arguments(
    folder: &Path,
    state: &Path,
    prices: &Prices,
    runtime_config: &[u8],
) -> anyhow::Result<Vec<OsString>> {
    let file = folder.join("runtime-config.json");
    fs::write(&file, runtime_config).context("cannot write the runtime configuration")?;
    Ok(vec![
        "run".into(),
        image(folder).into(),
        "--hypervisor".into(),
        "sim".into(),
        "--json".into(),
        "--state-dir".into(),
        state.into(),
        "--runtime-config".into(),
        file.into(),
        "--connect-to".into(),
        format!("{}:443={}", prices::HOST, prices.address).into(),
        "--publish".into(),
        format!("127.0.0.1:0:{PORT}").into(),
    ])
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
        &format!("{} at {}", quote.quote.price, quote.time),
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

async fn attest(
    cli: &Cli,
    state: &Path,
    enclave: &Serving,
    expected: &Expected,
    quote: &SignedQuote,
    screen: &Screen,
) -> anyhow::Result<()> {
    let root = fs::read(&enclave.nsm_root)
        .with_context(|| format!("cannot read {}", enclave.nsm_root.display()))?;
    let roots = Roots::from_pem(&root)?;

    let nonce = fresh_nonce()?;
    let path = format!("/attestation?nonce={}", hex::encode(nonce));
    let document = get(enclave.address, &path).await?;
    let start = Instant::now();
    let verification = verify(&document, &roots, &expected.policy(&nonce)?, Time::Now);
    let took = seconds(start.elapsed());
    let checks = verification.report.checks.len();
    let accepted = verification.outcome.context("the enclave's document")?;
    screen.fact(
        "from the service",
        &format!("{} bytes, {checks} checks passed in {took}", document.len()),
    );
    let key = accepted
        .public_key()
        .context("the document carries no key")?;
    quote.verify(key)?;
    screen.fact("the quote's signature", "made by the attested key");

    let own_nonce = fresh_nonce()?;
    let mut arguments = target("attest", state);
    arguments.extend(["--nonce".into(), hex::encode(own_nonce).into()]);
    let relayed = output(&cli.parent_agent, arguments)
        .await
        .context("parent-agent attest")?;
    verify(&relayed, &roots, &expected.policy(&own_nonce)?, Time::Now)
        .outcome
        .context("the document that parent-agent relayed")?;
    screen.fact(
        "from parent-agent",
        &format!("{} bytes, accepted", relayed.len()),
    );

    screen.proven(
        "it runs the image that was built: PCR0, PCR1 and PCR2 are those that image-builder wrote",
    );
    screen.proven(
        "it was given this runtime configuration, and with it this price source: PCR16 matches",
    );
    screen.proven("the documents are fresh: each carries the nonce of its challenge");
    screen.proven("the quote was signed in it: the document attests the key");
    refusals(&document, &nonce, &roots, expected, screen)
}

/// The same document, held against what it must not pass for.
fn refusals(
    document: &[u8],
    nonce: &[u8],
    roots: &Roots,
    expected: &Expected,
    screen: &Screen,
) -> anyhow::Result<()> {
    let other_image = Expected {
        measurements: Measurements {
            pcr0: expected.measurements.pcr0.extend(b"one byte more"),
            ..expected.measurements
        },
        ..*expected
    };
    let other_config = Expected {
        runtime_config: measure(&runtime_config(&Authority::new()?.pem)),
        ..*expected
    };
    for (label, roots, policy, rule) in [
        (
            "as another image",
            roots,
            other_image.policy(nonce)?,
            "policy.pcr.0",
        ),
        (
            "with another source",
            roots,
            other_config.policy(nonce)?,
            "policy.pcr.16",
        ),
        (
            "replayed",
            roots,
            expected.policy(&fresh_nonce()?)?,
            "policy.nonce",
        ),
        (
            "as AWS's",
            &Roots::aws(),
            expected.policy(nonce)?,
            "chain.root",
        ),
    ] {
        match verify(document, roots, &policy, Time::Now).outcome {
            Ok(_) => bail!("the document was accepted {label}"),
            Err(rejection) if rejection.rule.to_string() == rule => {
                screen.fact(label, &format!("refused: {rule}"));
            }
            Err(rejection) => bail!("{label}: {rejection}, where {rule} should have refused"),
        }
    }
    screen.proven("a document of another image, with another source, replayed, or under AWS's root is refused");
    Ok(())
}

impl Expected {
    fn policy(&self, nonce: &[u8]) -> anyhow::Result<Policy> {
        Ok(Policy::builder()
            .measurements(self.measurements)
            .pcr(RUNTIME_CONFIG_PCR, self.runtime_config)
            .nonce(nonce.to_vec())
            .build()?)
    }
}

fn fresh_nonce() -> anyhow::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    fill(&mut nonce).ok().context("no random bytes")?;
    Ok(nonce)
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

/// The beginning of a register: enough to recognise it by.
fn short(pcr: &Pcr) -> String {
    let text = pcr.to_string();
    format!("{}…", text.get(..32).unwrap_or(&text))
}
