//! Secrets of Secrets Manager.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::json::{Operation, call};

const GET: Operation = Operation {
    service: Service::SecretsManager,
    name: "GetSecretValue",
    target: "secretsmanager",
};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetSecretValue<'a> {
    secret_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetSecretValueAnswer {
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

/// Calls to Secrets Manager.
#[derive(Debug, Clone, Copy)]
pub struct Secrets<'a>(&'a Client);

impl Client {
    /// Secrets Manager.
    pub fn secrets(&self) -> Secrets<'_> {
        Secrets(self)
    }
}

impl Secrets<'_> {
    /// A secret's current value, by its name or ARN.
    pub async fn value(self, id: &str) -> Result<Vec<u8>, Error> {
        let answer: GetSecretValueAnswer =
            call(self.0, &GET, &GetSecretValue { secret_id: id }).await?;
        let malformed = |reason| Error::Malformed {
            service: GET.service,
            operation: GET.name,
            reason,
        };
        match (answer.secret_string, answer.secret_binary) {
            (Some(text), _) => Ok(text.into_bytes()),
            (None, Some(base64)) => STANDARD
                .decode(base64)
                .map_err(|error| malformed(error.to_string())),
            (None, None) => Err(malformed("it has no value".to_owned())),
        }
    }
}
