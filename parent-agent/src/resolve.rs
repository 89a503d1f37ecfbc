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
        let lookup = async |names: TokioResolver, name: String| names.lookup(name, wanted).await;
        let found = self.ask(&host, lookup).await?;
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
mod tests {
    use hickory_resolver::config::{
        ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts,
    };
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{SRV, TXT};
    use tokio::net::UdpSocket;

    use super::*;

    /// A resolver whose name server knows these names.
    async fn name_server(zone: &'static [(&str, &str)]) -> Resolver {
        resolver(&[serve(zone).await])
    }

    /// Serves these names: addresses, `port target` of a service, texts, and `moving`, an
    /// address that is another one each time.
    async fn serve(zone: &'static [(&str, &str)]) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            let mut asked = 0;
            loop {
                let (count, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let request = Message::from_vec(&buffer[..count]).unwrap();
                let query = request.queries[0].clone();
                let mut response = request;
                response.metadata.message_type = MessageType::Response;
                response.metadata.response_code = ResponseCode::NXDomain;
                for (name, value) in zone {
                    if query.name().to_ascii() != *name {
                        continue;
                    }
                    response.metadata.response_code = ResponseCode::NoError;
                    asked += 1;
                    let is_moving = *value == "moving";
                    let moved = Ipv4Addr::new(203, 0, 113, asked);
                    let address = value.parse().ok();
                    let data = match address.or(is_moving.then_some(moved.into())) {
                        Some(IpAddr::V4(address)) => RData::A(address.into()),
                        Some(IpAddr::V6(address)) => RData::AAAA(address.into()),
                        None => match value.split_once(' ') {
                            Some((port, target)) => RData::SRV(SRV::new(
                                1,
                                2,
                                port.parse().unwrap(),
                                target.parse().unwrap(),
                            )),
                            None => RData::TXT(TXT::new(vec![(*value).to_owned()])),
                        },
                    };
                    if data.record_type() == query.query_type() {
                        let ttl = if is_moving { 0 } else { 60 };
                        response
                            .answers
                            .push(Record::from_rdata(query.name().clone(), ttl, data));
                    }
                }
                socket
                    .send_to(&response.to_vec().unwrap(), peer)
                    .await
                    .unwrap();
            }
        });
        port
    }

    fn resolver(ports: &[u16]) -> Resolver {
        let server = |port: &u16| {
            let mut connection = ConnectionConfig::udp();
            connection.port = *port;
            let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
            server.connections = vec![connection];
            server
        };
        let servers = ports.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, vec![], servers);
        let rule = "pinned.example:443=127.0.0.1:4443".parse().unwrap();
        Resolver::new(
            &[rule],
            Names::Fixed(name_resolver::build(config, ResolverOpts::default()).unwrap()),
        )
    }

    #[tokio::test]
    async fn names_resolve_but_not_to_ourselves() {
        let resolver = name_server(&[
            ("good.example.", "192.0.2.7"),
            ("six.example.", "2001:db8::7"),
            ("metadata.example.", "169.254.169.254"),
            ("metadata6.example.", "fd00:ec2::254"),
            ("mapped.example.", "::ffff:127.0.0.1"),
            ("loop.example.", "127.0.0.1"),
            ("mixed.example.", "127.0.0.1"),
            ("mixed.example.", "192.0.2.8"),
        ])
        .await;
        let resolve = |host: &'static str| resolver.addresses(host, 443);
        let one = |address: &str| Ok(vec![address.parse::<SocketAddr>().unwrap()]);
        assert_eq!(resolve("good.example").await, one("192.0.2.7:443"));
        assert_eq!(resolve("GOOD.example.").await, one("192.0.2.7:443"));
        assert_eq!(resolve("six.example").await, one("[2001:db8::7]:443"));
        assert_eq!(resolve("mixed.example").await, one("192.0.2.8:443"));
        for host in [
            "metadata.example",
            "metadata6.example",
            "mapped.example",
            "loop.example",
            "localhost",
        ] {
            let error = resolve(host).await.unwrap_err();
            assert!(matches!(error, ResolveError::Forbidden { .. }), "{error}");
        }
        assert_eq!(
            resolve("absent.example").await,
            Err(ResolveError::NotFound("absent.example".to_owned()))
        );
    }

    #[tokio::test]
    async fn records_of_services_and_texts_are_looked_up() {
        let resolver = name_server(&[
            ("_mongodb._tcp.db.example.", "27017 A.db.example."),
            ("_mongodb._tcp.db.example.", "27018 ."),
            ("db.example.", "authSource=admin"),
            ("db.example.", "192.0.2.7"),
        ])
        .await;
        let service = |port, target| Service {
            priority: 1,
            weight: 2,
            port,
            target: Text::new(target),
        };
        let services = Answer::Services {
            ttl: 60,
            records: vec![service(27017, "a.db.example"), service(27018, "")],
        };
        let found = resolver.records("_mongodb._tcp.DB.example", Kind::Srv);
        assert_eq!(found.await, Ok(services));
        let text = Bytes::new(&b"authSource=admin"[..]).unwrap();
        let texts = Answer::Texts {
            ttl: 60,
            records: vec![Strings(vec![text])],
        };
        assert_eq!(resolver.records("db.example", Kind::Txt).await, Ok(texts));
        let none = Answer::Services {
            ttl: 0,
            records: Vec::new(),
        };
        assert_eq!(resolver.records("db.example", Kind::Srv).await, Ok(none));
        let absent = resolver.records("absent.example", Kind::Txt).await;
        assert_eq!(
            absent,
            Err(ResolveError::NotFound("absent.example".to_owned()))
        );
    }

    #[test]
    fn records_that_do_not_fit_are_left_out() {
        let record = |strings: usize, size: usize| {
            let data = TXT::from_bytes(vec![&[b'x'; 255][..size]; strings]);
            Record::from_rdata("db.example.".parse().unwrap(), 60, RData::TXT(data))
        };
        let found = texts(&[record(MAX_STRINGS + 1, 1), record(MAX_STRINGS, 1)]);
        assert_eq!(found.len(), 1);
        let many: Vec<_> = (0..200).map(|_| record(2, 255)).collect();
        let found = texts(&many);
        assert_eq!(found.len(), MAX_TEXT / 510);
        let answer = Answer::Texts {
            ttl: 60,
            records: found,
        };
        link::frame::encode(&answer, link::records::MAX_ANSWER).unwrap();
        let many: Vec<_> = (0..200).map(|_| record(1, 1)).collect();
        assert_eq!(texts(&many).len(), MAX_RECORDS);
    }

    #[tokio::test]
    async fn names_that_move_are_followed() {
        let resolver = name_server(&[("moving.example.", "moving")]).await;
        let first = resolver.addresses("moving.example", 443).await.unwrap();
        let second = resolver.addresses("moving.example", 443).await.unwrap();
        assert_ne!(first, second);
    }

    #[tokio::test]
    async fn names_resolve_while_one_name_server_is_dead() {
        // It is open, and nobody reads what comes.
        let held = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silent = held.local_addr().unwrap().port();
        let good = serve(&[("good.example.", "192.0.2.7")]).await;
        for ports in [[silent, good], [good, silent]] {
            let found = resolver(&ports).addresses("good.example", 443).await;
            assert_eq!(found, Ok(vec!["192.0.2.7:443".parse().unwrap()]));
        }
    }

    #[tokio::test]
    async fn what_is_named_as_an_address_is_dialled() {
        let resolver = name_server(&[]).await;
        let one = |address: &str| Ok(vec![address.parse::<SocketAddr>().unwrap()]);
        assert_eq!(
            resolver.addresses("127.0.0.1", 80).await,
            one("127.0.0.1:80")
        );
        assert_eq!(
            resolver.addresses("Pinned.example", 443).await,
            one("127.0.0.1:4443")
        );
        assert!(resolver.addresses("pinned.example", 80).await.is_err());
        // Not an address by the standard: a name, which nobody has.
        assert!(resolver.addresses("2130706433", 80).await.is_err());
    }

    #[tokio::test]
    async fn names_do_not_resolve_to_an_interface_of_this_instance() {
        let own = own_addresses().unwrap();
        assert!(own.contains(&Ipv4Addr::LOCALHOST.into()));
        for address in own {
            let zone = vec![("own.example.", &*address.to_string().leak())];
            let resolver = name_server(zone.leak()).await;
            let error = resolver.addresses("own.example", 443).await.unwrap_err();
            assert!(matches!(error, ResolveError::Forbidden { .. }), "{error}");
        }
        let own: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        for (address, expected) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("64:ff9b::a00:1", true),
            ("fd00::1", true),
            ("10.0.0.2", false),
            ("fd00::2", false),
        ] {
            let found = is_forbidden(address.parse().unwrap(), &own);
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn every_disguise_of_a_local_address_is_seen() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.1.2.3",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_forbidden(address.parse().unwrap(), &[]), "{address}");
        }
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "fd00::1",
            "2600::1",
            "64:ff9b::808:808",
        ] {
            assert!(!is_forbidden(address.parse().unwrap(), &[]), "{address}");
        }
    }
}
