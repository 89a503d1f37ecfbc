//! The name server: knows the allowed names and refuses all others at once, over UDP and
//! TCP.
//!
//! An allowed name has an address, and the records of type SRV and TXT that the parent finds
//! ([`records`]). It has no others: there is no IPv6 to the outside, and a program that asks
//! for AAAA or HTTPS hears at once that there is none. An answer that is too long for a
//! datagram is cut short, and whole over TCP; programs may speak EDNS (RFC 6891).

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use link::records::Question as Wanted;
use manifest::OWN_NETWORK;
use simple_dns::rdata::{A, OPT, PTR, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::records::{self, Found};
use super::{Egress, destination, names};

/// Largest query that is read, and what programs are told of it (RFC 9715, section 3.1).
const MAX_QUERY: u16 = 1232;
/// Largest answer in a datagram without extensions (RFC 1035, section 2.3.4), and over TCP.
const MAX_PLAIN_ANSWER: u16 = 512;
const MAX_STREAM_ANSWER: u16 = u16::MAX;
/// The version of EDNS that is known.
const EDNS: u8 = 0;
/// How long programs may keep an answer. The name keeps its address for longer; see
/// [`names::MIN_UNUSED`].
pub(super) const TTL_SECONDS: u32 = 60;
/// After a failure to receive, which the next attempt may meet as well.
const PAUSE: Duration = Duration::from_millis(100);
/// Most connections at a time; a further one waits.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take for the next query, and for taking an answer.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn serve(datagrams: UdpSocket, streams: TcpListener, egress: Arc<Egress>) {
    tokio::spawn(serve_streams(streams, Arc::clone(&egress)));
    let datagrams = Arc::new(datagrams);
    let mut buffer = [0; MAX_QUERY as usize];
    loop {
        let Ok((length, client)) = datagrams.recv_from(&mut buffer).await else {
            sleep(PAUSE).await;
            continue;
        };
        let query = buffer.get(..length).expect("it was read into the buffer");
        // A program that is gone needs no answer.
        if let Some(wanted) = wanted(query, &egress) {
            let (query, datagrams) = (query.to_vec(), Arc::clone(&datagrams));
            let egress = Arc::clone(&egress);
            // As many of them wait as may ask the parent; the others are refused at once.
            tokio::spawn(async move {
                let found = records::ask(&egress, &wanted).await;
                if let Some(answer) = answer(&query, &egress, Some(found), room(&query)) {
                    let _ = datagrams.send_to(&answer, client).await;
                }
            });
        } else if let Some(answer) = answer(query, &egress, None, room(query)) {
            let _ = datagrams.send_to(&answer, client).await;
        }
    }
}

/// How many bytes a program takes in a datagram.
fn room(query: &[u8]) -> u16 {
    let query = Packet::parse(query).ok();
    let size = query.and_then(|query| query.opt().map(|opt| opt.udp_packet_size));
    size.map_or(MAX_PLAIN_ANSWER, |size| {
        size.clamp(MAX_PLAIN_ANSWER, MAX_QUERY)
    })
}

/// What the parent is asked before a query is answered, if anything.
fn wanted(query: &[u8], egress: &Egress) -> Option<Wanted> {
    let query = Packet::parse(query).ok()?;
    if query.has_flags(PacketFlag::RESPONSE) || query.opcode() != OPCODE::StandardQuery {
        return None;
    }
    let [question] = query.questions.as_slice() else {
        return None;
    };
    let is_internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    let wanted = records::question(egress, &question.qname.to_string(), question.qtype);
    wanted.filter(|_| is_internet)
}

async fn serve_streams(listener: TcpListener, egress: Arc<Egress>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let egress = Arc::clone(&egress);
        tokio::spawn(async move {
            let _place = place;
            // A program that is gone, or says what is no query, needs no answer.
            let _ = serve_stream(stream, &egress).await;
        });
    }
}

/// Answers queries one after the other, each after its length (RFC 1035, section 4.2.2),
/// until the program ends the connection or says something else.
async fn serve_stream(mut stream: TcpStream, egress: &Arc<Egress>) -> io::Result<()> {
    let mut buffer = [0; MAX_QUERY as usize];
    loop {
        let query = timeout(STREAM_TIMEOUT, async {
            let length = usize::from(stream.read_u16().await?);
            let query = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
            stream.read_exact(query).await?;
            Ok::<_, io::Error>(length)
        });
        let length = query.await??;
        let query = buffer.get(..length).expect("it was read into the buffer");
        let found = match wanted(query, egress) {
            Some(wanted) => Some(records::ask(egress, &wanted).await),
            None => None,
        };
        let answer = answer(query, egress, found, MAX_STREAM_ANSWER);
        let answer = answer.ok_or(io::ErrorKind::InvalidData)?;
        let length = u16::try_from(answer.len()).expect("no answer is longer");
        let message = [&length.to_be_bytes()[..], &answer].concat();
        timeout(STREAM_TIMEOUT, stream.write_all(&message)).await??;
    }
}

