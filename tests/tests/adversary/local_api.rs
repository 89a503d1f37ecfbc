//! Requests to the local API that others have the workload send.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclave_tests::{Hypervisor, Workload};

use crate::hostile::{Hostile, PROGRAMS, User, folder, manifest};

const BODY: &str = "{\"nonce\":\"AAAA\"}";

/// A request for a document, with these lines in its head.
fn request(target: &str, head: &[&str]) -> String {
    let lines: String = head.iter().flat_map(|line| [*line, "\r\n"]).collect();
    format!(
        "POST {target} HTTP/1.1\r\n{lines}Content-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// The status of the answer, and whether there is a document in it.
async fn answer(enclave: &Hostile, request: &str) -> (u16, bool) {
    let command = format!("http 7070 {}", STANDARD.encode(request));
    let answer = enclave.ask(&command).await;
    let bytes = STANDARD
        .decode(&answer)
        .unwrap_or_else(|_| panic!("{answer}"));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    // COSE_Sign1 of the module: four elements, the first ES384's header.
    let mark = [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22];
    let is_document = bytes.windows(mark.len()).any(|window| window == mark);
    (status.unwrap_or_else(|| panic!("{text}")), is_document)
}

#[tokio::test]
async fn sim_forged_requests_get_no_document() {
    const OURS: &str = "Host: 198.18.0.1:7070";
    const HEADER: &str = "Enclave-Api: 1";
    let enclave = Hostile::start(Hypervisor::Sim, User::Ordinary).await;
    let path = "/v1/attestation";
    let mut open = Vec::new();
    for (name, target, head) in [
        ("the header is missing", path, vec![OURS]),
        ("its value is another", path, vec![OURS, "Enclave-Api: 2"]),
        (
            "the host is the attacker's, as after DNS rebinding",
            path,
            vec!["Host: attacker.example:7070", HEADER],
        ),
        ("another port", path, vec!["Host: 198.18.0.1:8080", HEADER]),
        (
            "an address of the workload's",
            path,
            vec!["Host: 127.0.0.1:7070", HEADER],
        ),
        (
            "two hosts",
            path,
            vec![OURS, "Host: attacker.example", HEADER],
        ),
        ("no host", path, vec![HEADER]),
        (
            "a proxy's client",
            path,
            vec![OURS, HEADER, "X-Forwarded-For: 192.0.2.1"],
        ),
        (
            "a proxy's host",
            path,
            vec![OURS, HEADER, "X-Forwarded-Host: attacker.example"],
        ),
        ("a proxy", path, vec![OURS, HEADER, "Via: 1.1 proxy"]),
        (
            "a proxy of RFC 7239",
            path,
            vec![OURS, HEADER, "Forwarded: for=192.0.2.1"],
        ),
        (
            "a browser's page",
            path,
            vec![OURS, HEADER, "Origin: http://attacker.example"],
        ),
        (
            "a browser's link",
            path,
            vec![OURS, HEADER, "Referer: http://attacker.example/"],
        ),
        (
            "a browser's fetch",
            path,
            vec![OURS, HEADER, "Sec-Fetch-Site: cross-site"],
        ),
        (
            "the absolute form of another host",
            "http://attacker.example:7070/v1/attestation",
            vec![OURS, HEADER],
        ),
    ] {
        let (status, is_document) = answer(&enclave, &request(target, &head)).await;
        println!("{name}: {status}");
        if !(400..500).contains(&status) || is_document {
            open.push(format!("{name}: {status}, a document: {is_document}"));
        }
    }
    assert!(open.is_empty(), "{}", open.join("\n"));
    // And so that these are refused for what they are:
    let genuine = request(path, &[OURS, HEADER]);
    assert_eq!(answer(&enclave, &genuine).await, (200, true));
    enclave.agent.stopped().await.unwrap();
}

/// Silent connections on every place, in the same enclave that a client asks.
#[tokio::test]
async fn sim_silent_connections_leave_places() {
    let mut enclave = Hostile::start(Hypervisor::Sim, User::Ordinary).await;
    let mut silent = enclave.begin("silent 500 7070").await;
    assert_eq!(silent.line().await, "open 500");
    enclave
        .answers("500 silent connections to the local API")
        .await;
    let head = ["Host: 198.18.0.1:7070", "Enclave-Api: 1"];
    let asked = answer(&enclave, &request("/v1/attestation", &head)).await;
    assert_eq!(asked, (200, true));
    drop(silent);
    enclave.agent.stopped().await.unwrap();
}

/// They lead to the workload: the init's services are in another network namespace.
#[test]
fn ports_of_the_inits_services_are_published_for_the_workload() {
    for port in [7070, 3128, 53] {
        let text = manifest("1000:1000").replace("to = 8080", &format!("to = {port}"));
        let folder = folder(&format!("port-{port}"));
        Workload::build_from(&PROGRAMS, &folder, "hostile-workload", &[], &text)
            .unwrap_or_else(|error| panic!("an image publishes port {port}: {error:#}"));
    }
}
