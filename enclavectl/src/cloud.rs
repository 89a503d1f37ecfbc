//! The control plane as it is found: names from its parameter, clients for them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use control_plane_model::clients::sdk_config;
use control_plane_model::item::Enclave;
use control_plane_model::store::Store;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::Installation;

/// The gate's key in the parameter.
const GATE: &str = "attestation-gate";
/// How long the gate's function may take.
const GATE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the root configuration writes about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) region: String,
    pub(crate) tables: Tables,
    pub(crate) state_machines: StateMachines,
    pub(crate) functions: BTreeMap<String, String>,
    pub(crate) buckets: Buckets,
    pub(crate) log_group_prefix: String,
    pub(crate) status_index: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tables {
    pub(crate) enclaves: String,
    pub(crate) images: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StateMachines {
    pub(crate) deployment: String,
    pub(crate) cleanup: String,
    pub(crate) attestation: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Buckets {
    pub(crate) artifacts: String,
    pub(crate) state: String,
}

/// Everything that commands use.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) parts: Parts,
    pub(crate) aws: aws_request::Client,
    pub(crate) logs: aws_sdk_cloudwatchlogs::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) states: aws_sdk_sfn::Client,
    pub(crate) store: Store,
}

impl Installation {
    /// The parameter that names everything else.
    pub(crate) fn parameter(&self) -> String {
        format!("/{}/{}/control-plane", self.project, self.environment)
    }
}

impl Cloud {
    pub(crate) async fn connect(installation: &Installation) -> anyhow::Result<Self> {
        let config = sdk_config().await;
        let aws = aws_request::Client::new(&config)?;
        let name = installation.parameter();
        let parameter = match aws.ssm().parameter(&name).await {
            Ok(parameter) => parameter,
            Err(error) if error.is_not_found() => bail!(
                "there is no parameter {name} in {}: check --project, --environment and the region, or apply the root configuration first",
                aws.region()
            ),
            Err(error) => return Err(error).context("the control plane cannot be found"),
        };
        let parts: Parts = serde_json::from_str(&parameter).with_context(|| {
            format!("the parameter {name} was written by another version: apply the root configuration again")
        })?;
        let dynamodb = aws_sdk_dynamodb::Client::new(&config);
        Ok(Self {
            store: Store::new(dynamodb.clone(), parts.tables.enclaves.as_str()),
            states: aws_sdk_sfn::Client::new(&config),
            logs: aws_sdk_cloudwatchlogs::Client::new(&config),
            dynamodb,
            aws,
            parts,
        })
    }

    /// The gate's answer. It may be asked twice, where the first answer was lost.
    pub(crate) async fn ask_gate(&self, event: &Value) -> anyhow::Result<Bytes> {
        let function =
            self.parts.functions.get(GATE).with_context(|| {
                format!("the control plane's parameter names no function {GATE}")
            })?;
        let payload = Bytes::from(event.to_string());
        let lambda = self.aws.lambda();
        Ok(lambda.invoke(function, payload, true, GATE_TIMEOUT).await?)
    }

    /// The enclave of this id.
    pub(crate) async fn enclave(&self, id: &str) -> anyhow::Result<Enclave> {
        self.store.get(id).await?.with_context(|| {
            format!("there is no enclave {id}: `enclavectl list` shows all enclaves")
        })
    }
}
