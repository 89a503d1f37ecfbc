//! The name server: knows the allowed names and refuses all others at once.

use std::sync::Arc;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

use super::{Egress, names};

/// Largest query over UDP without extensions (RFC 1035, section 2.3.4).
const MAX_QUERY: usize = 512;
/// How long programs may keep an answer: it never changes.
const TTL_SECONDS: u32 = 300;

pub(super) async fn serve(socket: UdpSocket, egress: Arc<Egress>) {
    let mut buffer = [0; MAX_QUERY];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = answer(buffer.get(..length).unwrap_or_default(), &egress).await {
            // A program that is gone needs no answer.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

/// The answer to a query; none to what is not one.
async fn answer(query: &[u8], egress: &Arc<Egress>) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    let question = query.questions.first()?;
    let name = question.qname.to_string().to_ascii_lowercase();
    let mut reply = query.clone().into_reply();
    let address = match names::address(egress, &name).await {
        Ok(address) => address,
        Err(error) => {
            egress
                .logs
                .error(format!("egress: {name} got no address: {error}"));
            *reply.rcode_mut() = RCODE::ServerFailure;
            return reply.build_bytes_vec().ok();
        }
    };
    match address {
        None => {
            egress.logs.system(format!(
                "egress: the name {name} is not in the image's egress list"
            ));
            *reply.rcode_mut() = RCODE::NameError;
        }
        Some(address) => {
            let wants_address = matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY)
                && matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
            if wants_address {
                let data = RData::A(A {
                    address: address.to_bits(),
                });
                reply.answers.push(ResourceRecord::new(
                    question.qname.clone(),
                    CLASS::IN,
                    TTL_SECONDS,
                    data,
                ));
            }
        }
    }
    reply.build_bytes_vec().ok()
}
