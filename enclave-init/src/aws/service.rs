//! A service: where it is, and what signatures name.

use aws_endpoint::Variant;
use manifest::HttpsEndpoint;

use super::connection::{Connections, Load};

/// A service of AWS at an endpoint, and the connections to it.
#[derive(Debug)]
pub(crate) struct Service {
    /// What signatures name: `kms`, `ssm`, `secretsmanager`, `s3`.
    pub(crate) name: &'static str,
    pub(crate) endpoint: HttpsEndpoint,
    pub(crate) region: String,
    pub(super) connections: Connections,
}

impl Service {
    pub(crate) fn new(name: &'static str, endpoint: HttpsEndpoint, region: &str) -> Self {
        Self {
            name,
            endpoint,
            region: region.to_owned(),
            connections: Connections::default(),
        }
    }

    /// The service in a region, of whose hosts FIPS's may be meant, if it has one there.
    pub(crate) fn regional(
        service: aws_endpoint::Service,
        region: &str,
        fips: bool,
    ) -> Option<Self> {
        let variant = Variant {
            fips,
            dual_stack: false,
        };
        let endpoint = format!("https://{}", service.host(region, variant));
        Some(Self::new(service.name(), endpoint.parse().ok()?, region))
    }

    /// The calls that are being made.
    pub(crate) fn load(&self) -> Load {
        self.connections.load()
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> String {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        match port {
            443 => host.to_owned(),
            _ => format!("{host}:{port}"),
        }
    }
}
