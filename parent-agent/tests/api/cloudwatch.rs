//! The sink `cloudwatch` against a service that checks every limit and fails in
//! every way that the real one does.

use std::collections::BTreeMap;

use link::logs::{LogStream, MAX_BATCH_RECORDS};
use serde_json::{Value, json};

use crate::agent::{Agent, nothing_is_left, until};
use crate::image::Builder;
use crate::logs::{Connection, record};
use test_support::cloudwatch::{CloudWatch, Fault};

const GROUP: &str = "/aws/ec2/enclave/test";

fn start(service: &CloudWatch, folder: tempfile::TempDir, arguments: &[&str]) -> Agent {
    let arguments = [&["--sink", "cloudwatch"], arguments].concat();
    Agent::spawn_with(
        folder,
        Builder::new(&[], &[]),
        &arguments,
        &service.environment(),
    )
}

async fn run(service: &CloudWatch, arguments: &[&str]) -> Agent {
    let agent = start(service, tempfile::tempdir().unwrap(), arguments);
    agent.until_init_waits().await;
    agent
}

/// Sends lines that say their number, as the init does.
async fn send(connection: &mut Connection, numbers: std::ops::RangeInclusive<u64>) {
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(MAX_BATCH_RECORDS / 4) {
        let lines: Vec<_> = numbers.iter().map(|number| line(*number)).collect();
        let records: Vec<_> = numbers
            .iter()
            .zip(&lines)
            .map(|(number, line)| record(LogStream::Application, *number, line.as_bytes()))
            .collect();
        let last = *numbers.last().unwrap();
        assert_eq!(
            connection.send(records).await,
            [(LogStream::Application, last)]
        );
    }
}

fn line(number: u64) -> String {
    format!("line {number} {}", "x".repeat(90))
}

/// The lines that have arrived, without those that came again.
fn arrived(service: &CloudWatch) -> Vec<u64> {
    let mut last = 0;
    let mut numbers = Vec::new();
    for message in service.messages(GROUP, "application") {
        let number: u64 = message.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(message, line(number));
        assert!(number <= last + 1, "{number} after {last}");
        if number == last + 1 {
            numbers.push(number);
            last = number;
        }
    }
    numbers
}

async fn until_arrived(service: &CloudWatch, last: u64) {
    until(|| arrived(service).last() == Some(&last)).await;
}

