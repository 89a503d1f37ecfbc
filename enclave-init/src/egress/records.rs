//! Records of names that the parent looks up: where a service is (SRV), and texts (TXT).
//!
//! Its answer is its own word, as that of any name server is: it is read as values with
//! limits, and the workload gets an answer that is made of these.

use std::time::Duration;

use link::hello;
use link::records::{Answer, Kind, MAX_ANSWER, Question, Service, Strings};
use link::target::{MAX_HOST, Refusal};
use link::{Channel, Text, connect, frame};
use manifest::{Protocol, host_spelling, is_host_name, service_host};
use plain_text::plain;
use simple_dns::rdata::{RData, SRV, TXT};
use simple_dns::{CharacterString, Name, QTYPE, RCODE, TYPE};
use tokio::time::timeout;

use super::Egress;
use super::destination::{Destination, is_listed};

/// Most questions that wait for the parent at a time.
pub(super) const MAX_QUESTIONS: usize = 32;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The agent asks its name servers before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is told of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// How long the parent lets it be kept, in seconds.
    pub(super) ttl: u32,
    pub(super) records: Vec<RData<'static>>,
}

/// The question for the parent, if the image allows it and it is for these types.
pub(super) fn question(egress: &Egress, name: &str, kind: QTYPE) -> Option<Question> {
    let kind = match kind {
        QTYPE::TYPE(TYPE::SRV) => Kind::Srv,
        QTYPE::TYPE(TYPE::TXT) => Kind::Txt,
        _ => return None,
    };
    let name = host_spelling(name);
    (is_host_name(&name) && egress.network.allows_records(&name)).then(|| Question {
        name: Text::<MAX_HOST>::new(name),
        kind,
    })
}

/// Has the parent look up the records, and tells what came of it.
pub(super) async fn ask(egress: &Egress, question: &Question) -> Result<Found, RCODE> {
    let Ok(_place) = egress.questions.try_acquire() else {
        let reason = format!("{MAX_QUESTIONS} questions about records wait for the parent");
        return Err(failure(egress, question, &reason));
    };
    let answer = timeout(ANSWER_TIMEOUT, exchange(egress, question)).await;
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failure(egress, question, &error)),
        Err(_) => return Err(failure(egress, question, "the parent did not answer")),
    };
    match (question.kind, answer) {
        (Kind::Srv, Answer::Services { ttl, records }) => {
            tell_missing(egress, question, &records);
            Ok(Found {
                ttl,
                records: records.iter().filter_map(service).collect(),
            })
        }
        (Kind::Txt, Answer::Texts { ttl, records }) => Ok(Found {
            ttl,
            records: records.iter().filter_map(text).collect(),
        }),
        // The name is there all the same: it has an address, or is about one that has.
        (
            _,
            Answer::Refused {
                refusal: Refusal::NameNotFound,
                ..
            },
        ) => Ok(Found {
            ttl: 0,
            records: Vec::new(),
        }),
        (_, Answer::Refused { reason, .. }) => Err(failure(egress, question, &plain(&reason))),
        _ => Err(failure(
            egress,
            question,
            "the parent answered with records of another type",
        )),
    }
}

async fn exchange(egress: &Egress, question: &Question) -> Result<Answer, String> {
    let failed = |error: &dyn ToString| error.to_string();
    let mut stream = connect(&egress.agent, CONNECT_TIMEOUT)
        .await
        .map_err(|error| failed(&error))?;
    hello::open(&mut stream, Channel::Records)
        .await
        .map_err(|error| failed(&error))?;
    frame::write(&mut stream, question, frame::MAX_TARGET)
        .await
        .map_err(|error| failed(&error))?;
    frame::read(&mut stream, MAX_ANSWER)
        .await
        .map_err(|error| failed(&error))
}

fn failure(egress: &Egress, question: &Question, reason: &str) -> RCODE {
    let text = format!("the records of {} got no answer: {reason}", question.name);
    let is_listed = is_listed(service_host(&question.name), &egress.network);
    egress.notices.failed_to(is_listed, &text);
    RCODE::ServerFailure
}

/// A record whose target is a host, or the root for "there is no such service" (RFC 2782).
fn service(service: &Service) -> Option<RData<'static>> {
    let target = host_spelling(&service.target);
    let name = if target.is_empty() {
        Name::new_unchecked("")
    } else if is_host_name(&target) {
        Name::new(&target).ok()?
    } else {
        return None;
    };
    Some(RData::SRV(SRV {
        priority: service.priority,
        weight: service.weight,
        port: service.port,
        target: name.into_owned(),
    }))
}

fn text(Strings(strings): &Strings) -> Option<RData<'static>> {
    // A record has a string at least, which may be empty (RFC 1035, section 3.3.14).
    let mut record = TXT::new();
    for string in strings {
        record.add_char_string(CharacterString::new(string).ok()?.into_owned());
    }
    (!strings.is_empty()).then_some(RData::TXT(record))
}

/// Says which of the hosts that a service is at cannot be reached, and what would help.
fn tell_missing(egress: &Egress, question: &Question, services: &[Service]) {
    let labels: Vec<_> = question.name.split('.').take(2).collect();
    let protocol = match labels.as_slice() {
        [_, "_udp"] => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let targets = services
        .iter()
        .filter(|service| is_host_name(&host_spelling(&service.target)))
        .filter_map(|service| Destination::over(protocol, &service.target, service.port));
    for target in targets.filter(|target| !target.is_allowed(&egress.network)) {
        egress.notices.refused(&format!(
            "the service {} is at {target}, which is not in the image's egress list: add \"{target}\" to [network] egress to reach it there",
            question.name
        ));
    }
}
