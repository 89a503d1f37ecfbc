//! `/v1/registers`: the module's registers, of which the workload extends and
//! locks those that the manifest leaves open.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use manifest::OpenRegisters;
use measurements::Pcr;
use nsm::{NsmError, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::{Code, Failure};
use super::{Answer, Api};
use crate::registers::{REGISTERS, is_open};
use crate::security_module::Module;

/// Most bytes that a register is extended with at a time, as the module has it.
const MAX_DATA: usize = 512;

/// `GET /v1/registers`: all of them.
pub(super) async fn list(api: &Api) -> Result<Answer, Failure> {
    let registers = api
        .nsm
        .run(|nsm| {
            (0..REGISTERS)
                .map(|index| nsm.describe_pcr(index))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
    let registers: Vec<Value> = (0..)
        .zip(registers)
        .map(|(index, (value, locked))| describe(index, value, locked))
        .collect();
    Ok(Answer::json(
        StatusCode::OK,
        &json!({ "registers": registers }),
    ))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    data: String,
}

/// `POST /v1/registers/N/extend`: measures data into an open register.
pub(super) async fn extend(
    api: &Api,
    index: &str,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let index = open_register(&api.open_registers, index)?;
    let Extension { data } = super::json(request).await?;
    let data = STANDARD
        .decode(data)
        .map_err(|error| Failure::bad(format!("data is not base64: {error}")))?;
    if !(1..=MAX_DATA).contains(&data.len()) {
        return Err(Failure::bad(format!(
            "data has {} bytes: give 1 to {MAX_DATA}, a digest for instance",
            data.len()
        )));
    }
    change(api, index, move |nsm| {
        nsm.extend_pcr(index, &data).map(|_| ())
    })
    .await
}

/// `POST /v1/registers/N/lock`: locks an open register until the enclave ends.
pub(super) async fn lock(api: &Api, index: &str) -> Result<Answer, Failure> {
    let index = open_register(&api.open_registers, index)?;
    change(api, index, move |nsm| nsm.lock_pcr(index)).await
}

/// Changes a register, and answers with what it is then.
async fn change(
    api: &Api,
    index: u16,
    operation: impl FnOnce(&mut Module) -> Result<(), NsmError> + Send + 'static,
) -> Result<Answer, Failure> {
    let changed = api.nsm.run(move |nsm| {
        operation(nsm)?;
        nsm.describe_pcr(index)
    });
    match changed.await {
        Ok((value, locked)) => Ok(Answer::json(
            StatusCode::OK,
            &describe(index, value, locked),
        )),
        Err(NsmError::Refused(Refusal::ReadOnlyIndex)) => Err(Failure::new(
            Code::RegisterLocked,
            format!("register {index} is locked until the enclave ends"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// The register that a path names, if it is the workload's to change.
fn open_register(open: &OpenRegisters, text: &str) -> Result<u16, Failure> {
    let index = text
        .parse()
        .ok()
        .filter(|index: &u16| *index < REGISTERS && index.to_string() == text)
        .ok_or_else(|| {
            Failure::new(
                Code::UnknownRegister,
                format!("there is no such register: give 0 to {}", REGISTERS - 1),
            )
        })?;
    if is_open(open, index) {
        return Ok(index);
    }
    Err(Failure::new(
        Code::RegisterClosed,
        format!(
            "register {index} is not the workload's: `open_registers` in the image's manifest names those that are, from 17 to 31"
        ),
    ))
}

fn describe(index: u16, value: Pcr, locked: bool) -> Value {
    json!({ "index": index, "value": value.to_string(), "locked": locked })
}
