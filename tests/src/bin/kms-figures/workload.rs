//! The workload: this program in the enclave, which makes the calls that it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use aws_credential_types::Credentials;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use demo::signed::Place;
use hyper::Request;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::call::{answer, connection};
use crate::order::{Done, Order, Way};

/// How long credentials are kept before they are asked for again.
const KEPT: Duration = Duration::from_secs(5);
/// A key of the size of the init's, which a document is made for.
const KEY_BYTES: usize = 294;

/// Whether this process is an enclave's workload.
pub(crate) fn is_here() -> bool {
    std::env::var_os("ENCLAVE_API").is_some()
}

/// Takes orders from one connection after the other.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let client = Arc::new(Client::from_environment()?);
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening");
    loop {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let order = serde_json::from_str(&line).context("an order")?;
            let mut done = serde_json::to_vec(&client.carry_out(order).await?)?;
            done.push(b'\n');
            stream.write_all(&done).await?;
            line.clear();
        }
    }
}

/// What the environment says of the local API.
struct Client {
    /// Host and port.
    api: String,
    kms_path: String,
    credentials_path: String,
    token: String,
    kept: Mutex<Option<(Instant, Credentials)>>,
}

/// Credentials as a container gets them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handed {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

impl Client {
    fn from_environment() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
        let split = |url: &str| -> anyhow::Result<(String, String)> {
            let rest = url.strip_prefix("http://").context("no http")?;
            let (authority, path) = rest.split_once('/').context("no path")?;
            Ok((authority.to_owned(), format!("/{path}")))
        };
        let (api, kms_path) = split(&variable("AWS_ENDPOINT_URL_KMS")?)?;
        let (of_credentials, credentials_path) =
            split(&variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")?)?;
        ensure!(api == of_credentials, "two local APIs");
        Ok(Self {
            api,
            kms_path: format!("{kms_path}/"),
            credentials_path,
            token: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")?,
            kept: Mutex::default(),
        })
    }

    async fn carry_out(self: &Arc<Self>, order: Order) -> anyhow::Result<Done> {
        let order = Arc::new(order);
        let next = Arc::new(AtomicU32::new(0));
        let start = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..order.at_a_time {
            let (client, order, next) = (Arc::clone(self), Arc::clone(&order), Arc::clone(&next));
            callers.spawn(async move {
                let mut done = Done::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= order.calls {
                        return done;
                    }
                    let due = match order.rate {
                        Some(rate) => start + Duration::from_secs(number.into()) / rate,
                        None => Instant::now(),
                    };
                    sleep_until(due).await;
                    match client.call(&order).await {
                        Ok(()) => done.latencies.push(due.elapsed()),
                        Err(error) => {
                            *done.failures.entry(format!("{error:#}")).or_default() += 1;
                        }
                    }
                }
            });
        }
        let mut all = Done::default();
        while let Some(done) = callers.join_next().await {
            let done = done?;
            all.latencies.extend(&done.latencies);
            for (failure, count) in done.failures {
                *all.failures.entry(failure).or_default() += count;
            }
        }
        all.took = start.elapsed();
        Ok(all)
    }

    async fn call(&self, order: &Order) -> anyhow::Result<()> {
        let (ciphertext, key) = (&order.ciphertext, &order.key);
        let request = match order.way {
            Way::Sdk => {
                let body = json!({ "CiphertextBlob": ciphertext, "KeyId": key });
                let place = Place {
                    authority: &self.api,
                    path: &self.kms_path,
                };
                let credentials = self.credentials().await?;
                let body = body.to_string().into();
                place.request("Decrypt", &body, &credentials, SystemTime::now())?
            }
            Way::LocalApi => {
                let body = json!({ "ciphertext": ciphertext, "key_id": key });
                self.post("/v1/kms/decrypt", body.to_string())?
            }
            Way::Document => {
                let body = json!({ "public_key": STANDARD.encode([0; KEY_BYTES]) });
                self.post("/v1/attestation", body.to_string())?
            }
        };
        let body = self.answer(request).await?;
        let wanted = order.plaintext.as_bytes();
        let is_there = body.windows(wanted.len()).any(|window| window == wanted);
        ensure!(
            order.way == Way::Document || is_there,
            "an answer without the plaintext"
        );
        Ok(())
    }

    fn post(&self, path: &str, body: String) -> anyhow::Result<Request<Bytes>> {
        Ok(Request::post(path)
            .header("host", &self.api)
            .header("enclave-api", "1")
            .body(body.into())?)
    }

    /// A connection of the local API carries one request.
    async fn answer(&self, request: Request<Bytes>) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect(&self.api).await?;
        answer(&mut connection(stream).await?, request).await
    }

    /// Kept for a while, as SDKs keep them.
    async fn credentials(&self) -> anyhow::Result<Credentials> {
        let mut kept = self.kept.lock().await;
        if let Some((since, credentials)) = &*kept
            && since.elapsed() < KEPT
        {
            return Ok(credentials.clone());
        }
        let request = Request::get(&self.credentials_path)
            .header("host", &self.api)
            .header("authorization", &self.token)
            .body(Bytes::new())?;
        let handed: Handed = serde_json::from_slice(&self.answer(request).await?)?;
        let credentials = Credentials::new(
            handed.access_key_id,
            handed.secret_access_key,
            Some(handed.token),
            None,
            "container",
        );
        *kept = Some((Instant::now(), credentials.clone()));
        Ok(credentials)
    }
}
