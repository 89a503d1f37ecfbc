//! The workload's network is its own.

use std::ffi::OsStr;

use link::logs::LogStream;
use link::target::{Refusal, Reply};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::egress::{converse, outgoing};
use crate::enclave::{Enclave, Image, LIMIT, said};
use crate::ingress::ask;

fn image(instructions: &[&str]) -> Image {
    Image::new(instructions).with(
        "/network/egress",
        json!(["kms.example.test:443", "web.example.net:80", "192.0.2.7:80"]),
    )
}

fn lines(enclave: &Enclave) -> Vec<String> {
    enclave.lines(LogStream::Application)
}

#[tokio::test]
async fn network_servers_for_all_addresses_leave_egress_its_ports() {
    for address in ["0.0.0.0", "::"] {
        let serve = format!("serve-beside {address} 443");
        let name = "name kms.example.test 1";
        for instructions in [[&*serve, name], [name, &*serve]] {
            let both = [
                "connect kms.example.test 443 hello",
                "tcp 127.0.0.1 443 abc",
            ];
            let all = [&instructions[..], &both, &["wait"]].concat();
            let (mut enclave, _control) = image(&all).boot().await;
            let outgoing = outgoing(&mut enclave).await;
            assert_eq!(&*outgoing.target.host, "kms.example.test");
            converse(outgoing, "hello", "welcome").await;
            enclave.said("answer \"welcome\"").await;
            enclave.said("answer \"cba\"").await;
        }
    }
}

#[tokio::test]
async fn network_ports_of_the_inits_services_are_free_for_the_workload() {
    for address in ["0.0.0.0", "::"] {
        ports_are_free(address).await;
    }
}

async fn ports_are_free(address: &str) {
    let ports = [7070, 3128, 53];
    let mut instructions: Vec<_> = ports
        .iter()
        .map(|port| format!("serve-beside {address} {port}"))
        .collect();
    instructions.extend(["request tcp GET /v1/random?bytes=1".to_owned()]);
    instructions.extend(["name kms.example.test 1".to_owned(), "wait".to_owned()]);
    let instructions: Vec<_> = instructions.iter().map(String::as_str).collect();
    let rules: Vec<_> = ports
        .iter()
        .map(|port| json!({"port": port, "to": port}))
        .collect();
    let (enclave, _control) = image(&instructions)
        .with("/workload/user", json!({"uid": 1000, "gid": 1000}))
        .with("/network/ingress", json!(rules))
        .boot()
        .await;
    enclave.said("kms.example.test 1 NoError 1").await;
    assert_eq!(enclave.answers()[0].0, 200);
    for port in ports {
        let (mut stream, reply) = ask(&enclave, port).await;
        assert_eq!(reply, Reply::Connected, "{port} of {address}");
        stream.write_all(b"abc").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer, "cba", "{port} of {address}");
    }
}

#[tokio::test]
async fn network_addresses_of_the_egress_list_are_connected_to() {
    let (mut enclave, _control) = image(&["tcp 192.0.2.7 80 hello", "wait"]).boot().await;
    let outgoing = outgoing(&mut enclave).await;
    let target = (&*outgoing.target.host, outgoing.target.port);
    assert_eq!(target, ("192.0.2.7", 80));
    converse(outgoing, "hello", "welcome").await;
    enclave.said("answer \"welcome\"").await;
}

#[tokio::test]
async fn network_ends_at_the_egress_list_and_the_inits_services() {
    let expected = [
        // Another port of an address that is listed, and another address.
        ("192.0.2.7", 81, "ConnectionRefused"),
        ("192.0.2.8", 80, "NetworkUnreachable"),
        // The metadata service, and the credentials of an image that asks for none.
        ("169.254.169.254", 80, "NetworkUnreachable"),
        ("169.254.170.2", 80, "NetworkUnreachable"),
        ("2001:db8::1", 80, "NetworkUnreachable"),
        ("198.18.0.1", 53, "reached"),
        ("198.18.0.1", 7070, "reached"),
        // No proxy unless the image has one, and no name at this address yet.
        ("198.18.0.1", 3128, "ConnectionRefused"),
        ("198.18.0.1", 22, "ConnectionRefused"),
        ("198.18.1.0", 443, "ConnectionRefused"),
        // The workload's own addresses have none of the init's ports.
        ("127.0.0.1", 7070, "ConnectionRefused"),
        ("127.0.0.53", 53, "ConnectionRefused"),
        ("198.18.0.2", 7070, "ConnectionRefused"),
    ];
    let mut instructions: Vec<_> = expected
        .iter()
        .map(|(address, port, _)| format!("reach {address} {port}"))
        .collect();
    instructions.extend(["say done".to_owned(), "wait".to_owned()]);
    let instructions: Vec<_> = instructions.iter().map(String::as_str).collect();
    let (enclave, _control) = image(&instructions).boot().await;
    enclave.said("done").await;
    for ((address, port, reached), line) in expected.iter().zip(lines(&enclave)) {
        assert_eq!(line, format!("{address} {port} {reached}"));
    }
}