#[tokio::test]
async fn cloudwatch_gets_a_line_in_a_group_that_was_made_for_it() {
    let service = CloudWatch::start().await.unwrap();
    let agent = run(&service, &["--log-retention-days", "7"]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=1).await;
    until_arrived(&service, 1).await;
    assert_eq!(service.retention(GROUP), Some(7));
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_is_found_by_its_name_and_known_by_its_certificate() {
    let service = CloudWatch::start_tls().await.unwrap();
    let agent = run(&service, &[]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=1).await;
    until_arrived(&service, 1).await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_with_another_certificate_gets_nothing() {
    let service = CloudWatch::start_tls().await.unwrap();
    let mut environment = service.environment();
    environment.retain(|(name, _)| *name != "SSL_CERT_FILE");
    let agent = Agent::spawn_with(
        tempfile::tempdir().unwrap(),
        Builder::new(&[], &[]),
        &["--sink", "cloudwatch"],
        &environment,
    );
    agent.until_init_waits().await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=1).await;
    let refused = async {
        loop {
            let status = agent.status().await;
            let sink = &status["logs"]["sinks"][0];
            if sink["errors"]["connection"].as_u64() > Some(0) {
                return sink["last_error"].as_str().unwrap_or_default().to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let error = tokio::time::timeout(crate::agent::LIMIT, refused)
        .await
        .unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(service.messages(GROUP, "application").is_empty());
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn cloudwatch_is_signed_by_the_services_time_where_the_clock_is_wrong() {
    let service = CloudWatch::start().await.unwrap();
    service.set_clock_ahead(-3600);
    let agent = run(&service, &[]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=1).await;
    until_arrived(&service, 1).await;
    // It is corrected within a call, so that nobody has to look at the credentials.
    let status = agent.status().await;
    assert_eq!(status["logs"]["sinks"][0]["errors"], json!({}), "{status}");
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_is_asked_through_the_proxy_of_the_environment() {
    let service = CloudWatch::start().await.unwrap();
    let mut environment = service.environment();
    environment.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
    environment.push(("AWS_ENDPOINT_URL", "http://logs.example.invalid".to_owned()));
    environment.push(("HTTP_PROXY", service.url().to_owned()));
    let agent = Agent::spawn_with(
        tempfile::tempdir().unwrap(),
        Builder::new(&[], &[]),
        &["--sink", "cloudwatch"],
        &environment,
    );
    agent.until_init_waits().await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=1).await;
    until_arrived(&service, 1).await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_group_that_exists_is_used_as_it_is() {
    let service = CloudWatch::start().await.unwrap();
    service.create("/my/group", None);
    let agent = run(&service, &["--log-group", "/my/group"]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=1).await;
    until(|| !service.messages("/my/group", "application").is_empty()).await;
    assert_eq!(service.retention("/my/group"), None);
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_gets_every_line_in_order_in_full_batches_whatever_fails() {
    const LINES: u64 = 60_000;
    let service = CloudWatch::start().await.unwrap();
    service.create(GROUP, None);
    // Nothing is taken until all of it waits.
    service.fail(Fault::Unavailable);
    let mut agent = run(&service, &[]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=LINES).await;
    // Every batch fails in its own way, and then not.
    for fault in [
        Fault::Throttled,
        Fault::ServerError,
        Fault::TakenButNotAnswered,
        Fault::ClosedHalfWay,
        Fault::Down,
        Fault::ExpiredToken,
        Fault::NoJson,
    ] {
        service.fail_next([fault, Fault::None]);
    }
    service.fail(Fault::None);
    until_arrived(&service, LINES).await;
    let status = agent.status().await;
    let sink = &status["logs"]["sinks"][0];
    assert_eq!(sink["stream"], "application");
    assert!(sink["mean_fill"].as_f64().unwrap() >= 0.9, "{sink}");
    for class in ["throttled", "server", "credentials"] {
        assert!(sink["errors"][class].as_u64() > Some(0), "{class}: {sink}");
    }
    assert_eq!(sink["records"], LINES);
    // Credentials that expired are asked for again, not used again.
    assert!(service.has_failed());
    let events = service.batches(GROUP, "application");
    let full = events.iter().filter(|batch| batch.fill() >= 900).count();
    assert!(
        full + 1 >= events.len(),
        "{full} of {} are full",
        events.len()
    );
    agent.end_init(0).await;
    drop(connection);
    agent.event("ended").await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_gets_any_bytes_and_gives_them_back() {
    let service = CloudWatch::start().await.unwrap();
    let agent = run(&service, &[]).await;
    let mut connection = Connection::open(&agent).await;
    let binary = vec![0xff; link::logs::MAX_RECORD];
    let mut piece = record(LogStream::Application, 3, b"a long");
    piece.continues = true;
    let records = vec![
        record(LogStream::Application, 1, b""),
        record(LogStream::Application, 2, b"a\xffb"),
        piece,
        record(LogStream::Application, 4, b" line"),
        record(LogStream::Application, 5, &binary),
        record(LogStream::Health, 1, b"healthy"),
    ];
    connection.send(records).await;
    until(|| service.messages(GROUP, "application").len() >= 6).await;
    let messages = service.messages(GROUP, "application");
    assert_eq!(
        messages[..4],
        ["\\x ", "\\x a\\xffb", "\\+ a long", " line"]
    );
    let escaped: usize = messages[4..]
        .iter()
        .map(|message| message.matches("\\xff").count())
        .sum();
    assert_eq!(escaped, binary.len());
    until(|| service.messages(GROUP, "health") == ["healthy"]).await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_refusals_are_counted_and_the_rest_goes_on() {
    let service = CloudWatch::start().await.unwrap();
    service.create(GROUP, None);
    let agent = run(&service, &[]).await;
    let mut connection = Connection::open(&agent).await;
    service.refuse("poison");
    service.fail_next([Fault::TooOld(2)]);
    let mut lines: Vec<_> = (1..=20).map(|number| format!("good {number}")).collect();
    lines[11] = "poison".to_owned();
    let records = lines
        .iter()
        .zip(1..)
        .map(|(line, sequence)| record(LogStream::Application, sequence, line.as_bytes()))
        .collect();
    connection.send(records).await;
    let mut lost = BTreeMap::new();
    for _ in 0..1000 {
        lost = serde_json::from_value(agent.status().await["logs"]["sinks"][0]["lost"].clone())
            .unwrap();
        if lost.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let expected = [("refused".to_owned(), 1), ("too old".to_owned(), 2)];
    assert_eq!(lost, BTreeMap::from(expected));
    // The loss is in the log itself.
    until(|| {
        let system = service.messages(GROUP, "system");
        system.iter().any(|line| line.contains("too old"))
    })
    .await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_denied_says_so_and_recovers() {
    let service = CloudWatch::start().await.unwrap();
    service.create(GROUP, None);
    service.fail_next([Fault::Denied]);
    let agent = run(&service, &[]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=1).await;
    until_arrived(&service, 1).await;
    until(|| {
        let errors = service.messages(GROUP, "errors");
        errors.iter().any(|line| line.contains("AccessDenied"))
            && errors
                .iter()
                .any(|line| line.contains("takes log records again"))
    })
    .await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_gets_from_the_next_agent_what_one_could_not_send() {
    let service = CloudWatch::start().await.unwrap();
    service.create(GROUP, None);
    service.fail(Fault::Unavailable);
    let agent = run(&service, &[]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, 1..=5000).await;
    // No time to say goodbye.
    let folder = agent.killed().await;
    nothing_is_left(&folder).await;
    service.fail(Fault::None);
    let agent = start(&service, folder, &[]);
    until_arrived(&service, 5000).await;
    agent.until_init_waits().await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

/// Sends records of 60 KB, as many as it takes to reach the smallest cap.
async fn overfill(connection: &mut Connection) {
    let data = vec![b'x'; 60_000];
    for sequence in 1..=LARGE {
        let records = vec![record(LogStream::Application, sequence, &data)];
        connection.send(records).await;
    }
}

/// Records of 60 KB that are more than 16 MiB.
const LARGE: u64 = 320;

#[tokio::test]
async fn log_when_full_block_holds_the_enclave_up_until_the_service_is_back() {
    let service = CloudWatch::start().await.unwrap();
    service.create(GROUP, None);
    service.fail(Fault::Unavailable);
    let agent = run(&service, &["--log-max-size", "16MiB"]).await;
    let mut connection = Connection::open(&agent).await;
    let recovering = async {
        while agent.status().await["logs"]["spool"]["full"] != true {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        // Nothing is acknowledged beyond the cap, and nothing is lost.
        let status = agent.status().await;
        assert!(status["logs"]["records"].as_u64().unwrap() < LARGE);
        assert!(status["logs"]["spool"]["bytes"].as_u64().unwrap() <= 16 << 20);
        service.fail(Fault::None);
    };
    tokio::join!(overfill(&mut connection), recovering);
    let count = || service.messages(GROUP, "application").len() as u64;
    until(|| count() == LARGE).await;
    let status = agent.status().await;
    assert_eq!(status["logs"]["sinks"][0]["lost"], serde_json::json!({}));
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn log_when_full_drop_says_how_much_did_not_arrive() {
    let service = CloudWatch::start().await.unwrap();
    service.create(GROUP, None);
    service.fail(Fault::Unavailable);
    let arguments = ["--log-max-size", "16MiB", "--log-when-full", "drop-oldest"];
    let agent = run(&service, &arguments).await;
    let mut connection = Connection::open(&agent).await;
    overfill(&mut connection).await;
    service.fail(Fault::None);
    let mut lost = 0;
    let accounted = async {
        loop {
            let status = agent.status().await;
            let sink = &status["logs"]["sinks"][0];
            lost = sink["lost"]["removed"].as_u64().unwrap_or(0);
            let arrived = service.messages(GROUP, "application").len() as u64;
            if arrived + lost == LARGE {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::agent::LIMIT, accounted)
        .await
        .unwrap();
    assert!(lost > 0);
    until(|| {
        let errors = service.messages(GROUP, "errors");
        errors
            .iter()
            .any(|line| line.contains("removed from the full spool"))
    })
    .await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_gets_all_that_killed_agents_acknowledged() {
    let service = CloudWatch::start().await.unwrap();
    service.create(GROUP, None);
    let mut folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..5_u64 {
        let agent = start(&service, folder, &[]);
        agent.until_init_waits().await;
        let (mut connection, stored) = Connection::open_with(&agent).await;
        // The spool knows what it holds of this boot.
        let held = stored.first().map_or(0, |(_, last)| *last);
        assert_eq!(held, last, "round {round}");
        last += 1500 + round * 777;
        send(&mut connection, held + 1..=last).await;
        folder = agent.killed().await;
        nothing_is_left(&folder).await;
    }
    let agent = start(&service, folder, &[]);
    until_arrived(&service, last).await;
    agent.until_init_waits().await;
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();
}

#[tokio::test]
async fn cloudwatch_without_a_region_is_refused_before_anything_starts() {
    let agent = Agent::spawn_with(
        tempfile::tempdir().unwrap(),
        Builder::new(&[], &[]),
        &["--sink", "cloudwatch"],
        &[
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ],
    );
    let (code, error) = agent.failed().await;
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("set AWS_REGION"), "{error}");
}

#[tokio::test]
async fn cloudwatch_metrics_are_records_in_the_embedded_format() {
    let service = CloudWatch::start().await.unwrap();
    let agent = run(&service, &["--metrics-namespace", "Acme/Enclaves"]).await;
    let records = || {
        let system = service.messages(GROUP, "system").into_iter();
        let parsed = system.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        parsed
            .filter(|record| record.get("_aws").is_some())
            .collect::<Vec<_>>()
    };
    until(|| !records().is_empty()).await;
    let record = records().remove(0);
    assert_eq!(record["EnclaveId"], "test");
    assert!(record["_aws"]["Timestamp"].as_u64().unwrap() > 1_700_000_000_000);
    let directive = &record["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(directive["Namespace"], "Acme/Enclaves");
    assert_eq!(directive["Dimensions"], json!([["EnclaveId"]]));
    let metrics = directive["Metrics"].as_array().unwrap();
    // The format's limit, and a number for each.
    assert!((10..=100).contains(&metrics.len()));
    for metric in metrics {
        let name = metric["Name"].as_str().unwrap();
        assert!(record[name].is_number(), "{name}: {record}");
        let unit = metric["Unit"].as_str().unwrap();
        assert!(["None", "Count", "Bytes", "Seconds"].contains(&unit));
    }
    agent.end_init(0).await;
    agent.ended().await;
    service.counts().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--metrics-namespace", "Acme", "--sink", "stdout"];
    let agent = Agent::spawn_in(folder, Builder::new(&[], &[]), &arguments);
    let (code, error) = agent.failed().await;
    assert_eq!(code, 2);
    assert!(error.contains("--sink cloudwatch"), "{error}");
}
