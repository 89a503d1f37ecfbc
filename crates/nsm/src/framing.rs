//! Messages as a module in software takes and gives them over a Unix socket: a big-endian
//! `u32` length and the device's own CBOR.

use aws_nitro_enclaves_nsm_api::api::{Request, Response};

use crate::error::{NsmError, Refusal, accepted};

/// Largest request in bytes, as the device has it.
pub const MAX_REQUEST: usize = 0x1000;
/// Largest response in bytes, as the device has it.
pub const MAX_RESPONSE: usize = 0x3000;
/// Largest user data that the module takes into a document, in bytes.
pub const MAX_USER_DATA: usize = 512;
/// Largest nonce, likewise.
pub const MAX_NONCE: usize = 512;
/// Largest public key, likewise.
pub const MAX_PUBLIC_KEY: usize = 1024;

/// The request with its length before it.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, NsmError> {
    let mut bytes = vec![0; 4];
    ciborium::into_writer(request, &mut bytes)
        .map_err(|error| NsmError::Message(error.to_string()))?;
    let length = bytes.len() - 4;
    match (u32::try_from(length), bytes.first_chunk_mut()) {
        (Ok(length_field), Some(start)) if length <= MAX_REQUEST => {
            *start = length_field.to_be_bytes();
        }
        _ => return Err(NsmError::Refused(Refusal::InputTooLarge)),
    }
    Ok(bytes)
}

/// The length of the response that follows, in bytes, from what stands before it.
pub fn response_length(length: [u8; 4]) -> Result<usize, NsmError> {
    usize::try_from(u32::from_be_bytes(length))
        .ok()
        .filter(|length| *length <= MAX_RESPONSE)
        .ok_or_else(|| {
            let length = u32::from_be_bytes(length);
            NsmError::Message(format!("a response of {length} bytes"))
        })
}

/// The response in these bytes; a refusal is an error.
pub fn decode_response(bytes: &[u8]) -> Result<Response, NsmError> {
    ciborium::from_reader(bytes)
        .map_err(|error| NsmError::Message(error.to_string()))
        .and_then(accepted)
}
