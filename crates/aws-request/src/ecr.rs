//! Elastic Container Registry.

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::json::{Operation, call};

const GET: Operation = Operation {
    service: Service::Ecr,
    name: "GetAuthorizationToken",
    target: "AmazonEC2ContainerRegistry_V20150921",
};

#[derive(Serialize)]
struct GetAuthorizationToken {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GetAuthorizationTokenAnswer {
    authorization_data: Vec<AuthorizationData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: String,
}

/// Calls to Elastic Container Registry.
#[derive(Debug, Clone, Copy)]
pub struct Ecr<'a>(&'a Client);

impl Client {
    /// Elastic Container Registry.
    pub fn ecr(&self) -> Ecr<'_> {
        Ecr(self)
    }
}

impl Ecr<'_> {
    /// Name and password for every registry that the credentials permit, in
    /// base64 as `Authorization: Basic` has them; they last for 12 hours.
    pub async fn authorization_token(self) -> Result<String, Error> {
        let answer: GetAuthorizationTokenAnswer =
            call(self.0, &GET, &GetAuthorizationToken {}).await?;
        let mut data = answer.authorization_data.into_iter();
        data.next()
            .map(|data| data.authorization_token)
            .ok_or_else(|| Error::Malformed {
                service: GET.service,
                operation: GET.name,
                reason: "it has no token".to_owned(),
            })
    }
}
