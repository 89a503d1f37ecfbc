//! A KMS in software on this machine, by HTTPS: for enclaves under `sim`, whose documents
//! AWS's KMS does not accept.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use attestation::Roots;
use aws_lc_rs::rand;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use software_kms::{Credentials, SoftwareKms, serve_connection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The account and the region of its keys.
pub const ACCOUNT: &str = "000000000000";
/// As [`ACCOUNT`].
pub const REGION: &str = "eu-west-1";
/// The role of the parent instance, whose credentials enclaves have.
pub const ENCLAVE_ROLE: &str = "arn:aws:iam::000000000000:role/Enclave";
/// Who makes keys and encrypts.
pub const OPERATOR: &str = "arn:aws:iam::000000000000:user/operator";
/// What the server is called in its certificate.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
/// The file with the certificate of the authority, which an image has as the KMS's root.
const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority-key.pem";
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
}

impl LocalKms {
    /// Believes documents under these roots (PEM). The folder, which is made, has its
    /// authority, which is kept, and the credentials of [`ENCLAVE_ROLE`] and [`OPERATOR`] in
    /// `enclave.env` and `operator.env`, which are new.
    pub async fn bind(address: SocketAddr, nsm_root: &str, folder: &Path) -> anyhow::Result<Self> {
        let roots = Roots::from_pem(nsm_root.as_bytes()).context("the root of the documents")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let acceptor = acceptor(&authority(folder)?).context("no certificate for the KMS")?;
        let mut kms = SoftwareKms::new(REGION, ACCOUNT.parse()?, roots);
        for (arn, file) in [(ENCLAVE_ROLE, "enclave.env"), (OPERATOR, "operator.env")] {
            let credentials = credentials(arn)?;
            write(
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
        })
    }

    /// Where it is: `https://localhost:8443`.
    pub fn endpoint(&self) -> anyhow::Result<String> {
        let port = self.listener.local_addr()?.port();
        Ok(format!("https://localhost:{port}"))
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

/// The authority in the folder, or a new one.
fn authority(folder: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let (certificate, key) = (folder.join(AUTHORITY), folder.join(AUTHORITY_KEY));
    if let (Some(certificate), Some(key)) = (read(&certificate)?, read(&key)?) {
        let key = KeyPair::from_pem(&key);
        let issuer = key.and_then(|key| Issuer::from_ca_cert_pem(&certificate, key));
        return issuer.with_context(|| {
            format!(
                "the authority in {} cannot be used; without {AUTHORITY} a new one is made, which images do not know",
                folder.display()
            )
        });
    }
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .distinguished_name
        .push(DnType::CommonName, "Authority of a local software KMS");
    // The certificate comes last: with it, both are there.
    write(&key, &pair.serialize_pem())?;
    write(&certificate, &params.self_signed(&pair)?.pem())?;
    Ok(Issuer::new(params, pair))
}

fn acceptor(authority: &Issuer<'static, KeyPair>) -> anyhow::Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(NAMES.map(str::to_owned))?.signed_by(&key, authority)?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
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

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Writes a file that nobody else reads.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| path.display().to_string())
}
