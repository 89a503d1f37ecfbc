//! The call to the local API, over its Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::arguments::Arguments;

const SOCKET: &str = "/run/enclave/api.sock";
/// Longer than the API takes for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of an answer: far more than those of one plaintext.
const MAX_ANSWER: u64 = 64 * 1024;

/// What is to be printed.
pub(crate) fn make(arguments: &Arguments) -> Result<Zeroizing<String>, String> {
    let unreachable = |error: std::io::Error| {
        format!(
            "the enclave's local API at {SOCKET} cannot be called: {error}; this program works in an enclave of this toolkit, and nowhere else"
        )
    };
    let body = arguments.body.to_string();
    let mut stream = UnixStream::connect(SOCKET).map_err(unreachable)?;
    let mut exchange = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST /v1/kms/{} HTTP/1.1\r\nHost: localhost\r\nEnclave-Api: 1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            arguments.call,
            body.len()
        )?;
        let mut answer = Zeroizing::new(Vec::new());
        (&stream).take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(unreachable)?;
    read(&answer, arguments)
}

/// What is to be printed of an answer.
fn read(answer: &[u8], arguments: &Arguments) -> Result<Zeroizing<String>, String> {
    let not_http =
        || "the enclave's local API gave no answer: the init's log may say why".to_owned();
    let text = std::str::from_utf8(answer).map_err(|_| not_http())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let mut body: Value = serde_json::from_str(body).map_err(|_| not_http())?;
    let is_answered = head.split(' ').nth(1) == Some("200");
    if !is_answered {
        let reason = body.get("error").and_then(Value::as_str);
        return Err(reason.map_or_else(not_http, str::to_owned));
    }
    let mut printed = Zeroizing::new(String::new());
    for (label, member) in arguments.printed {
        let Some(Value::String(value)) = body.get_mut(*member).map(Value::take) else {
            return Err(format!("the answer has no {member}"));
        };
        let value = Zeroizing::new(value);
        for part in [label, ": ", &value, "\n"] {
            printed.push_str(part);
        }
    }
    Ok(printed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn printed(answer: &str) -> Result<String, String> {
        let arguments = ["genkey", "--key-id", "k", "--key-spec", "AES-256"];
        let arguments = Arguments::parse(arguments.map(Into::into))
            .unwrap()
            .unwrap();
        read(answer.as_bytes(), &arguments).map(|text| text.to_string())
    }

    #[test]
    fn kms_command_prints_as_kmstool_does() {
        let answer = "HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"plaintext\":\"AA==\",\"ciphertext\":\"AQ==\",\"key_id\":\"k\"}";
        assert_eq!(
            printed(answer).unwrap(),
            "CIPHERTEXT: AQ==\nPLAINTEXT: AA==\n"
        );
        let refused = "HTTP/1.1 400 Bad Request\r\n\r\n{\"error\":\"KMS refused the call: no\"}";
        assert_eq!(printed(refused).unwrap_err(), "KMS refused the call: no");
        for broken in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}"] {
            assert!(printed(broken).is_err(), "{broken:?}");
        }
    }
}
