//! Records of names that the parent looks up.

use link::logs::LogStream;
use serde_json::json;

use crate::enclave::Image;

fn image(instructions: &[&str]) -> Image {
    let all = [instructions, &["say done", "wait"]].concat();
    Image::new(&all).with(
        "/network/egress",
        json!(["*.db.test:27017", "web.example.test:443"]),
    )
}

async fn lines(instructions: &[&str]) -> Vec<String> {
    let (enclave, _control) = image(instructions).boot().await;
    enclave.said("done").await;
    enclave.lines(LogStream::Application)
}

#[tokio::test]
async fn records_of_services_and_texts_are_those_that_the_parent_finds() {
    let (enclave, _control) = image(&[
        "records _mongodb._tcp.Cluster.db.test 33 udp",
        "records cluster.db.test 16 tcp",
    ])
    .boot()
    .await;
    enclave.said("done").await;
    assert_eq!(
        enclave.lines(LogStream::Application)[..5],
        [
            // A target that is no host is left out.
            "_mongodb._tcp.Cluster.db.test 33 NoError 2 cut=false",
            "1 27017 a.db.test",
            "1 27018 b.elsewhere.test",
            "cluster.db.test 16 NoError 1 cut=false",
            "\"authSource=admin\"",
        ]
    );
    let text = "the service _mongodb._tcp.cluster.db.test is at b.elsewhere.test:27018, which is not in the image's egress list: add \"b.elsewhere.test:27018\" to [network] egress";
    enclave.line(LogStream::System, text).await;
    let lines = enclave.lines(LogStream::System).concat();
    assert!(!lines.contains("a.db.test:27017"), "{lines}");
}

#[tokio::test]
async fn records_that_are_too_many_for_a_datagram_come_over_tcp() {
    let lines = lines(&["records many.db.test 16 udp", "records many.db.test 16 tcp"]).await;
    assert_eq!(lines[0], "many.db.test 16 NoError 0 cut=true");
    assert_eq!(lines[1], "many.db.test 16 NoError 64 cut=false");
}

#[tokio::test]
async fn records_of_other_names_and_types_are_answered_without_the_parent() {
    let lines = lines(&[
        // Names that the list does not have, or that are about none of it.
        "records _mongodb._tcp.cluster.other.test 33 udp",
        "records db.test 16 udp",
        "records _a._tcp._b._tcp.web.example.test 33 udp",
        "records x.web.example.test 16 udp",
        // AAAA, HTTPS and MX of a name that is there; an address of a service's name.
        "records web.example.test 28 udp",
        "records web.example.test 65 udp",
        "records web.example.test 15 udp",
        "records _mongodb._tcp.web.example.test 1 udp",
        // Addresses of the enclave's own network.
        "records web.example.test 1 udp",
        "records 0.1.18.198.in-addr.arpa 12 udp",
        "records 9.9.18.198.in-addr.arpa 12 udp",
    ])
    .await;
    let expected = [
        "_mongodb._tcp.cluster.other.test 33 NameError 0 cut=false",
        "db.test 16 NameError 0 cut=false",
        "_a._tcp._b._tcp.web.example.test 33 NameError 0 cut=false",
        "x.web.example.test 16 NameError 0 cut=false",
        "web.example.test 28 NoError 0 cut=false",
        "web.example.test 65 NoError 0 cut=false",
        "web.example.test 15 NoError 0 cut=false",
        "_mongodb._tcp.web.example.test 1 NoError 0 cut=false",
        "web.example.test 1 NoError 1 cut=false",
    ];
    assert_eq!(lines[..9], expected);
    assert_eq!(
        lines[10..13],
        [
            "0.1.18.198.in-addr.arpa 12 NoError 1 cut=false",
            "web.example.test",
            "9.9.18.198.in-addr.arpa 12 NameError 0 cut=false",
        ]
    );
}

#[tokio::test]
async fn records_that_the_parent_has_none_of_are_told_and_its_lies_are_none() {
    let (enclave, _control) = image(&[
        "records nothing.db.test 16 udp",
        "records absent.db.test 16 udp",
        "records broken.db.test 16 udp",
        "records lies.db.test 16 udp",
    ])
    .boot()
    .await;
    enclave.said("done").await;
    assert_eq!(
        enclave.lines(LogStream::Application)[..4],
        [
            "nothing.db.test 16 NoError 0 cut=false",
            "absent.db.test 16 NoError 0 cut=false",
            "broken.db.test 16 ServerFailure 0 cut=false",
            "lies.db.test 16 ServerFailure 0 cut=false",
        ]
    );
    for text in [
        r"egress: the records of broken.db.test got no answer: asleep\r\n",
        "egress: the records of lies.db.test got no answer: the parent answered with records of another type",
    ] {
        enclave.line(LogStream::Errors, text).await;
    }
}
