use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::{CNAME, SRV, TXT};
use tokio::net::UdpSocket;

use super::*;

/// A resolver whose name server knows these names.
pub(crate) async fn name_server(zone: &'static [(&str, &str)]) -> Resolver {
    resolver(&[serve(zone).await])
}

/// Serves these names: addresses, `port target` of a service, `alias name`, texts,
/// `moving`, an address that is another one each time, and `broken`, which fails.
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
            let mut owner = query.name().clone();
            // As servers do that are asked to look up what they do not have.
            while let Some(target) = zone.iter().find_map(|(name, value)| {
                let target = value.strip_prefix("alias ")?;
                (owner.to_ascii() == *name).then(|| target.parse::<Name>().unwrap())
            }) {
                response.metadata.response_code = ResponseCode::NoError;
                let alias = RData::CNAME(CNAME(target.clone()));
                response.answers.push(Record::from_rdata(owner, 60, alias));
                owner = target;
            }
            for (name, value) in zone {
                if owner.to_ascii() != *name {
                    continue;
                }
                response.metadata.response_code = match *value {
                    "broken" => ResponseCode::ServFail,
                    _ => ResponseCode::NoError,
                };
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
                        .push(Record::from_rdata(owner.clone(), ttl, data));
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
        ("_alias._tcp.db.example.", "alias _second._tcp.db.example."),
        ("_second._tcp.db.example.", "alias _sip._udp.example."),
        ("_sip._udp.example.", "5060 sip.example."),
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
    let found = resolver.records("_alias._tcp.db.example", Kind::Srv);
    let services = Answer::Services {
        ttl: 60,
        records: vec![service(5060, "sip.example")],
    };
    assert_eq!(found.await, Ok(services));
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
async fn names_resolve_while_all_but_one_name_server_are_dead() {
    let held = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let [first, second] = held
        .each_ref()
        .map(|socket| socket.local_addr().unwrap().port());
    let good = serve(&[("good.example.", "192.0.2.7")]).await;
    let mut lookups = tokio::task::JoinSet::new();
    // Which of them are asked first is chance.
    for _ in 0..16 {
        let resolver = resolver(&[first, second, good]);
        lookups.spawn(async move { resolver.addresses("good.example", 443).await });
    }
    for found in lookups.join_all().await {
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
