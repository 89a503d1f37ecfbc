//! The connections that are carried for an enclave, in both directions and within
//! their limits.

use std::sync::Arc;

use clap::Args;
use link::Endpoint;
use manifest::{HostConfig, Protocol};
use tokio::task::JoinSet;
use tracing::warn;

use crate::channels::allowlist::Allowlist;
use crate::channels::egress::Egress;
use crate::connect_to::{ConnectTo, ConnectToError};
use crate::error::Error;
use crate::ingress::{self, IngressPort, Limits, OpenPort, Publish};
use crate::limit::{self, Limit, LimitArgs};
use crate::resolve::Resolver;

/// The arguments about connections.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Open the manifest's ingress PORT at HOSTPORT instead, on ADDR instead of
    /// 127.0.0.1; HOSTPORT 0 is any free port.
    #[arg(long, value_name = "[ADDR:]HOSTPORT:PORT")]
    pub publish: Vec<Publish>,
    /// Connect the enclave to ADDR:PORT where it asks for HOST:PORT, which the
    /// manifest must allow.
    #[arg(long, value_name = "HOST:PORT=ADDR:PORT")]
    pub connect_to: Vec<ConnectTo>,
    /// How many connections it may have, and how fast.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What is carried, and how much of it.
#[derive(Debug)]
pub(crate) struct ProxyConfig {
    /// Ports opened elsewhere than on the loopback address.
    pub(crate) publish: Vec<Publish>,
    /// Destinations that are moved.
    pub(crate) connect_to: Vec<ConnectTo>,
    /// The limits of connections out of the enclave.
    pub(crate) egress: Limit,
    /// The limits of connections into the enclave.
    pub(crate) ingress: Limit,
    /// Connections into the enclave that its init carries at a time.
    pub(crate) carried: usize,
    /// Of the manifest's services of AWS those that are open, if not all.
    pub(crate) aws_services: Option<Vec<String>>,
    /// The region of these, if it is not the environment's or the instance's.
    pub(crate) region: Option<String>,
}

/// Open ports, and what the enclave may connect to.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) ports: Vec<Arc<IngressPort>>,
    pub(crate) egress: Arc<Egress>,
    limits: Arc<Limits>,
}

impl Proxy {
    /// Opens the ports of the image's manifest, and gets ready to dial.
    pub(crate) async fn open(config: &ProxyConfig, host: &HostConfig) -> Result<Self, Error> {
        check_moved(&config.connect_to, host)?;
        let ports = ingress::open(&host.ingress, &config.publish)?;
        let (out, into) = (config.egress, config.ingress);
        let (egress, ingress) = limit::connections(out, into);
        let resolver = Resolver::from_system(&config.connect_to);
        let allowlist = config.allowlist(host).await;
        Ok(Self {
            ports,
            egress: Arc::new(Egress::new(allowlist, resolver, egress, out.rate)),
            limits: Arc::new(Limits::new(ingress.min(config.carried), into.rate)),
        })
    }

    /// The open ports for people and scripts.
    pub(crate) fn describe(&self) -> Vec<OpenPort> {
        self.ports.iter().map(|port| port.describe()).collect()
    }

    /// Adds what carries connections to the init at `init` to `tasks`.
    pub(crate) fn serve_ingress(&self, init: &Endpoint, tasks: &mut JoinSet<()>) {
        for port in &self.ports {
            let (port, limits) = (Arc::clone(port), Arc::clone(&self.limits));
            tasks.spawn(port.serve(init.clone(), limits));
        }
    }
}

/// Checks that the image has the destinations that are moved.
fn check_moved(connect_to: &[ConnectTo], host: &HostConfig) -> Result<(), ConnectToError> {
    // The configuration may have closed one of them, and the region is no matter: the
    // same arguments serve many instances.
    let allowed = Allowlist::new(host, None, None);
    match connect_to.iter().find(|moved| {
        let mut protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
        !protocols.any(|protocol| allowed.allows_over(&moved.host, moved.port, protocol))
    }) {
        None => Ok(()),
        Some(moved) => Err(ConnectToError {
            host: moved.host.clone(),
            port: moved.port,
        }),
    }
}

impl ProxyConfig {
    /// Where the workload may connect to.
    async fn allowlist(&self, host: &HostConfig) -> Allowlist {
        let wanted = self.aws_services.as_deref();
        let missing = wanted.unwrap_or_default().iter().filter(|name| {
            let mut services = host.aws_services.iter();
            !services.any(|service| service.name() == name.as_str())
        });
        for service in missing {
            warn!(
                service,
                "the image's manifest does not have this AWS service, so it stays closed but for the manifest's egress rules: add it to `aws_services` in enclave.toml, or take it out of the configuration"
            );
        }
        let region = match &self.region {
            _ if host.aws_services.is_empty() => None,
            Some(region) => Some(region.clone()),
            None => aws_clients::region().await,
        };
        if region.is_none() && !host.aws_services.is_empty() {
            warn!(
                "no AWS region is known, so the manifest's AWS services are open in every region: set AWS_REGION"
            );
        }
        Allowlist::new(host, wanted, region)
    }
}
