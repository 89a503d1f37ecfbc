//! Parameters of Systems Manager.

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::json::{Operation, call};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameter<'a> {
    name: &'a str,
    with_decryption: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameterAnswer {
    parameter: Parameter,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    value: String,
}

/// Calls to Systems Manager.
#[derive(Debug, Clone, Copy)]
pub struct Ssm<'a>(&'a Client);

impl Client {
    /// Systems Manager.
    pub fn ssm(&self) -> Ssm<'_> {
        Ssm(self)
    }
}

impl Ssm<'_> {
    /// A parameter's value, decrypted if it is a secure string.
    pub async fn parameter(self, name: &str) -> Result<String, Error> {
        let operation = Operation {
            service: Service::Ssm,
            name: "GetParameter",
            target: "AmazonSSM",
        };
        let input = GetParameter {
            name,
            with_decryption: true,
        };
        let answer: GetParameterAnswer = call(self.0, &operation, &input).await?;
        Ok(answer.parameter.value)
    }
}
