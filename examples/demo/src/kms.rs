//! A KMS in software on this machine, by HTTPS: for enclaves under `sim`, whose documents
//! AWS's KMS does not accept.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use attestation::Roots;
use aws_lc_rs::rand;
use software_kms::{Credentials, SoftwareKms, serve_connection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::private_file;

/// The account and the region of its keys.
pub const ACCOUNT: &str = "000000000000";
/// As [`ACCOUNT`].
pub const REGION: &str = "eu-west-1";
/// The role of the parent instance, whose credentials enclaves have.
pub const ENCLAVE_ROLE: &str = "arn:aws:iam::000000000000:role/Enclave";
/// Another role, whose credentials show what a policy refuses.
pub const OTHER_ROLE: &str = "arn:aws:iam::000000000000:role/Other";
/// Who makes keys and encrypts.
pub const OPERATOR: &str = "arn:aws:iam::000000000000:user/operator";
/// What the server is called in its certificate.
pub const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
const AUTHORITY: &str = "Authority of a local software KMS";
/// The bytes of a secret access key.
const SECRET_BYTES: usize = 20;
/// Most connections at a time; a further one waits.
const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A KMS that is not served yet.
pub struct LocalKms {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    kms: Arc<SoftwareKms>,
    clock: Clock,
}

/// The KMS's clock.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// By how many seconds it is ahead of the system's.
    ahead: Arc<AtomicU64>,
}

impl Clock {
    /// Sets it ahead.
    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// What it shows.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(self.ahead.load(Ordering::Relaxed))
    }
}

impl LocalKms {
    /// Believes documents under these roots (PEM). The folder, which is made, has its
    /// authority in `authority.pem`, which is kept, and the credentials of [`ENCLAVE_ROLE`],
    /// [`OTHER_ROLE`] and [`OPERATOR`] in `enclave.env`, `other.env` and `operator.env`, which
    /// are new.
    pub async fn bind(address: SocketAddr, nsm_root: &str, folder: &Path) -> anyhow::Result<Self> {
        let roots = Roots::from_pem(nsm_root.as_bytes()).context("the root of the documents")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let acceptor = Authority::open(folder, AUTHORITY)?.acceptor(&NAMES);
        let acceptor = acceptor.context("no certificate for the KMS")?;
        let clock = Clock::default();
        let of_kms = clock.clone();
        let kms = SoftwareKms::new(REGION, ACCOUNT.parse()?, roots);
        let mut kms = kms.with_clock(move || of_kms.now());
        for (arn, file) in [
            (ENCLAVE_ROLE, "enclave.env"),
            (OTHER_ROLE, "other.env"),
            (OPERATOR, "operator.env"),
        ] {
            let credentials = credentials(arn)?;
            private_file::write(
                &folder.join(file),
                &format!(
                    "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\nAWS_REGION={REGION}\n",
                    credentials.access_key_id, credentials.secret_access_key
                ),
            )?;
            kms.admit(credentials)?;
        }
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        Ok(Self {
            listener,
            acceptor,
            kms: Arc::new(kms),
            clock,
        })
    }

    /// Where it is: `https://localhost:8443`.
    pub fn endpoint(&self) -> anyhow::Result<String> {
        Ok(format!("https://localhost:{}", self.address()?.port()))
    }

    /// Where it listens.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// The clock by which requests and documents are fresh or not.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Serves until the future is dropped.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (acceptor, kms) = (self.acceptor.clone(), Arc::clone(&self.kms));
            tokio::spawn(async move {
                let _place = place;
                connection(stream, acceptor, &kms).await;
            });
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, kms: &SoftwareKms) {
    // A connection that failed is its client's to report.
    if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        serve_connection(stream, kms).await;
    }
}

fn credentials(arn: &str) -> anyhow::Result<Credentials> {
    let random = || {
        let mut bytes = [0; SECRET_BYTES];
        rand::fill(&mut bytes).map_err(|_| anyhow!("the random number generator fails"))?;
        Ok::<_, anyhow::Error>(hex::encode_upper(bytes))
    };
    let access_key_id = format!("AKIA{}", random()?.get(..16).unwrap_or_default());
    Ok(Credentials {
        access_key_id,
        secret_access_key: random()?,
        session_token: None,
        arn: arn.to_owned(),
    })
}
