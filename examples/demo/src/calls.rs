//! Signed calls to the KMS, as an SDK makes them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use aws_credential_types::Credentials;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use price_oracle::http::exchange;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use demo::authority::connector;
use demo::kms::Clock;
use demo::signed::Place;

/// The name in the KMS's certificate.
const NAME: &str = "localhost";
const KMS: Place<'static> = Place {
    authority: NAME,
    path: "/",
};
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Somebody who calls the KMS.
pub(crate) struct Caller {
    /// Variables of the environment by which an SDK finds the credentials.
    pub(crate) environment: Vec<(String, String)>,
    credentials: Credentials,
}

/// Why the KMS does not do what a call asks for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) name: String,
    pub(crate) message: String,
}

/// The KMS, for clients on this machine.
pub(crate) struct Kms {
    address: SocketAddr,
    clock: Clock,
    tls: TlsConnector,
}

impl Caller {
    /// From a file of the local KMS's.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let environment: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let value = |name| {
            let found = environment.iter().find(|(known, _)| known == name);
            let found = found.map(|(_, value)| value.clone());
            found.with_context(|| format!("{} has no {name}", file.display()))
        };
        let credentials = Credentials::new(
            value("AWS_ACCESS_KEY_ID")?,
            value("AWS_SECRET_ACCESS_KEY")?,
            None,
            None,
            "demo",
        );
        Ok(Self {
            environment,
            credentials,
        })
    }

    fn sign(&self, call: &str, body: &Value, clock: &Clock) -> anyhow::Result<Request<Bytes>> {
        let body = body.to_string().into();
        KMS.request(call, &body, &self.credentials, clock.now())
    }
}

impl Kms {
    pub(crate) fn new(address: SocketAddr, authority: &str, clock: Clock) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            clock,
            tls: connector(authority)?,
        })
    }

    /// What the KMS answers; the outer error is that it did not.
    pub(crate) async fn call(
        &self,
        caller: &Caller,
        call: &str,
        body: &Value,
    ) -> anyhow::Result<Result<Value, Refusal>> {
        let request = caller.sign(call, body, &self.clock)?.map(Full::new);
        let exchange = async {
            let stream = TcpStream::connect(self.address).await?;
            let stream = self
                .tls
                .connect(ServerName::try_from(NAME)?, stream)
                .await?;
            Ok::<_, anyhow::Error>(exchange(stream, request, MAX_ANSWER).await?)
        };
        let response = timeout(CALL_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| bail!("no answer within {CALL_TIMEOUT:?}"))
            .with_context(|| format!("KMS's {call}"))?;
        let answer: Value = serde_json::from_slice(response.body())?;
        if response.status().is_success() {
            return Ok(Ok(answer));
        }
        let text = |names: [&str; 2]| {
            let text = names.iter().find_map(|name| answer.get(*name)?.as_str());
            text.unwrap_or_default().to_owned()
        };
        Ok(Err(Refusal {
            name: text(["__type", "code"]),
            message: text(["message", "Message"]),
        }))
    }

    /// The same where a refusal is a failure.
    pub(crate) async fn answer(
        &self,
        caller: &Caller,
        call: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        match self.call(caller, call, body).await? {
            Ok(answer) => Ok(answer),
            Err(Refusal { name, message }) => bail!("KMS's {call}: {name}: {message}"),
        }
    }
}