#[tokio::test]
async fn network_localhost_is_the_workloads() {
    for address in ["127.0.0.1", "::1"] {
        let serve = format!("serve-beside {address} 8443");
        let connect = format!("tcp {address} 8443 abc");
        let (enclave, _control) = Image::new(&[&serve, &connect]).boot().await;
        enclave.said("answer \"cba\"").await;
    }
}

#[tokio::test]
async fn network_shows_its_own_interfaces_and_no_socket_of_the_inits() {
    let instructions = [
        "list /sys/class/net",
        "show /proc/net/dev",
        "show /proc/net/unix",
        "show /proc/net/tcp",
        "show /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "say done",
        "wait",
    ];
    let (enclave, _control) = image(&instructions).boot().await;
    enclave.said("done").await;
    let lines = lines(&enclave);
    let [list, dev, unix, tcp, port, _] = &lines[..] else {
        panic!("{lines:#?}");
    };
    assert!(list.contains("eth0") && list.contains("lo"), "{list}");
    for name in ["eth0:", "lo:"] {
        assert!(dev.contains(name), "{dev}");
    }
    assert!(!dev.contains("workload:"), "{dev}");
    for (sockets, which) in [(unix, "unix"), (tcp, "tcp")] {
        assert_eq!(sockets.matches("\\n").count(), 1, "{which}: {sockets}");
    }
    assert_eq!(port, "\"0\\n\"");
}

#[tokio::test]
async fn network_takes_no_packet_from_another_address() {
    let others = [
        "198.18.0.9",
        "198.18.0.1",
        "127.0.0.1",
        "192.0.2.7",
        "203.0.113.1",
    ];
    let mut instructions: Vec<_> = others
        .iter()
        .map(|source| format!("packet {source} from-{source}.test"))
        .collect();
    instructions.push("packet 198.18.0.2 own.test".to_owned());
    instructions.extend(["name last.test 1".to_owned(), "wait".to_owned()]);
    let instructions: Vec<_> = instructions.iter().map(String::as_str).collect();
    let (enclave, _control) = image(&instructions)
        .with("/confinement", json!({"capabilities": ["NET_RAW"]}))
        .boot()
        .await;
    enclave.said("last.test 1 NameError").await;
    enclave.line(LogStream::System, "last.test").await;
    let told = enclave.lines(LogStream::System).join("\n");
    // So that the others are refused for where they say that they come from:
    assert!(told.contains("the name own.test is not"), "{told}");
    assert!(!told.contains("the name from-"), "{told}");
}

#[tokio::test]
async fn network_takes_no_packet_to_the_inits_loopback() {
    let instructions = [
        "until /heard",
        "tell 127.0.0.1 4242 loopback",
        "tell 127.0.0.53 4242 loopback",
        "tell 198.18.0.1 4242 pair",
        "wait",
    ];
    let (enclave, _control) = image(&instructions)
        .with("/confinement", json!({"capabilities": ["NET_RAW"]}))
        .boot()
        .await;
    // A listener of the test's at every address of the init's, where the init has none.
    let mut hearing = enclave.instruct(enclave.pid1(), "hear 4242 pair");
    let mut hearing = hearing.spawn().unwrap();
    let mut heard = BufReader::new(hearing.stdout.take().unwrap()).lines();
    let first = timeout(LIMIT, heard.next_line()).await.unwrap().unwrap();
    assert_eq!(first.as_deref(), Some("hearing on 4242"));
    std::fs::write(enclave.path("heard"), "").unwrap();
    let next = timeout(LIMIT, heard.next_line()).await.unwrap().unwrap();
    assert_eq!(next.as_deref(), Some("heard pair"));
}

#[tokio::test]
async fn network_has_no_ipv6_for_whoever_plays_the_router() {
    let instructions = ["say started", "until /told", "name last.test 1", "wait"];
    let (enclave, _control) = image(&instructions).boot().await;
    enclave.said("started").await;
    let workload = enclave.workload();
    // More than a workload can do: its filter has no such sockets.
    let advertised = said(&mut enclave.instruct(workload, "advertise 2001:db8:1234::")).await;
    assert_eq!(
        advertised.0, "advertised 2001:db8:1234::\n",
        "{}",
        advertised.1
    );
    // What comes over the pair later, comes after it.
    std::fs::write(enclave.path("told"), "").unwrap();
    enclave.said("last.test 1 NameError").await;
    for (process, interface) in [(enclave.pid1(), "workload"), (workload, "eth0")] {
        for file in ["if_inet6", "ipv6_route"] {
            let path = format!("/proc/{process}/net/{file}");
            let shown = std::fs::read_to_string(&path).unwrap();
            assert!(shown.contains(" lo"), "{path}: {shown}");
            assert!(!shown.contains(interface), "{path}: {shown}");
        }
    }
}

