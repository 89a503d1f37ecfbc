//! One request for a whole URL and its answer. The head of the answer is not the server's
//! own: it says that the connection ends, whatever becomes of the server's. A program that
//! went on using it would have its next request, which may be for another host, go to this
//! one.

use std::io;
use std::pin::pin;

use link::Stream;
use link::copy::{self, JoinError, SMALL};
use link::places::Activity;
use tokio::net::TcpStream;

use super::body::Body;
use super::http::in_words;
use crate::forward;

/// Largest head of an answer in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Fields that are about the server's connection.
const HOP_BY_HOP: [&str; 4] = ["connection", "keep-alive", "proxy-connection", "upgrade"];
const END_OF_LINE: &[u8] = b"\r\n";

/// Sends the head of a request, and passes its body and the answer on until both sides have
/// closed, either has failed, or the connection has lost its place.
pub(super) async fn carry(
    workload: TcpStream,
    outside: Stream,
    head: &[u8],
    body: Body,
    activity: &Activity,
) -> Result<(), JoinError> {
    let asking = async {
        copy::write_all(&outside, head).await?;
        activity.touch();
        body.pass(&workload, &outside, activity).await
    };
    let answering = async {
        let Err(reason) = pass_head(&outside, &workload, activity).await? else {
            return forward::pump(&outside, &workload, activity).await;
        };
        let answer = in_words("502 Bad Gateway", reason);
        copy::write_all(&workload, answer.as_bytes()).await?;
        copy::end(&workload)
    };
    let both = async {
        tokio::try_join!(asking, answering)?;
        Ok(())
    };
    copy::with_place(&workload, &outside, activity, pin!(both)).await
}

/// Passes on the heads of an answer: those of interim ones, and the last. The inner error is
/// what is wrong with it.
async fn pass_head(
    outside: &Stream,
    workload: &TcpStream,
    activity: &Activity,
) -> io::Result<Result<(), &'static str>> {
    let mut head = Vec::new();
    let mut buffer = [0; SMALL];
    loop {
        let Some(length) = length(&head) else {
            if head.len() >= MAX_HEAD {
                return Ok(Err("the head of the destination's answer is too long"));
            }
            let count = copy::read(outside, &mut buffer).await?;
            if count == 0 {
                return Ok(Err(
                    "the destination has closed the connection without an answer",
                ));
            }
            activity.touch();
            head.extend(buffer.iter().take(count));
            continue;
        };
        let rest = head.split_off(length);
        if !head.starts_with(b"HTTP/1.") {
            return Ok(Err("the destination's answer is none of HTTP/1"));
        }
        if is_interim(&head) {
            copy::write_all(workload, &head).await?;
            head = rest;
            continue;
        }
        let last = [closing(&head), rest].concat();
        copy::write_all(workload, &last).await?;
        return Ok(Ok(()));
    }
}

/// How long the head is, once it is there. Lines may end without a carriage return
/// (RFC 9112, section 2.2).
fn length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        length += line.len();
        if matches!(line, b"\n" | b"\r\n") {
            return Some(length);
        }
    }
    None
}

/// Whether another answer follows, as in `HTTP/1.1 100 Continue`.
fn is_interim(head: &[u8]) -> bool {
    let mut words = head.split(|byte| *byte == b' ');
    words.nth(1).is_some_and(|status| status.starts_with(b"1"))
}

/// The head with the connection's end in it.
fn closing(head: &[u8]) -> Vec<u8> {
    let mut closing = Vec::new();
    let mut is_kept = true;
    for line in head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // What begins with a blank continues the line before it.
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            let name = name.trim_ascii_end();
            is_kept = !HOP_BY_HOP
                .iter()
                .any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()));
        }
        if is_kept && !line.is_empty() {
            closing.extend([line, END_OF_LINE].concat());
        }
    }
    closing.extend(b"Connection: close\r\n\r\n");
    closing
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use link::places::{MIN_MUTE, Places};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixStream};
    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::*;

    type Carried = JoinHandle<Result<(), JoinError>>;

    /// A program, the server that it asks, and what carries between them in the only place.
    async fn carried(request: Vec<u8>) -> (TcpStream, UnixStream, Arc<Places<()>>, Carried) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let program = TcpStream::connect(address).await.unwrap();
        let (workload, _) = listener.accept().await.unwrap();
        let (server, outside) = UnixStream::pair().unwrap();
        let places = Places::new(1, 1);
        let place = places.take(()).unwrap();
        let carried = tokio::spawn(async move {
            let (outside, body) = (Stream::Unix(outside), Body::Length(4));
            carry(workload, outside, &request, body, place.activity()).await
        });
        (program, server, places, carried)
    }

    #[tokio::test]
    async fn proxy_ends_connections_that_the_server_keeps_open() {
        let (mut program, mut server, _, carried) =
            carried(b"POST / HTTP/1.1\r\n\r\n".into()).await;
        let mut asked = [0; 19];
        server.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"POST / HTTP/1.1\r\n\r\n");
        server
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .unwrap();
        let mut heard = [0; 25];
        program.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 100 Continue\r\n\r\n");
        // With another request behind it, sent before this one is answered.
        let pipelined = b"bodyGET http://other.test/ HTTP/1.1\r\nCookie: x\r\n\r\n";
        program.write_all(pipelined).await.unwrap();
        server.read_exact(&mut asked[..4]).await.unwrap();
        assert_eq!(&asked[..4], b"body");
        // In two parts, and in every spelling.
        let parts = [
            "HTTP/1.1 200 OK\r\nconnection: Keep-Alive,\r\n\tX\r\nX: \u{e9}\r\nKeep-",
            "Alive : timeout=5\nProxy-Connection: keep-alive\r\nContent-Length: 4\r\n\r\ntext",
        ];
        for part in parts {
            server.write_all(part.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let expected =
            "HTTP/1.1 200 OK\r\nX: \u{e9}\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntext";
        let mut heard = vec![0; expected.len()];
        program.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), expected);
        drop(program);
        // The server sees its end and nothing else, and may still be open itself.
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        drop(server);
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn proxy_says_what_is_wrong_with_an_answer() {
        let long = [b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; MAX_HEAD][..]].concat();
        for (answer, reason) in [
            (&b"SSH-2.0\r\n\r\n"[..], "none of HTTP/1"),
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "none of HTTP/1"),
            (&long, "too long"),
            (b"HTTP/1.1 200 OK\r\n", "without an answer"),
            (b"", "without an answer"),
        ] {
            let (mut program, mut server, _, _) = carried(Vec::new()).await;
            server.write_all(answer).await.unwrap();
            server.shutdown().await.unwrap();
            let mut heard = String::new();
            program.read_to_string(&mut heard).await.unwrap();
            assert!(heard.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{heard}");
            assert!(heard.contains(reason), "{heard}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn proxy_requests_that_are_not_taken_give_their_place_up() {
        // More than a socket holds.
        let (_program, server, places, carried) = carried(vec![b'x'; 4 << 20]).await;
        server.readable().await.unwrap();
        advance(MIN_MUTE).await;
        let _place = places.take(()).unwrap();
        assert!(matches!(carried.await.unwrap(), Err(JoinError::Evicted)));
    }

    #[tokio::test(start_paused = true)]
    async fn proxy_requests_that_are_taken_keep_their_place_while_they_wait() {
        let (_program, mut server, places, _carried) = carried(b"x".into()).await;
        server.read_exact(&mut [0]).await.unwrap();
        tokio::task::yield_now().await;
        advance(MIN_MUTE).await;
        places.take(()).unwrap_err();
    }
}
