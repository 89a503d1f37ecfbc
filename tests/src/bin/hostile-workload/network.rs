//! Everything that the network inside has places for.

use std::io::{BufRead, BufReader, Read, Write, stdout};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::server::wait_for_ever;

/// Where the init serves the workload.
const INIT: &str = "198.18.0.1";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Says something to the client, which may wait for it, and goes on.
fn say(text: &str) {
    println!("{text}");
    let _ = stdout().flush();
}

/// Asks once for the address of each of so many names.
pub(crate) fn names(count: usize, domain: &str) -> anyhow::Result<()> {
    let mut refused = Vec::new();
    for number in 0..count {
        let name = match count {
            1 => domain.to_owned(),
            _ => format!("n{number}.{domain}"),
        };
        let (code, answers) = ask(&name)?;
        if code != 0 || answers == 0 {
            refused.push((number, code));
        }
    }
    match refused.first() {
        None => say(&format!("known {count}")),
        Some((first, code)) => say(&format!(
            "unknown {} of {count}, the first is {first} with code {code}",
            refused.len()
        )),
    }
    Ok(())
}

/// A query for an address (RFC 1035): the answer's code and its records.
fn ask(name: &str) -> anyhow::Result<(u8, u16)> {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send_to(&query, (INIT, 53))?;
    let mut answer = [0; 512];
    socket.recv(&mut answer)?;
    let [_, _, _, code, _, _, high, low, ..] = answer;
    Ok((code & 0xf, u16::from_be_bytes([high, low])))
}

/// Connections through the proxy, kept and not used.
pub(crate) fn tunnels(count: usize, destination: &str) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect((INIT, 3128))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            &stream,
            "CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n\r\n"
        )?;
        let mut status = String::new();
        let read = BufReader::new(&stream).read_line(&mut status);
        if let Err(error) = read {
            say(&format!("silence after {}: {error}", open.len()));
            wait_for_ever();
        }
        if !status.starts_with("HTTP/1.1 200") {
            say(&format!("refused after {}: {}", open.len(), status.trim()));
            wait_for_ever();
        }
        open.push(stream);
    }
    say(&format!("open {count}"));
    wait_for_ever()
}

pub(crate) fn silent(count: usize, port: u16) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(TcpStream::connect((INIT, port)).context("connecting")?);
    }
    say(&format!("open {count}"));
    wait_for_ever()
}

/// One request, byte for byte, and the whole answer.
pub(crate) fn http(port: u16, request: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect((INIT, port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&STANDARD.decode(request)?)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(!answer.is_empty(), "it closed without an answer");
    say(&STANDARD.encode(answer));
    Ok(())
}
