//! Listening and connecting over Unix sockets, and through a multiplexing socket
//! as Firecracker and `vhost-device-vsock` have it.

use std::path::Path;
use std::time::Duration;

use link::{Channel, Endpoint, Listener, Stream, connect, hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::task::JoinSet;

/// Generous: nothing here waits for it unless the peer is silent.
const LIMIT: Duration = Duration::from_secs(60);

fn unix(path: &Path) -> Endpoint {
    Endpoint::Unix {
        path: path.to_owned(),
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_and_ends_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = unix(&folder.path().join("s"));
    let listener = Listener::bind(&endpoint).unwrap();
    let mut near = connect(&endpoint, LIMIT).await.unwrap();
    let (mut far, cid) = listener.accept().await.unwrap();
    assert_eq!(cid, None);
    near.write_all(b"ping").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"ping");
    far.write_all(b"pong").await.unwrap();
    drop(far);
    heard.clear();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"pong");
}

#[tokio::test]
async fn the_sockets_file_goes_with_the_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = Listener::bind(&unix(&path)).unwrap();
    assert!(path.exists());
    let taken = Listener::bind(&unix(&path)).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    assert!(path.exists(), "a bind that failed removes nothing");
    drop(listener);
    assert!(!path.exists());
    // The place is free again, and a file that is gone already is no matter.
    let listener = Listener::bind(&unix(&path)).unwrap();
    std::fs::remove_file(&path).unwrap();
    drop(listener);
}

#[tokio::test]
async fn a_multiplexed_port_is_not_listened_on() {
    let endpoint = "unix-connect:/run/vm:7000".parse().unwrap();
    let error = Listener::bind(&endpoint).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn errors_name_the_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent");
    let error = connect(&unix(&path), LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "cannot connect to unix:{}: No such file or directory (os error 2)",
            path.display()
        )
    );
    // A socket whose listener is gone.
    drop(UnixListener::bind(&path).unwrap());
    let error = connect(&unix(&path), LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_full_queue_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let socket = UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut connecting = JoinSet::new();
    for _ in 0..20 {
        let endpoint = unix(&path);
        connecting.spawn(async move { connect(&endpoint, LIMIT).await });
    }
    let accepting = tokio::spawn(async move {
        let mut accepted = Vec::new();
        while accepted.len() < 20 {
            accepted.push(listener.accept().await.unwrap());
        }
        (listener, accepted)
    });
    while let Some(connected) = connecting.join_next().await {
        connected.unwrap().unwrap();
    }
    let (_listener, _accepted) = accepting.await.unwrap();

    let mut waiting = Vec::new();
    let error = loop {
        match connect(&unix(&path), Duration::from_millis(50)).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };
    assert!(!waiting.is_empty());
    assert_eq!(
        error.to_string(),
        format!("unix:{} did not answer within 50ms", path.display())
    );
}

#[tokio::test]
async fn many_connections_do_not_disturb_each_other() {
    const COUNT: u32 = 200;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = unix(&folder.path().join("s"));
    let listener = Listener::bind(&endpoint).unwrap();
    let mut openers = JoinSet::new();
    for number in 0..COUNT {
        let endpoint = endpoint.clone();
        openers.spawn(async move {
            let mut stream = connect(&endpoint, LIMIT).await.unwrap();
            hello::open(&mut stream, Channel::Egress).await.unwrap();
            stream.write_u32(number).await.unwrap();
            assert_eq!(stream.read_u32().await.unwrap(), number);
        });
    }
    let mut acceptors = JoinSet::new();
    for _ in 0..COUNT {
        let (mut stream, _) = listener.accept().await.unwrap();
        acceptors.spawn(async move {
            hello::accept(&mut stream, |_| true).await.unwrap();
            let number = stream.read_u32().await.unwrap();
            stream.write_u32(number).await.unwrap();
        });
    }
    let (opened, accepted) = tokio::join!(openers.join_all(), acceptors.join_all());
    assert_eq!((opened.len(), accepted.len()), (200, 200));
}

/// Connects to port 7001 behind a multiplexer that reads the request and then
/// does as `answer` says.
async fn through<F, A>(answer: F) -> std::io::Result<Stream>
where
    F: FnOnce(UnixStream) -> A,
    A: Future<Output = ()>,
{
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let listener = UnixListener::bind(&path).unwrap();
    let endpoint = Endpoint::UnixConnect { path, port: 7001 };
    let multiplexer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 13];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"CONNECT 7001\n");
        answer(stream).await;
    };
    tokio::join!(connect(&endpoint, LIMIT), multiplexer).0
}

async fn send(mut stream: UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

#[tokio::test]
async fn a_multiplexed_port_is_connected_to_and_no_byte_behind_the_answer_is_lost() {
    for answer in ["OK 0\n", "OK 7001\n", "OK 1073741824\n", "OK 4294967295\n"] {
        let packet = format!("{answer}first\nbytes");
        let mut stream = through(|stream| async move { send(stream, packet.as_bytes()).await })
            .await
            .unwrap();
        let mut behind = String::new();
        stream.read_to_string(&mut behind).await.unwrap();
        assert_eq!(behind, "first\nbytes");
    }
}

#[tokio::test]
async fn an_answer_may_come_byte_by_byte() {
    let drip = |mut stream: UnixStream| async move {
        for byte in b"OK 1024\nrest" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut stream = through(drip).await.unwrap();
    let mut behind = String::new();
    stream.read_to_string(&mut behind).await.unwrap();
    assert_eq!(behind, "rest");
}

#[tokio::test]
async fn a_closed_connection_is_a_port_that_nothing_listens_on() {
    for sent in ["", "O", "OK 70"] {
        let error = through(|stream| send(stream, sent.as_bytes()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(
            error
                .to_string()
                .ends_with("nothing listens on port 7001 in the enclave"),
            "{error}"
        );
    }
    // Closed before the whole request is read, which the kernel reports as a reset.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let listener = UnixListener::bind(&path).unwrap();
    let endpoint = Endpoint::UnixConnect { path, port: 7001 };
    let closing = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'C');
    };
    let (connected, ()) = tokio::join!(connect(&endpoint, LIMIT), closing);
    let error = connected.unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "{error}"
    );
}

#[tokio::test]
async fn another_answer_is_refused_and_shown() {
    for (answer, shown) in [
        ("ERR\n", r#""ERR\n""#),
        ("OK\n", r#""OK\n""#),
        ("OK \n", r#""OK \n""#),
        ("OK seven\n", r#""OK seven\n""#),
        ("ok 7001\n", r#""ok 7001\n""#),
        ("\n", r#""\n""#),
        ("\u{1b}[31m\n", r#""\u{1b}[31m\n""#),
        // Without an end in sight: not read further.
        ("OK 42949672950\n", r#""OK 42949672950""#),
        ("HTTP/1.1 400 Bad Request\r\n", r#""HTTP/1.1 400 B""#),
    ] {
        let error = through(|stream| send(stream, answer.as_bytes()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let text = error.to_string();
        assert!(
            text.ends_with(&format!(": unexpected answer to CONNECT: {shown}")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_silent_multiplexer_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let _listener = UnixListener::bind(&path).unwrap();
    let endpoint = Endpoint::UnixConnect {
        path: path.clone(),
        port: 7001,
    };
    let error = connect(&endpoint, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(
        error.to_string(),
        format!(
            "unix-connect:{}:7001 did not answer within 50ms",
            path.display()
        )
    );
}
