//! The service as a whole: configuration, start and end.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use attestation::{Roots, Verifier};
use attestation_results::{Issuer, KeyRing, KeyRingError, Rotation};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, mpsc};

use crate::access_log::AccessLog;
use crate::appraiser::Appraiser;
use crate::challenges::{self, ChallengeKeyError, Challenges};
use crate::clients::ForwardedHeader;
use crate::crowd::Crowd;
use crate::limits::{BACKLOG, OpenRequests, RateLimiter, SEND_BUFFER};
use crate::metrics::Metrics;
use crate::policies::{PolicySet, PolicySetError};
use crate::shared::Shared;
use crate::store::{Store, StoreError};
use crate::swap::Swap;
use crate::upkeep::{Command, Upkeep};
use crate::{api, clock, connections};

/// How a service works.
#[derive(Debug)]
pub struct Config {
    /// The folder of policies.
    pub policies: PathBuf,
    /// Whether requests may bring policies of their own.
    pub inline_policies: bool,
    /// The folder of keys and used challenges.
    pub data: PathBuf,
    /// What is trusted.
    pub roots: Roots,
    /// What results say of who issued them.
    pub issuer: Issuer,
    /// The age at which the signing key gets a successor.
    pub rotation_period: Duration,
    /// How long a challenge is open.
    pub challenge_lifetime: Duration,
    /// Requests that may be verified, or wait for it, at once.
    pub verifications: usize,
    /// Connections at once; a further one ends that which waits for its client the
    /// longest.
    pub connections: usize,
    /// Connections of one client address at once, and behind a proxy its requests.
    pub connections_per_client: usize,
    /// Requests per second and client address; 0 is no limit.
    pub rate: u32,
    /// The header whose last address is the client's, if a proxy in front writes it.
    pub behind_proxy: Option<ForwardedHeader>,
    /// How long open requests may take after the service was told to stop.
    pub drain: Duration,
}

/// How long a key is published before it signs: more than twice what
/// `/.well-known/jwks.json` may be cached for.
const PUBLISH_AHEAD: Duration = Duration::from_secs(15 * 60);

/// Why a service cannot work as it is configured.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The data folder cannot be used.
    #[error("{path}: {error}")]
    Data {
        /// The folder.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The policies cannot be used.
    #[error(transparent)]
    Policies(#[from] PolicySetError),
    /// The signing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyRingError),
    /// The key of challenges cannot be used.
    #[error(transparent)]
    ChallengeKey(#[from] ChallengeKeyError),
    /// The used challenges cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A service that is ready to run.
pub struct Service {
    shared: Arc<Shared>,
    upkeep: Upkeep,
    crowd: Arc<Crowd>,
    drain: Duration,
}

impl Service {
    /// Reads policies and keys, and opens the store; makes what the data folder
    /// lacks. It blocks on the disk.
    pub fn open(config: Config) -> Result<Self, ServiceError> {
        make_private(&config.data).map_err(|error| ServiceError::Data {
            path: config.data.display().to_string(),
            error,
        })?;
        let (policies, fingerprint) =
            PolicySet::read_unchanging(&config.policies).ok_or_else(|| {
                PolicySetError::Changing {
                    path: config.policies.display().to_string(),
                }
            })?;
        let policies = policies?;
        let rotation = Rotation {
            period: config.rotation_period,
            publish_ahead: PUBLISH_AHEAD,
            token_lifetime: config.issuer.lifetime,
        };
        let ring = KeyRing::open(&config.data.join("keys"), rotation, clock::now_s())?;
        let challenges = Challenges::open(
            &challenges::key_file(&config.data),
            config.challenge_lifetime,
        )?;
        let store = Store::open(&config.data.join("challenges.redb"))?;
        let appraiser = Arc::new(Appraiser {
            verifier: Verifier::new(config.roots),
            policies: Swap::new(policies),
            inline_policies: config.inline_policies,
            challenges,
            keys: Swap::new(ring.snapshot()),
            issuer: config.issuer,
            metrics: Metrics::default(),
        });
        Ok(Self {
            upkeep: Upkeep::new(appraiser.clone(), config.policies, fingerprint, ring),
            crowd: Crowd::new(
                config.connections,
                // The connections of a proxy are of many clients.
                config
                    .behind_proxy
                    .is_none()
                    .then_some(config.connections_per_client),
            ),
            drain: config.drain,
            shared: Arc::new(Shared {
                appraiser,
                verifications: Semaphore::new(config.verifications.min(Semaphore::MAX_PERMITS)),
                store,
                limiter: RateLimiter::new(config.rate),
                behind_proxy: config.behind_proxy,
                open_requests: OpenRequests::new(config.connections_per_client),
                access_log: AccessLog::default(),
                draining: AtomicBool::new(false),
            }),
        })
    }

    /// How many policies are in force.
    pub fn policies(&self) -> usize {
        self.shared.appraiser.policies.get().len()
    }

    /// Serves `listener` until `stop` is done, then lets open requests end. With
    /// a second listener it serves metrics there. `commands` may be closed.
    pub async fn run(
        self,
        listener: TcpListener,
        metrics: Option<TcpListener>,
        commands: mpsc::Receiver<Command>,
        stop: impl Future<Output = ()>,
    ) {
        let upkeep = tokio::spawn(self.upkeep.run(commands));
        let metrics = metrics.map(|listener| {
            let router = api::metrics_router(self.shared.clone());
            tokio::spawn(connections::serve_metrics(listener, router))
        });
        let shared = self.shared.clone();
        let summaries = tokio::spawn(async move { shared.access_log.summarise_often().await });
        connections::serve(self.shared.clone(), listener, self.crowd, self.drain, stop).await;
        summaries.abort();
        self.shared.access_log.summarise();
        upkeep.abort();
        if let Some(metrics) = metrics {
            metrics.abort();
        }
    }
}

/// Listens where a service shall: what the kernel keeps of answers that nobody reads is
/// limited.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // Connections have it from the socket that accepts them.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Makes a folder that only its owner may enter, if it is not there. One in which
/// others may put keys of their own is refused.
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others can write to this folder, and so replace the keys in it: run chmod 700 on it",
        ));
    }
    Ok(())
}
