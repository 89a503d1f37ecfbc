//! `keys`: the seed of a family is made, or handed from one enclave to another. Between two
//! hosts each step reads what the other enclave answered to the one before.

use std::io::{self, IsTerminal, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use enclave_host::state::StateArgs;
use hyper::Method;
use link::control::MAX_HAND_OVER;
use manifest::EnclaveName;

use super::{Client, ClientError, HandOverArgs, TargetArgs};
use crate::api::KeysRequest;
use crate::exit::Exit;

/// One step of a hand-over between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// At the giver, first.
    Challenge,
    /// At the receiver.
    Request,
    /// At the giver.
    Give,
    /// At the receiver.
    Take,
}

/// Has an enclave make the first seed of its family, and prints its fingerprint.
pub async fn create_keys(args: TargetArgs) -> Result<Exit, ClientError> {
    let client = Client::find(args)?;
    let fingerprint = client.step(&KeysRequest::Create).await?;
    print_line(&fingerprint)
}

/// Has one enclave hand its seed to another one on the same host, and prints the seed's
/// fingerprint.
pub async fn hand_over_keys(args: HandOverArgs) -> Result<Exit, ClientError> {
    let HandOverArgs { from, to, state } = args;
    let find = |name: EnclaveName| {
        Client::find(TargetArgs {
            name: Some(name),
            state: StateArgs {
                state_dir: state.state_dir.clone(),
            },
        })
    };
    let (giver, receiver) = (find(from)?, find(to)?);
    let challenge = giver.step(&KeysRequest::Challenge).await?;
    let request = receiver.step(&request_with(&challenge)).await?;
    let gift = giver.step(&give(&request)).await?;
    let fingerprint = receiver.step(&take(&gift)).await?;
    print_line(&fingerprint)
}

/// Has an enclave do one step: with what the other one answered, from standard input, and
/// its own answer to standard output.
pub async fn keys_step(step: Step, args: TargetArgs) -> Result<Exit, ClientError> {
    let client = Client::find(args)?;
    let request = match step {
        Step::Challenge => KeysRequest::Challenge,
        Step::Request => request_with(&read_answer()?),
        Step::Give => give(&read_answer()?),
        Step::Take => take(&read_answer()?),
    };
    let answer = client.step(&request).await?;
    if step == Step::Take {
        return print_line(&answer);
    }
    if io::stdout().is_terminal() {
        return Err(ClientError::Output(io::Error::other(
            "it is a terminal, and the answer is for the other enclave: write it to a file or a pipe",
        )));
    }
    command_output::write(&answer)?;
    Ok(Exit::Success)
}

fn request_with(challenge: &[u8]) -> KeysRequest {
    KeysRequest::Request {
        challenge: STANDARD.encode(challenge),
    }
}

fn give(request: &[u8]) -> KeysRequest {
    KeysRequest::Give {
        request: STANDARD.encode(request),
    }
}

fn take(gift: &[u8]) -> KeysRequest {
    KeysRequest::Take {
        gift: STANDARD.encode(gift),
    }
}

/// What the other enclave answered.
fn read_answer() -> Result<Vec<u8>, ClientError> {
    let mut answer = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_HAND_OVER as u64 + 1)
        .read_to_end(&mut answer)
        .map_err(|error| ClientError::Input(error.to_string()))?;
    let reason = if answer.is_empty() {
        "it is empty: give what the other enclave answered to the step before".to_owned()
    } else if answer.len() > MAX_HAND_OVER {
        format!(
            "it has more than {MAX_HAND_OVER} bytes: is it what the other enclave answered to the step before?"
        )
    } else {
        return Ok(answer);
    };
    Err(ClientError::Input(reason))
}

/// Prints a fingerprint; an agent may answer anything.
fn print_line(fingerprint: &[u8]) -> Result<Exit, ClientError> {
    let line = plain_text::plain(&String::from_utf8_lossy(fingerprint)) + "\n";
    command_output::write(line.as_bytes())?;
    Ok(Exit::Success)
}

impl Client {
    async fn step(&self, request: &KeysRequest) -> Result<Bytes, ClientError> {
        let refused = |error| match error {
            ClientError::Refused(reason) => {
                ClientError::Refused(format!("`{}`: {reason}", self.name))
            }
            error => error,
        };
        self.ask(Method::POST, "/v1/keys", request)
            .await
            .map_err(refused)
    }
}
