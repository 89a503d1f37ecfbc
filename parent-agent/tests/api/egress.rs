//! Connections from the workload to destinations outside.

use link::frame::{self, MAX_TARGET};
use link::target::{Connect, Refusal, Reply};
use link::{Channel, Stream, Text};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::agent::{Agent, command};
use crate::fetching::write;
use crate::image::Builder;

pub(crate) async fn ask(agent: &Agent, host: &str, port: u16) -> (Stream, Reply) {
    ask_over(Channel::Egress, agent, host, port).await
}

pub(crate) async fn ask_over(
    channel: Channel,
    agent: &Agent,
    host: &str,
    port: u16,
) -> (Stream, Reply) {
    let mut stream = agent.open(channel).await;
    let connect = Connect {
        host: Text::new(host),
        port,
    };
    frame::write(&mut stream, &connect, MAX_TARGET)
        .await
        .unwrap();
    let reply = frame::read(&mut stream, MAX_TARGET).await.unwrap();
    (stream, reply)
}

pub(crate) fn refusal(reply: &Reply) -> (Refusal, &str) {
    match reply {
        Reply::Refused { refusal, reason } => (*refusal, reason),
        Reply::Connected => panic!("connected"),
    }
}

pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn run(rules: &[String], arguments: &[&str]) -> Agent {
    Agent::run(Builder::new(rules, &[]), arguments).await
}

