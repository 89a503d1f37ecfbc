//! Why the module gave no answer.

use std::io;

use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Response};
use thiserror::Error;

/// Why the module gave no answer.
#[derive(Debug, Error)]
pub enum NsmError {
    /// `/dev/nsm` cannot be opened.
    #[error("/dev/nsm cannot be opened: this is not an enclave, or its kernel lacks CONFIG_NSM")]
    NoDevice,
    /// The software NSM's socket failed.
    #[error("the software NSM's socket failed: {0}")]
    Socket(#[from] io::Error),
    /// A message is larger than the device's buffers, or is not CBOR.
    #[error("the NSM's message cannot be used: {0}")]
    Message(String),
    /// The module refused the request.
    #[error("the NSM refused the request: {0}")]
    Refused(Refusal),
    /// The module answered something else.
    #[error("the NSM answered another request than the one made")]
    Unexpected,
}

/// The module's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// An argument is invalid.
    #[error("invalid argument")]
    InvalidArgument,
    /// There is no such register.
    #[error("no such register")]
    InvalidIndex,
    /// The response does not belong to the request.
    #[error("invalid response")]
    InvalidResponse,
    /// The register is locked.
    #[error("the register is locked")]
    ReadOnlyIndex,
    /// The module cannot do that.
    #[error("invalid operation")]
    InvalidOperation,
    /// The answer does not fit the buffer.
    #[error("the response buffer is too small")]
    BufferTooSmall,
    /// The request is too large.
    #[error("the request is too large")]
    InputTooLarge,
    /// The module failed.
    #[error("internal error")]
    InternalError,
}

/// The module's response, unless it is a refusal.
pub(crate) fn accepted(response: Response) -> Result<Response, NsmError> {
    match response {
        Response::Error(code) => Err(refusal(&code)),
        response => Ok(response),
    }
}

fn refusal(code: &ErrorCode) -> NsmError {
    NsmError::Refused(match code {
        ErrorCode::Success => return NsmError::Unexpected,
        ErrorCode::InvalidArgument => Refusal::InvalidArgument,
        ErrorCode::InvalidIndex => Refusal::InvalidIndex,
        ErrorCode::InvalidResponse => Refusal::InvalidResponse,
        ErrorCode::ReadOnlyIndex => Refusal::ReadOnlyIndex,
        ErrorCode::InvalidOperation => Refusal::InvalidOperation,
        ErrorCode::BufferTooSmall => Refusal::BufferTooSmall,
        ErrorCode::InputTooLarge => Refusal::InputTooLarge,
        ErrorCode::InternalError => Refusal::InternalError,
    })
}