/// The answer to a query, of at most so many bytes; none to what is not one.
fn answer(
    query: &[u8],
    egress: &Arc<Egress>,
    found: Option<Result<Found, RCODE>>,
    room: u16,
) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    if query.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut reply = Packet::new_reply(query.id());
    *reply.opcode_mut() = query.opcode();
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.opt_mut() = query.opt().map(|_| OPT {
        opt_codes: Vec::new(),
        udp_packet_size: MAX_QUERY,
        version: EDNS,
    });
    *reply.rcode_mut() = match query.questions.as_slice() {
        _ if query.opcode() != OPCODE::StandardQuery => RCODE::NotImplemented,
        _ if query.opt().is_some_and(|opt| opt.version > EDNS) => RCODE::BADVERS,
        [question] => {
            reply.questions.push(question.clone());
            let records = match found {
                Some(found) => found.map(|found| told(question, found)),
                None => resolve(question, egress).map(|record| record.into_iter().collect()),
            };
            match records {
                Ok(records) => {
                    reply.answers = records;
                    RCODE::NoError
                }
                Err(code) => code,
            }
        }
        _ => RCODE::FormatError,
    };
    let room = usize::from(room);
    let whole = reply.build_bytes_vec_compressed().ok()?;
    if whole.len() <= room {
        return Some(whole);
    }
    // The program asks again over TCP (RFC 7766, section 5).
    reply.answers.clear();
    reply.set_flags(PacketFlag::TRUNCATION);
    let cut = reply.build_bytes_vec_compressed().ok()?;
    (cut.len() <= room).then_some(cut)
}

/// What the parent found, as records of the name that was asked for.
fn told<'a>(question: &Question<'a>, found: Found) -> Vec<ResourceRecord<'a>> {
    let ttl = found.ttl.min(TTL_SECONDS);
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, ttl, data);
    found.records.into_iter().map(record).collect()
}

/// The address that a name for looking names up by is about, if it is one of the enclave's
/// own network (RFC 1035, section 3.5).
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let labels = name.strip_suffix(".in-addr.arpa")?.split('.').rev();
    let octets = labels
        .map(|label| label.parse().ok())
        .collect::<Option<Vec<u8>>>()?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?);
    let (first, prefix) = OWN_NETWORK;
    let host_bits = 32 - u32::from(prefix);
    (address.to_bits() >> host_bits == first.to_bits() >> host_bits).then_some(address)
}