#[tokio::test]
async fn egress_passes_and_counts_bytes_and_ends_both_ways() {
    let (server, port) = listen().await;
    let agent = run(&[format!("127.0.0.1:{port}")], &[]).await;
    let ((mut stream, reply), (mut peer, _)) =
        tokio::join!(ask(&agent, "127.0.0.1", port), async {
            server.accept().await.unwrap()
        },);
    assert_eq!(reply, Reply::Connected);
    stream.write_all(b"request").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut request = Vec::new();
    peer.read_to_end(&mut request).await.unwrap();
    assert_eq!(request, b"request");
    // The other direction outlives the first's end.
    let answer: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let sent = answer.clone();
    let sending = tokio::spawn(async move {
        peer.write_all(&sent).await.unwrap();
        peer.shutdown().await.unwrap();
        peer
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(received == answer);
    drop(sending.await.unwrap());
    drop(stream);
    let destination = loop {
        let status = agent.status().await;
        let destination = status["egress"][0].clone();
        if destination["open"] == 0 {
            break destination;
        }
    };
    assert_eq!(destination["destination"], format!("127.0.0.1:{port}"));
    assert_eq!(destination["connections"], 1);
    assert_eq!(destination["bytes_out"], 7);
    assert_eq!(destination["bytes_in"], 3_000_000);
}

#[tokio::test]
async fn egress_peer_that_does_not_read_holds_up_nobody_else() {
    let (server, port) = listen().await;
    let agent = run(&[format!("127.0.0.1:{port}")], &[]).await;
    let ((mut stuck, _), _unread) = tokio::join!(ask(&agent, "127.0.0.1", port), async {
        server.accept().await.unwrap()
    });
    // Filled until nothing more is taken.
    let chunk = vec![0; 1 << 20];
    let filled = async {
        loop {
            stuck.write_all(&chunk).await.unwrap();
        }
    };
    let other = async {
        let ((mut stream, reply), (mut peer, _)) =
            tokio::join!(ask(&agent, "127.0.0.1", port), async {
                server.accept().await.unwrap()
            },);
        assert_eq!(reply, Reply::Connected);
        peer.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    };
    tokio::select! {
        () = filled => {}
        () = other => {}
    }
}

#[tokio::test]
async fn egress_dials_only_what_a_rule_allows() {
    let (_server, port) = listen().await;
    let closed = {
        let (_listener, port) = listen().await;
        port
    };
    let rules = [format!("127.0.0.1:{closed}"), format!("localhost:{port}")];
    let agent = run(&rules, &[]).await;
    let refused = |host: &'static str, port| {
        let agent = &agent;
        async move {
            let (mut stream, reply) = ask(agent, host, port).await;
            let (refusal, reason) = refusal(&reply);
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            (refusal, reason.to_owned())
        }
    };
    let (refusal, reason) = refused("127.0.0.1", closed).await;
    assert_eq!(refusal, Refusal::Unreachable, "{reason}");
    for host in [
        "127.0.0.1",
        "127.0.0.2",
        "169.254.169.254",
        "example.com",
        "",
        "127.0.0.1.",
    ] {
        let (refusal, reason) = refused(host, port).await;
        assert_eq!(refusal, Refusal::NotAllowed, "{host}: {reason}");
        assert!(reason.contains("no egress rule"), "{reason}");
    }
    // Allowed by name, but the name leads to this machine itself.
    let (refusal, reason) = refused("localhost", port).await;
    assert_eq!(refusal, Refusal::NotAllowed);
    assert!(reason.contains("resolves to"), "{reason}");
    let status = agent.status().await;
    let counts: Vec<_> = status["egress"].as_array().unwrap().iter().collect();
    assert_eq!(counts[0]["destination"], "(not allowed)");
    assert_eq!(counts[0]["refused"], 6);
}

#[tokio::test]
async fn egress_limits_refuse_as_busy_and_count() {
    let (_server, port) = listen().await;
    let rule = format!("127.0.0.1:{port}");
    let agent = run(std::slice::from_ref(&rule), &["--egress-connections", "1"]).await;
    let (held, reply) = ask(&agent, "127.0.0.1", port).await;
    assert_eq!(reply, Reply::Connected);
    let (_, reply) = ask(&agent, "127.0.0.1", port).await;
    assert_eq!(
        refusal(&reply),
        (Refusal::Busy, "too many egress connections are open")
    );
    let counts = agent.status().await["egress"][0].clone();
    assert_eq!(
        (&counts["refused"], &counts["limited"]),
        (&1.into(), &1.into())
    );
    drop(held);

    let agent = run(&[rule], &["--egress-rate", "1:1"]).await;
    let mut streams = Vec::new();
    // A slow machine may earn a token between two of them.
    let reply = loop {
        match ask(&agent, "127.0.0.1", port).await {
            (stream, Reply::Connected) => streams.push(stream),
            (_, reply) => break reply,
        }
    };
    assert!(!streams.is_empty());
    assert_eq!(
        refusal(&reply),
        (Refusal::Busy, "new egress connections come too fast")
    );
    // What no rule allows takes no token, and says so.
    let (_, reply) = ask(&agent, "192.0.2.1", 1).await;
    assert_eq!(refusal(&reply).0, Refusal::NotAllowed);
}

#[tokio::test]
async fn egress_destinations_have_one_share_however_they_are_spelt() {
    let (server, port) = listen().await;
    let rules = ["api.example.com:443", "other.example.com:443"].map(str::to_owned);
    let to = rules.clone().map(|rule| format!("{rule}=127.0.0.1:{port}"));
    // Of four places one destination gets three.
    let arguments = [
        "--connect-to",
        &to[0],
        "--connect-to",
        &to[1],
        "--egress-connections",
        "4",
    ];
    let agent = run(&rules, &arguments).await;
    let mut streams = Vec::new();
    for (host, has_a_place) in [
        ("api.example.com", true),
        ("api.example.com.", true),
        ("API.Example.com", true),
        ("Api.example.COM.", false),
        ("api.example.com", false),
        ("other.example.com.", true),
    ] {
        let (stream, reply) = ask(&agent, host, 443).await;
        if has_a_place {
            assert_eq!(reply, Reply::Connected, "{host}");
            streams.push((stream, server.accept().await.unwrap()));
        } else {
            assert_eq!(refusal(&reply).0, Refusal::Busy, "{host}");
        }
    }
    // Two of them are something else, and no rule allows it.
    for host in ["api.example.com..", ".api.example.com"] {
        let (_, reply) = ask(&agent, host, 443).await;
        assert_eq!(refusal(&reply).0, Refusal::NotAllowed, "{host}");
    }
    let status = agent.status().await;
    let rows = status["egress"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| &row["destination"]).collect();
    let expected = [
        "(not allowed)",
        "api.example.com:443",
        "other.example.com:443",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn connect_to_moves_a_destination() {
    let (server, port) = listen().await;
    let rule = ["api.example.com:443".to_owned()];
    let agent = run(
        &rule,
        &[
            "--connect-to",
            &format!("api.example.com:443=127.0.0.1:{port}"),
        ],
    )
    .await;
    let ((mut stream, reply), (mut peer, _)) =
        tokio::join!(ask(&agent, "API.example.com.", 443), async {
            server.accept().await.unwrap()
        },);
    assert_eq!(reply, Reply::Connected);
    peer.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let (_, reply) = ask(&agent, "other.example.com", 443).await;
    assert_eq!(refusal(&reply).0, Refusal::NotAllowed);
}

#[tokio::test]
async fn egress_flood_does_not_stop_the_enclave() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let mut flood = Vec::new();
    for number in 0..1000_u32 {
        let mut stream = agent.connect().await;
        // Some say nothing, the others nonsense.
        if number % 5 != 0 {
            stream.write_all(&[0xff; 8]).await.unwrap();
        }
        flood.push(stream);
        if number % 100 == 0 {
            assert_eq!(agent.status().await["state"], "ready");
        }
    }
    drop(flood);
    let (_, reply) = ask(&agent, "example.com", 443).await;
    assert_eq!(refusal(&reply).0, Refusal::NotAllowed);
    init.send(link::control::FromInit::Ending {
        cause: link::control::EndCause::Shutdown,
        detail: Text::default(),
        code: Text::default(),
        losses: link::control::Losses::default(),
        numbered: Vec::new(),
        workload: None,
    })
    .await;
    agent.end_init(0).await;
    assert_eq!(agent.ended().await.0, 0);
}

#[tokio::test]
async fn aws_services_of_the_image_are_open_as_the_configuration_says() {
    let (server, port) = listen().await;
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[]).aws_services(&["kms", "s3"]);
    let image = image.write(folder.path());
    let document = json!({ "region": "us-west-2", "enclaves": [{
        "name": "test",
        "image": { "source": format!("file:{}", image.display()) },
        "aws_services": ["kms", "sns"],
    }] });
    let source = write(folder.path(), &document);
    let mut command = command(folder.path(), "run");
    // Everything leads to the same server, so that only the rules decide.
    for host in ["kms.us-west-2", "kms.us-east-1", "s3.us-west-2"] {
        let target = format!("{host}.amazonaws.com:443=127.0.0.1:{port}");
        command.args(["--connect-to", &target]);
    }
    let agent = Agent::spawn_configured(folder, command, &["--config", &source]);
    agent.until_init_waits().await;
    let (_, reply) = ask(&agent, "kms.us-west-2.amazonaws.com", 443).await;
    assert_eq!(reply, Reply::Connected);
    server.accept().await.unwrap();
    for host in ["kms.us-east-1", "s3.us-west-2", "sns.us-west-2"] {
        let (_, reply) = ask(&agent, &format!("{host}.amazonaws.com"), 443).await;
        let (kind, reason) = refusal(&reply);
        assert_eq!(kind, Refusal::NotAllowed, "{host}");
        assert!(reason.contains("AWS service that is open here"), "{reason}");
    }
    agent.end_init(0).await;
    let (_, _, said) = agent.ended().await;
    assert!(said.contains("does not have this AWS service"), "{said}");
}
