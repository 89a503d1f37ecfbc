//! The same `Decrypt` in several ways, one call after the other.

use std::time::Instant;

use anyhow::{bail, ensure};
use demo::authority::connector;
use enveloped_data::RecipientKey;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use nsm::{Request, Response};
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::call::{answer, connection};
use crate::cloud::HOST;
use crate::order::{Latencies, Way};
use crate::show;
use crate::world::{World, check, decoded, host_request};

/// Rounds, in each of which so many calls are made in every way: what disturbs the machine
/// for a while disturbs all of them.
const ROUNDS: u32 = 20;
const CALLS: u32 = 50;

/// What the host does itself, without an enclave.
struct Host {
    connection: SendRequest<Full<Bytes>>,
    module: SoftwareNsm,
    key: RecipientKey,
}

/// How long everything took.
#[derive(Default)]
struct Figures {
    plain: Latencies,
    with_recipient: Latencies,
    document: Latencies,
    exchange: Latencies,
    opening: Latencies,
    sdk: Latencies,
    local_api: Latencies,
    local_document: Latencies,
    kms_plain: Latencies,
    kms_with_recipient: Latencies,
}

/// Measures, and prints.
pub(crate) async fn compare(world: &mut World) -> anyhow::Result<()> {
    let mut host = Host::new(world).await?;
    round(world, &mut host, &mut Figures::default()).await?;
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        round(world, &mut host, &mut figures).await?;
    }
    figures.print();
    Ok(())
}

async fn round(world: &mut World, host: &mut Host, figures: &mut Figures) -> anyhow::Result<()> {
    for _ in 0..CALLS {
        host.plain(world, figures).await?;
    }
    for _ in 0..CALLS {
        host.with_recipient(world, figures).await?;
    }
    for (way, latencies) in [
        (Way::Sdk, &mut figures.sdk),
        (Way::LocalApi, &mut figures.local_api),
        (Way::Document, &mut figures.local_document),
    ] {
        latencies.extend(&world.one_by_one(way, CALLS).await?.latencies);
    }
    Ok(())
}

impl Host {
    async fn new(world: &World) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(world.cloud.kms_address).await?;
        stream.set_nodelay(true)?;
        let stream = connector(&world.cloud.authority)?
            .connect(ServerName::try_from(HOST)?, stream)
            .await?;
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: Some(world.measurements),
        };
        let (certificate, key) = &world.nsm_root;
        Ok(Self {
            connection: connection(stream).await?,
            module: SoftwareNsm::new(identity, TestRoot::from_pem(certificate, key)?)?,
            key: RecipientKey::generate()?,
        })
    }

    async fn plain(&mut self, world: &World, figures: &mut Figures) -> anyhow::Result<()> {
        let start = Instant::now();
        let request = host_request("Decrypt", &world.open.body(None))?;
        let answered = answer(&mut self.connection, request.clone()).await?;
        check(&decoded(&answered, "Plaintext")?)?;
        figures.plain.push(start.elapsed());
        let start = Instant::now();
        let answered = world.cloud.kms.handle(&request);
        ensure!(answered.status().is_success(), "KMS refuses: {answered:?}");
        figures.kms_plain.push(start.elapsed());
        Ok(())
    }

    async fn with_recipient(&mut self, world: &World, figures: &mut Figures) -> anyhow::Result<()> {
        let start = Instant::now();
        let document = self.document()?;
        let has_document = Instant::now();
        let body = world.attested.body(Some(&document));
        let request = host_request("Decrypt", &body)?;
        let answered = answer(&mut self.connection, request).await?;
        let sealed = decoded(&answered, "CiphertextForRecipient")?;
        let has_answer = Instant::now();
        check(&self.key.open(&sealed)?)?;
        let end = Instant::now();
        figures.document.push(has_document - start);
        figures.exchange.push(has_answer - has_document);
        figures.opening.push(end - has_answer);
        figures.with_recipient.push(end - start);
        // With another document: of one that it has seen, KMS might know something already.
        let body = world.attested.body(Some(&self.document()?));
        let request = host_request("Decrypt", &body)?;
        let start = Instant::now();
        let answered = world.cloud.kms.handle(&request);
        ensure!(answered.status().is_success(), "KMS refuses: {answered:?}");
        figures.kms_with_recipient.push(start.elapsed());
        Ok(())
    }

    fn document(&mut self) -> anyhow::Result<Vec<u8>> {
        let request = Request::Attestation {
            user_data: None,
            nonce: None,
            public_key: Some(self.key.public_key_der().to_vec().into()),
        };
        match self.module.answer(request) {
            Response::Attestation { document } => Ok(document),
            other => bail!("the module answered {other:?}"),
        }
    }
}

impl Figures {
    fn print(&self) {
        println!(
            "one Decrypt after the other, {} in each way, in us: median; 99th percentile",
            self.plain.count()
        );
        for (what, latencies) in [
            ("a. from the host, without Recipient", &self.plain),
            ("     KMS's own part", &self.kms_plain),
            ("b. from the host, with Recipient", &self.with_recipient),
            ("     document (security module)", &self.document),
            ("     call", &self.exchange),
            ("       KMS's own part", &self.kms_with_recipient),
            ("     opening (RSA-2048)", &self.opening),
            ("c. from the workload, signed as SDKs sign", &self.sdk),
            ("   the same by POST /v1/kms/decrypt", &self.local_api),
            (
                "     a document alone, by POST /v1/attestation",
                &self.local_document,
            ),
        ] {
            let (half, most) = (latencies.percentile(50), latencies.percentile(99));
            show(what, format!("{half}; {most}"));
        }
        let half = |latencies: &Latencies| latencies.percentile(50);
        let (plain, recipient) = (half(&self.plain), half(&self.with_recipient));
        for (name, latencies) in [("SDK", &self.sdk), ("local API", &self.local_api)] {
            let ours = half(latencies).saturating_sub(recipient);
            show(
                &format!("{name}: of the call without Recipient (c / a)"),
                format!("{:.2} x", quotient(half(latencies), plain)),
            );
            show(
                &format!("{name}: the init's and the agent's part (c - b)"),
                format!("{ours} us"),
            );
        }
        show(
            "what Recipient needs in itself (b / a)",
            format!("{:.2} x", quotient(recipient, plain)),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn quotient(of: u64, by: u64) -> f64 {
    of as f64 / by.max(1) as f64
}