#[tokio::test]
async fn ingress_to_ports_of_the_inits_services_reaches_none_of_them() {
    let rules: Vec<_> = [7070, 53]
        .iter()
        .map(|port| json!({"port": port, "to": port}))
        .collect();
    let (enclave, _control) = image(&["say started", "wait"])
        .with("/network/ingress", json!(rules))
        .boot()
        .await;
    enclave.said("started").await;
    for port in [7070, 53] {
        let (_, reply) = ask(&enclave, port).await;
        let Reply::Refused { refusal, .. } = reply else {
            panic!("{port} is connected");
        };
        assert_eq!(refusal, Refusal::Unreachable);
    }
}

#[tokio::test]
async fn names_are_answered_over_tcp() {
    let names = "name-tcp kms.example.test other.test web.example.net";
    let (enclave, _control) = image(&[names, "wait"]).boot().await;
    enclave.said("web.example.net").await;
    assert_eq!(
        lines(&enclave),
        [
            "kms.example.test NoError 1",
            "other.test NameError 0",
            "web.example.net NoError 1",
        ]
    );
}

/// Plays a server of HTTP, and gives the request's head.
async fn answer_http(enclave: &mut Enclave, target: (&str, u16), answer: &str) -> String {
    let outgoing = outgoing(enclave).await;
    assert_eq!((&*outgoing.target.host, outgoing.target.port), target);
    let mut stream = outgoing.reply(Reply::Connected).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap());
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn proxy_serves_curl_in_every_way_that_it_has() {
    let (mut enclave, _control) = image(&["serve-beside 127.0.0.1 8080", "say started", "wait"])
        .with("/network/proxy", json!(true))
        .boot()
        .await;
    enclave.said("started").await;
    let curl = |options: &[&str], url: &str| {
        let mut curl = enclave.beside(OsStr::new("curl"), "ENCLAVE_API");
        curl.args(["--silent", "--show-error", "--write-out", " %{http_code}"]);
        curl.args(options).arg(url);
        curl
    };
    // Not below `.test`: that is this enclave's name, which NO_PROXY has.
    let url = "http://web.example.net/a?b";
    let by_environment = curl(&[], url);
    let as_tunnel = curl(&["--proxytunnel"], url);
    let by_socks = curl(&["--proxy", "socks5h://198.18.0.1:3128"], url);
    let mut refused = curl(&[], "http://other.example.net/");
    let mut whole_https = curl(&["--noproxy", "*"], "http://198.18.0.1:3128/");
    whole_https.args(["--request-target", "https://kms.example.test/"]);
    let mut local = curl(&["--max-time", "1"], "http://127.0.0.1:8080/");
    for (mut curl, is_whole) in [
        (by_environment, true),
        (as_tunnel, false),
        (by_socks, false),
    ] {
        let said = said(&mut curl);
        let answered = answer_http(&mut enclave, ("web.example.net", 80), "welcome");
        let ((said, errors), head) = tokio::join!(said, answered);
        assert_eq!(said, "welcome 200", "{errors}");
        assert!(
            head.starts_with("GET /a?b HTTP/1.1\r\nHost: web.example.net\r\n"),
            "{head}"
        );
        assert_eq!(
            head.contains("\r\nConnection: close\r\n"),
            is_whole,
            "{head}"
        );
        assert!(!head.contains("Proxy-Connection"), "{head}");
    }
    let (told, _) = said(&mut refused).await;
    assert!(
        told.contains("other.example.net:80 is not in the image's egress list"),
        "{told}"
    );
    assert!(told.ends_with(" 403"), "{told}");
    let (told, _) = said(&mut whole_https).await;
    assert!(told.contains("ask it for a tunnel (CONNECT)"), "{told}");
    assert!(told.ends_with(" 400"), "{told}");
    // NO_PROXY has it: the proxy would refuse it. This server waits for its client's end.
    let answer = said(&mut local).await;
    assert!(answer.1.contains("timed out"), "{answer:?}");
    enclave.said("bytes from 127.0.0.1").await;
}

#[tokio::test]
async fn proxy_requests_for_two_hosts_go_to_two_hosts() {
    let (mut enclave, _control) = image(&["say started", "wait"])
        .with("/network/proxy", json!(true))
        .boot()
        .await;
    enclave.said("started").await;
    let mut curl = enclave.beside(OsStr::new("curl"), "ENCLAVE_API");
    curl.args(["--silent", "--show-error", "--no-progress-meter"]);
    curl.args(["http://web.example.net/a", "http://192.0.2.7/b"]);
    let said = tokio::spawn(async move { said(&mut curl).await });
    let mut open = Vec::new();
    for target in [("web.example.net", 80), ("192.0.2.7", 80)] {
        // Servers that go on, and say so: curl would reuse the connection for either host.
        let outgoing = outgoing(&mut enclave).await;
        assert_eq!((&*outgoing.target.host, outgoing.target.port), target);
        let mut stream = outgoing.reply(Reply::Connected).await;
        let answer = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\ntext";
        stream.write_all(answer).await.unwrap();
        open.push(stream);
    }
    let (answers, errors) = timeout(LIMIT, said).await.unwrap().unwrap();
    assert_eq!(answers, "texttext", "{errors}");
}
