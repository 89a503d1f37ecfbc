//! From a name to addresses that may be dialled.
//!
//! Names are resolved as the host is configured ([`name_resolver`]). What a name
//! resolves to is not the manifest's author's to decide, but the name server's:
//! addresses that reach the instance itself or its metadata service are refused
//! (DNS rebinding), unless the manifest or `--connect-to` names them as such.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use link::records::{Answer, Kind, MAX_RECORDS, MAX_STRINGS, Service, Strings};
use link::{Bytes, Text};
use manifest::host_spelling;
use name_resolver::System;
use nix::ifaddrs::getifaddrs;
use thiserror::Error;
use tokio::time::timeout;

use crate::connect_to::ConnectTo;

/// The longest that a name may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of texts that are passed on: a name server over TCP could send more than the
/// channel takes.
const MAX_TEXT: usize = 16 * 1024;
/// Most aliases on the way to the records of a service.
const MAX_ALIASES: usize = 8;
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why a name leads nowhere.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// The name has no address.
    #[error("{0} has no address")]
    NotFound(String),
    /// The name's addresses are this instance's own, or its metadata service's.
    #[error(
        "{host} resolves to {address}, which only a rule or --connect-to that names the address itself can allow"
    )]
    Forbidden {
        /// The name.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// No name server gave an answer.
    #[error("{host} cannot be resolved: {reason}")]
    Failed {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// No name server gave an answer in time.
    #[error("{0} was not resolved within {seconds} s", seconds = RESOLVE_TIMEOUT.as_secs())]
    TimedOut(String),
}

/// Resolves names and applies `--connect-to`.
#[derive(Debug)]
pub struct Resolver {
    connect_to: HashMap<(String, u16), SocketAddr>,
    names: Names,
}

/// Who is asked for names.
#[derive(Debug)]
enum Names {
    /// Whoever the instance's configuration names at the time.
    System(System),
    /// The same ones always.
    #[cfg(test)]
    Fixed(TokioResolver),
}

impl Names {
    fn resolver(&self) -> Result<TokioResolver, String> {
        match self {
            Self::System(system) => system.resolver(),
            #[cfg(test)]
            Self::Fixed(resolver) => Ok(resolver.clone()),
        }
    }
}

impl Resolver {
    /// A resolver with the system's configuration, as it is whenever a name is looked up.
    /// While there is none, only addresses and `connect_to` lead anywhere.
    pub fn from_system(connect_to: &[ConnectTo]) -> Self {
        Self::new(connect_to, Names::System(System::default()))
    }

    fn new(connect_to: &[ConnectTo], names: Names) -> Self {
        let connect_to = connect_to
            .iter()
            .map(|rule| ((rule.host.clone(), rule.port), rule.address))
            .collect();
        Self { connect_to, names }
    }

    /// The addresses to dial for `host`, a name or an address that a rule allows.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let host = host_spelling(host);
        if let Some(&address) = self.connect_to.get(&(host.clone(), port)) {
            return Ok(vec![address]);
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let lookup = async |names: TokioResolver, name: String| names.lookup_ip(name).await;
        let Some(found) = self.ask(&host, lookup).await? else {
            return Err(ResolveError::NotFound(host));
        };
        let own = own_addresses().map_err(|error| ResolveError::Failed {
            host: host.clone(),
            reason: format!("this instance's own addresses cannot be read: {error}"),
        })?;
        let mut addresses = Vec::new();
        let mut forbidden = None;
        for address in found.iter() {
            if is_forbidden(address, &own) {
                forbidden = Some(address);
            } else if addresses.len() < MAX_ADDRESSES {
                addresses.push(SocketAddr::new(address, port));
            }
        }
        match forbidden {
            Some(address) if addresses.is_empty() => Err(ResolveError::Forbidden { host, address }),
            None if addresses.is_empty() => Err(ResolveError::NotFound(host)),
            _ => Ok(addresses),
        }
    }

    /// The records of a name that the allowlist has, of which none may be there.
    pub async fn records(&self, name: &str, kind: Kind) -> Result<Answer, ResolveError> {
        let host = host_spelling(name);
        let wanted = match kind {
            Kind::Srv => RecordType::SRV,
            Kind::Txt => RecordType::TXT,
        };
        let found = timeout(RESOLVE_TIMEOUT, self.behind_aliases(&host, wanted)).await;
        let found = found.map_err(|_| ResolveError::TimedOut(host))??;
        let records = found.map_or_else(Vec::new, |found| found.answers().to_vec());
        let ttl = records.iter().map(|record| record.ttl).min();
        let ttl = ttl.unwrap_or_default();
        Ok(match kind {
            Kind::Srv => Answer::Services {
                ttl,
                records: services(&records),
            },
            Kind::Txt => Answer::Texts {
                ttl,
                records: texts(&records),
            },
        })
    }

    /// The records of a name, or of the one that it is an alias of. Those of type SRV the
    /// resolver does not find behind an alias: it takes their targets for further ones.
    async fn behind_aliases(
        &self,
        host: &str,
        kind: RecordType,
    ) -> Result<Option<Lookup>, ResolveError> {
        let mut host = host.to_owned();
        for _ in 0..MAX_ALIASES {
            let found = self.lookup(&host, kind).await;
            let is_found = match &found {
                Ok(Some(found)) => found.answers().iter().any(|r| r.record_type() == kind),
                Ok(None) | Err(_) => false,
            };
            if is_found || kind != RecordType::SRV {
                return found;
            }
            let alias = self.lookup(&host, RecordType::CNAME).await.ok().flatten();
            let mut aliases = alias.iter().flat_map(Lookup::answers);
            let target = aliases.find_map(|record| match &record.data {
                RData::CNAME(target) => Some(host_spelling(&target.to_ascii())),
                _ => None,
            });
            match target {
                Some(target) => host = target,
                None => return found,
            }
        }
        Ok(None)
    }

    async fn lookup(&self, host: &str, kind: RecordType) -> Result<Option<Lookup>, ResolveError> {
        let lookup = async |names: TokioResolver, name: String| names.lookup(name, kind).await;
        self.ask(host, lookup).await
    }

    /// Asks whoever is to be asked; none if the name is known, and has nothing of this kind.
    async fn ask<T>(
        &self,
        host: &str,
        lookup: impl AsyncFnOnce(TokioResolver, String) -> Result<T, NetError>,
    ) -> Result<Option<T>, ResolveError> {
        let failed = |reason| ResolveError::Failed {
            host: host.to_owned(),
            reason,
        };
        let names = self.names.resolver().map_err(failed)?;
        // The dot keeps search domains out: they are not the rule's.
        let asked = timeout(RESOLVE_TIMEOUT, lookup(names, format!("{host}.")));
        match asked.await {
            Ok(Ok(found)) => Ok(Some(found)),
            Ok(Err(error)) if error.is_nx_domain() => Err(ResolveError::NotFound(host.to_owned())),
            Ok(Err(error)) if error.is_no_records_found() => Ok(None),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(ResolveError::TimedOut(host.to_owned())),
        }
    }
}

/// The records of type SRV among these, as far as they fit.
fn services(records: &[Record]) -> Vec<Service> {
    let services = records.iter().filter_map(|record| match &record.data {
        RData::SRV(found) => Some(Service {
            priority: found.priority,
            weight: found.weight,
            port: found.port,
            target: Text::new(host_spelling(&found.target.to_ascii())),
        }),
        _ => None,
    });
    services.take(MAX_RECORDS).collect()
}

/// The records of type TXT among these, as far as they fit.
fn texts(records: &[Record]) -> Vec<Strings> {
    let mut room = MAX_TEXT;
    let texts = records.iter().filter_map(|record| match &record.data {
        RData::TXT(found) if found.txt_data.len() <= MAX_STRINGS => {
            let strings = found.txt_data.iter().map(|text| Bytes::new(&**text));
            strings.collect::<Option<_>>().map(Strings)
        }
        _ => None,
    });
    let texts = texts.take_while(|Strings(strings)| {
        let size = strings.iter().map(|text| text.len()).sum();
        let left = room.checked_sub(size);
        room = left.unwrap_or_default();
        left.is_some()
    });
    texts.take(MAX_RECORDS).collect()
}

/// The addresses of this instance's interfaces at this moment.
fn own_addresses() -> nix::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    });
    Ok(addresses.collect())
}

/// Whether an address reaches this instance itself, of which these are its `own`, its
/// metadata service, or nobody in particular.
fn is_forbidden(address: IpAddr, own: &[IpAddr]) -> bool {
    if own.contains(&address) {
        return true;
    }
    match address {
        IpAddr::V4(address) => is_forbidden_v4(address),
        IpAddr::V6(address) => {
            embedded_v4(address).is_some_and(|v4| is_forbidden(v4.into(), own))
                || address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                // The instance's own services: metadata, DNS, time.
                || address.segments().starts_with(&[0xfd00, 0x0ec2])
        }
    }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        // The metadata service is 169.254.169.254.
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        // "This host on this network" (RFC 6890), of which 0.0.0.0 is one.
        || address.octets().starts_with(&[0])
}

/// The IPv4 address that an IPv6 address stands for: mapped (RFC 4291),
/// compatible (RFC 4291), NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
