//! What carries the workload's connections and records, and answers it.

use std::sync::Arc;

use bytes::Bytes;
use link::{BootId, Endpoint, Listener};
use manifest::MeasuredConfig;
use serde_json::Value;

use crate::api::{self, Api, EnclaveReadiness, Verifications};
use crate::aws::Client;
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::credentials::AwsCredentials;
use crate::error::{Doing, InitError};
use crate::family::{FamilyKeys, Surroundings};
use crate::kms::Kms;
use crate::logs::Logs;
use crate::pressure::Pressure;
use crate::secrets::Secrets;
use crate::security_module::SecurityModule;
use crate::trust::Trust;
use crate::{egress, ingress};

pub(crate) use crate::ingress::Ends as Ingress;

/// What the services need.
pub(crate) struct Services<'a> {
    pub(crate) config: &'a MeasuredConfig,
    /// Where the agent listens.
    pub(crate) agent: &'a Endpoint,
    pub(crate) ingress: Ingress,
    pub(crate) boot: &'a BootId,
    pub(crate) nsm: &'a SecurityModule,
    pub(crate) trust: &'a Arc<Trust>,
    pub(crate) clock: &'a Clock,
    pub(crate) logs: &'a Logs,
    pub(crate) capacity: Capacity,
    /// Whether the workload's user is the init's by another name.
    pub(crate) one_user: bool,
    /// The enclave's own, as the local API answers them.
    pub(crate) measurements: Value,
    /// What the agent gave at the start.
    pub(crate) runtime_config: Bytes,
}

/// Services that have been started.
pub(crate) struct Running {
    pub(crate) pressure: Pressure,
    /// The workload's, if it is to have any.
    pub(crate) credentials: Option<AwsCredentials>,
    /// KMS, if the image calls it through the enclave.
    pub(crate) kms: Option<Kms>,
    /// The image's, if it declares any.
    pub(crate) secrets: Option<Secrets>,
    /// Those of the image's family, if it has one.
    pub(crate) keys: Option<FamilyKeys>,
    pub(crate) readiness: EnclaveReadiness,
}

impl Services<'_> {
    /// Starts them.
    pub(crate) async fn start(self) -> Result<Running, InitError> {
        let Self {
            config,
            agent,
            ingress: ends,
            boot,
            nsm,
            trust,
            clock,
            logs,
            capacity,
            one_user,
            measurements,
            runtime_config,
        } = self;
        let credentials = if config.has_credentials() {
            let region = config.kms.as_ref().map(|kms| &*kms.region);
            Some(AwsCredentials::new(region)?)
        } else {
            None
        };
        let network = Arc::new(config.network.clone());
        let out =
            egress::start(agent.clone(), Arc::clone(&network), capacity, logs.clone()).await?;
        let called = match (&config.kms, &credentials) {
            (Some(kms), Some(credentials)) => {
                let roots = kms.roots.as_deref();
                let client = Client::new(Arc::clone(&out), credentials.clone(), roots)?;
                Some((
                    Kms::start(client.clone(), kms, nsm.clone(), logs.clone()),
                    client,
                ))
            }
            _ => None,
        };
        let callers = called.as_ref().map(|(kms, client)| (kms, client));
        let secrets = Secrets::new(config, callers, one_user)?;
        let keys = FamilyKeys::new(config, callers, || Surroundings {
            nsm: nsm.clone(),
            trust: Arc::clone(trust),
            no_time: {
                let clock = clock.clone();
                Box::new(move || clock.no_time())
            },
        })?;
        let kms = called.map(|(kms, _)| kms);
        let listener =
            Listener::bind(&ends.agent).doing(|| format!("listening on {}", ends.agent))?;
        let into = ingress::places(&capacity);
        tokio::spawn(ingress::serve(
            listener,
            network,
            ends.workload,
            Arc::clone(&into),
            logs.clone(),
        ));
        let readiness = EnclaveReadiness::of(config);
        api::start(Api {
            nsm: nsm.clone(),
            clock: clock.clone(),
            open_registers: Arc::new(config.attestation.open_registers.clone()),
            verifications: Verifications::new(Arc::clone(trust)),
            credentials: credentials.clone(),
            kms: kms.clone(),
            secrets: secrets.clone(),
            keys: keys.clone(),
            measurements: Arc::new(measurements),
            runtime_config,
            readiness: readiness.clone(),
        })
        .await?;
        tokio::spawn(logs.clone().send(agent.clone(), boot.clone()));
        Ok(Running {
            pressure: Pressure {
                egress: Arc::clone(out.places()),
                ingress: into,
                dropped: Arc::clone(out.dropped()),
            },
            credentials,
            kms,
            secrets,
            keys,
            readiness,
        })
    }
}
