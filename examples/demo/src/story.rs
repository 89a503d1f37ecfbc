//! The demo, step by step.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use price_oracle::SignedQuote;
use price_oracle::probe::{Outcome, ProbeReport, Way};
use time::format_description::well_known::Rfc3339;

use demo::leftovers;

use crate::agent::{Agent, Serving, output};
use crate::images::{self, Image};
use crate::prices::{self, Prices};
use crate::proof::{self, Expected};
use crate::runs::Runs;
use crate::screen::{Screen, mebibytes, seconds};
use crate::secret;
use crate::service::{get, quote};
use crate::{Cli, Hypervisor};

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
    let image = build(cli, folder, screen).await?;
    let expected = Expected::new(image.measurements, &runtime_config);

    screen.phase("start", "Start it");
    let (state, temporary) = (folder.join("state"), folder.join("tmp"));
    for folder in [&state, &temporary] {
        fs::create_dir(folder).context("cannot make the agent's folders")?;
    }
    let config_file = folder.join("runtime-config.json");
    fs::write(&config_file, &runtime_config).context("cannot write the runtime configuration")?;
    let runs = Runs {
        cli,
        prices: &prices,
        runtime_config: config_file,
        state,
        temporary,
        kept: folder.join("kept"),
    };
    let arguments = runs.arguments(cli.hypervisor, &image.file);
    let running = runs.start(arguments, &[], Some(screen))?;
    let running = agent.insert(running);
    let enclave = running.ready().await?;
    screen.fact("ready after", &seconds(enclave.boot));
    screen.fact("ingress", &format!("http://{}", enclave.address));

    screen.phase("quote", "Ask it for a price");
    let quote = quote(&enclave, prices::PAIR, prices::PRICE).await?;
    show(&quote, screen)?;
    let refused = get(enclave.address, &format!("/quote/{}", prices::SIGNED_PAIR)).await;
    let refused = refused.err().map(|error| error.to_string());
    ensure!(
        refused.is_some_and(|error| error.contains("401")),
        "the price source answers requests that are not signed with its key"
    );
    screen.fact(
        &format!("GET /quote/{}", prices::SIGNED_PAIR),
        "none: the source wants requests that are signed with its key, a secret",
    );

    screen.phase("egress", "Try to leave it by other ways");
    egress(&enclave, screen).await?;

    screen.phase("attest", "Challenge it");
    let documents = challenge(&runs, &enclave).await?;
    match &enclave.nsm_root {
        Some(root) => proof::signed(root, &documents, &expected, &quote, screen)?,
        None => proof::unsigned(&documents, &expected, &quote, screen)?,
    }

    screen.phase("stop", "Stop it");
    output(&cli.parent_agent, runs.target("stop"))
        .await
        .context("parent-agent stop")?;
    running.stopped().await?;
    nothing_left(folder, &[&runs.state, &runs.temporary])?;
    screen.fact(
        "left behind",
        "its logs; no process, no socket, no other file",
    );
    screen.proven("it is gone and left only its logs: no process, socket or other file");

    secret::tell(&runs, folder, agent, screen).await?;
    nothing_left(folder, &[&runs.state, &runs.temporary])?;

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

async fn build(cli: &Cli, folder: &Path, screen: &Screen) -> anyhow::Result<Image> {
    let image = images::build(cli, folder, images::MANIFEST, &cli.workload).await?;
    screen.fact(
        "container image",
        &format!(
            "{}: one static program, /etc/passwd",
            mebibytes(image.layer)
        ),
    );
    let (size, took) = (mebibytes(image.size), seconds(image.took));
    screen.fact("enclave image", &format!("{size} in {took}"));
    let measurements = &image.measurements;
    screen.fact("PCR0 whole image", &proof::short(&measurements.pcr0));
    screen.fact("PCR1 kernel and init", &proof::short(&measurements.pcr1));
    screen.fact("PCR2 application", &proof::short(&measurements.pcr2));
    Ok(image)
}

fn show(quote: &SignedQuote, screen: &Screen) -> anyhow::Result<()> {
    screen.fact(
        &format!("GET /quote/{}", prices::PAIR),
        &format!("{} at {}", quote.quote.price, quote.time.format(&Rfc3339)?),
    );
    screen.fact(
        "fetched from",
        &format!("https://{}, TLS from inside the enclave", prices::HOST),
    );
    Ok(())
}

fn nothing_left(folder: &Path, folders: &[&Path]) -> anyhow::Result<()> {
    let left = leftovers::find(folder, folders);
    ensure!(
        left.is_empty(),
        "the enclave left behind: {}",
        left.join(", ")
    );
    Ok(())
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
async fn challenge(runs: &Runs<'_>, enclave: &Serving) -> anyhow::Result<proof::Documents> {
    let nonce = proof::fresh_nonce()?;
    let path = format!("/attestation?nonce={}", hex::encode(nonce));
    let of_service = get(enclave.address, &path).await?.to_vec();
    let agents_nonce = proof::fresh_nonce()?;
    let mut arguments = runs.target("attest");
    arguments.extend(["--nonce".into(), hex::encode(agents_nonce).into()]);
    let of_agent = output(&runs.cli.parent_agent, arguments)
        .await
        .context("parent-agent attest")?;
    Ok(proof::Documents {
        of_service: (of_service, nonce),
        of_agent: (of_agent, agents_nonce),
    })
}