/// The record that a question asks for, if its name is allowed.
fn resolve<'a>(
    question: &Question<'a>,
    egress: &Arc<Egress>,
) -> Result<Option<ResourceRecord<'a>>, RCODE> {
    // Names that are no host's are nobody's, and are told as they are.
    let name = question.qname.to_string();
    let name = destination::normalise(&name).unwrap_or(name);
    if let Some(address) = reversed(&name) {
        let name = egress.names.at(address).ok_or(RCODE::NameError)?;
        let name = Name::new(&name).map_err(|_| RCODE::NameError)?.into_owned();
        let is_wanted = matches!(question.qtype, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY);
        let data = is_wanted.then_some(RData::PTR(PTR(name)));
        return Ok(data.map(|data| {
            ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL_SECONDS, data)
        }));
    }
    match names::address(egress, &name) {
        Err(error) => {
            let is_listed = destination::is_listed(&name, &egress.network);
            let text = format!("{} got no address: {error}", name.escape_debug());
            egress.notices.failed_to(is_listed, &text);
            Err(RCODE::ServerFailure)
        }
        // It may have records of other types.
        Ok(None) if egress.network.allows_records(&name) => Ok(None),
        Ok(None) => {
            egress.notices.refused(&format!(
                "the name {} is not in the image's egress list",
                name.escape_debug()
            ));
            Err(RCODE::NameError)
        }
        Ok(Some(address)) => {
            let wants_address = matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY)
                && matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
            Ok(wants_address.then(|| {
                let data = RData::A(A {
                    address: address.to_bits(),
                });
                ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL_SECONDS, data)
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::egress::tests;

    /// The port is one that no test listens on.
    fn egress() -> Arc<Egress> {
        Arc::new(tests::egress(&["kms.test:1", "*.example.test:1"]))
    }

    /// The answer in a datagram, without a parent to ask.
    fn answer(query: &[u8], egress: &Arc<Egress>) -> Option<Vec<u8>> {
        super::answer(query, egress, None, room(query))
    }

    fn query(name: &'static str, kind: TYPE) -> Vec<u8> {
        let mut query = Packet::new_query(7);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(Question::new(
            Name::new(name).unwrap(),
            kind.into(),
            CLASS::IN.into(),
            false,
        ));
        query.build_bytes_vec().unwrap()
    }

    #[tokio::test]
    async fn refused_names_do_not_exist() {
        let egress = egress();
        for kind in [TYPE::A, TYPE::AAAA, TYPE::TXT] {
            let answer = answer(&query("other.test", kind), &egress).unwrap();
            let answer = Packet::parse(&answer).unwrap();
            assert_eq!((answer.id(), answer.rcode()), (7, RCODE::NameError));
            assert!(answer.answers.is_empty());
            assert!(answer.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        }
    }

    #[tokio::test]
    async fn edns_is_answered_where_it_is_spoken() {
        let egress = egress();
        let asked = |version| {
            let bytes = query("other.test", TYPE::A);
            let mut query = Packet::parse(&bytes).unwrap();
            *query.opt_mut() = Some(OPT {
                opt_codes: Vec::new(),
                udp_packet_size: 4096,
                version,
            });
            let answer = answer(&query.build_bytes_vec().unwrap(), &egress).unwrap();
            let answer = Packet::parse(&answer).unwrap();
            let opt = answer.opt().unwrap();
            (answer.rcode(), opt.version, opt.udp_packet_size)
        };
        assert_eq!(asked(0), (RCODE::NameError, 0, MAX_QUERY));
        assert_eq!(asked(1), (RCODE::BADVERS, 0, MAX_QUERY));
        let plain = answer(&query("other.test", TYPE::A), &egress).unwrap();
        assert!(Packet::parse(&plain).unwrap().opt().is_none());
    }

    #[tokio::test]
    async fn queries_over_tcp_are_answered_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_streams(listener, egress()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let query = query("other.test", TYPE::A);
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        let both = [&length[..], &query, &length, &query].concat();
        stream.write_all(&both).await.unwrap();
        for _ in 0..2 {
            let length = stream.read_u16().await.unwrap();
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await.unwrap();
            let answer = Packet::parse(&answer).unwrap();
            assert_eq!((answer.id(), answer.rcode()), (7, RCODE::NameError));
        }
        // What is longer than any query is not read.
        stream.write_u16(MAX_QUERY + 1).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_give_way_to_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_streams(listener, egress()));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        let query = query("other.test", TYPE::A);
        let length = u16::try_from(query.len()).unwrap();
        stream.write_u16(length).await.unwrap();
        stream.write_all(&query).await.unwrap();
        stream.read_u16().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_one_standard_question_is_refused_or_ignored() {
        let egress = egress();
        let question = query("other.test", TYPE::A);
        let code = |bytes: &[u8]| {
            answer(bytes, &egress).map(|answer| Packet::parse(&answer).unwrap().rcode())
        };
        let mut response = question.clone();
        response[2] |= 0x80;
        assert_eq!(code(&response), None);
        let mut status = question.clone();
        status[2] |= 0x10;
        assert_eq!(code(&status), Some(RCODE::NotImplemented));
        let mut none = question.clone();
        none[5] = 0;
        assert_eq!(code(&none[..12]), Some(RCODE::FormatError));
        let mut two = [&question[..], &question[12..]].concat();
        two[5] = 2;
        assert_eq!(code(&two), Some(RCODE::FormatError));
        assert_eq!(code(&question[..question.len() - 1]), None);
    }

    #[tokio::test]
    async fn a_name_that_points_at_itself_is_ignored() {
        let mut query = query("other.test", TYPE::A);
        query.truncate(12);
        query.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(answer(&query, &egress()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_short_answer_or_none(
            head in prop::collection::vec(any::<u8>(), 0..12),
            body in prop::collection::vec(prop_oneof![Just(0), Just(0xc0), Just(12), any::<u8>()], 0..500),
            questions in 0_u8..3,
        ) {
            let mut bytes = head;
            bytes.resize(12, 0);
            bytes[2] &= 0x7f;
            bytes[4..12].copy_from_slice(&[0, questions, 0, 0, 0, 0, 0, 0]);
            bytes.extend(body);
            let egress = egress();
            for end in [bytes.len(), bytes.len() / 2] {
                if let Some(answer) = answer(&bytes[..end], &egress) {
                    prop_assert!(answer.len() <= usize::from(MAX_QUERY));
                    let answer = Packet::parse(&answer).unwrap();
                    prop_assert!(answer.has_flags(PacketFlag::RESPONSE));
                }
            }
        }

        #[test]
        fn any_query_changed_anywhere_is_survived(position: prop::sample::Index, byte: u8) {
            let mut bytes = query("a.b.other.test", TYPE::A);
            let position = position.index(bytes.len());
            bytes[position] = byte;
            answer(&bytes, &egress());
        }
    }
}
