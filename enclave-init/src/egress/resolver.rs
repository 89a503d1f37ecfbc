//! The name server: knows the allowed names and refuses all others at once.
//!
//! It answers one question at a time over UDP, in the 512 bytes that every
//! program understands: its answers are never longer, so there is no need for
//! EDNS or TCP. There is no IPv6 to the outside: an allowed name exists, but has
//! no AAAA or other record.

use std::sync::Arc;
use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{
    CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};
use tokio::net::UdpSocket;
use tokio::time::sleep;

use super::{Egress, destination, names};

/// Largest message over UDP without extensions (RFC 1035, section 2.3.4).
const MAX_MESSAGE: usize = 512;
/// How long programs may keep an answer. The name keeps its address for longer; see
/// [`names::MIN_UNUSED`].
pub(super) const TTL_SECONDS: u32 = 60;
/// After a failure to receive, which the next attempt may meet as well.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(socket: UdpSocket, egress: Arc<Egress>) {
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            sleep(RECEIVE_PAUSE).await;
            continue;
        };
        if let Some(answer) = answer(
            buffer.get(..length).expect("it was read into the buffer"),
            &egress,
        ) {
            // A program that is gone needs no answer.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

/// The answer to a query; none to what is not one.
fn answer(query: &[u8], egress: &Arc<Egress>) -> Option<Vec<u8>> {
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
    *reply.rcode_mut() = match query.questions.as_slice() {
        _ if query.opcode() != OPCODE::StandardQuery => RCODE::NotImplemented,
        [question] => {
            reply.questions.push(question.clone());
            match resolve(question, egress) {
                Ok(record) => {
                    reply.answers.extend(record);
                    RCODE::NoError
                }
                Err(code) => code,
            }
        }
        _ => RCODE::FormatError,
    };
    let reply = reply.build_bytes_vec_compressed().ok()?;
    (reply.len() <= MAX_MESSAGE).then_some(reply)
}

/// The record that a question asks for, if its name is allowed.
fn resolve<'a>(
    question: &Question<'a>,
    egress: &Arc<Egress>,
) -> Result<Option<ResourceRecord<'a>>, RCODE> {
    // Names that are no host's are nobody's, and are told as they are.
    let name = question.qname.to_string();
    let name = destination::normalise(&name).unwrap_or(name);
    match names::address(egress, &name) {
        Err(error) => {
            let is_listed = destination::is_listed(&name, &egress.network);
            let text = format!("{} got no address: {error}", name.escape_debug());
            egress.notices.failed_to(is_listed, &text);
            Err(RCODE::ServerFailure)
        }
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
    use simple_dns::Name;

    use super::*;
    use crate::capacity::Capacity;
    use crate::logs::Logs;

    /// The port is one that no test listens on.
    fn egress() -> Arc<Egress> {
        let network = serde_json::json!({ "egress": ["kms.test:1", "*.example.test:1"] });
        let network = serde_json::from_value(network).unwrap();
        let agent = "unix:/nowhere".parse().unwrap();
        Egress::new(
            agent,
            Arc::new(network),
            Capacity::simulated(),
            Logs::new(manifest::Logs::default(), false),
        )
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
                    prop_assert!(answer.len() <= MAX_MESSAGE);
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
