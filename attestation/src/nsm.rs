//! The client of the Nitro security module.
//!
//! The module answers CBOR requests: in an enclave through an `ioctl` on
//! `/dev/nsm`, elsewhere through the [software NSM](crate::software_nsm)'s Unix
//! socket. Calls block, for about a millisecond on the device: asynchronous
//! callers run them on a thread of their own.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_exit, nsm_init, nsm_process_request};
use measurements::Pcr;
use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::cbor::Cursor;
use crate::rule::{Rejection, Rule};

/// Largest request in bytes, as the device has it.
pub const MAX_REQUEST: usize = 0x1000;
/// Largest response in bytes, as the device has it.
pub const MAX_RESPONSE: usize = 0x3000;
/// How long the software NSM may take for one exchange.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);

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

/// What the module says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The enclave's identity, `i-…-enc…`.
    pub module_id: String,
    /// Major, minor and patch version.
    pub version: (u16, u16, u16),
    /// How many registers there are.
    pub max_pcrs: u16,
    /// The registers that are locked.
    pub locked_pcrs: Vec<u16>,
}

/// A connection to a module.
#[derive(Debug)]
pub struct Nsm(Connection);

#[derive(Debug)]
enum Connection {
    Device(i32),
    Socket(UnixStream),
}

impl Nsm {
    /// Opens `/dev/nsm`.
    pub fn device() -> Result<Self, NsmError> {
        match nsm_init() {
            descriptor if descriptor >= 0 => Ok(Self(Connection::Device(descriptor))),
            _ => Err(NsmError::NoDevice),
        }
    }

    /// Connects to a software NSM.
    pub fn socket(path: &Path) -> Result<Self, NsmError> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(SOCKET_TIMEOUT))?;
        socket.set_write_timeout(Some(SOCKET_TIMEOUT))?;
        Ok(Self(Connection::Socket(socket)))
    }

    /// What the module says of itself.
    pub fn describe(&mut self) -> Result<Description, NsmError> {
        match self.exchange(Request::DescribeNSM)? {
            Response::DescribeNSM {
                version_major,
                version_minor,
                version_patch,
                module_id,
                max_pcrs,
                locked_pcrs,
                ..
            } => Ok(Description {
                module_id,
                version: (version_major, version_minor, version_patch),
                max_pcrs,
                locked_pcrs: locked_pcrs.into_iter().collect(),
            }),
            _ => Err(NsmError::Unexpected),
        }
    }

    /// A register's value, and whether it is locked.
    pub fn describe_pcr(&mut self, index: u16) -> Result<(Pcr, bool), NsmError> {
        match self.exchange(Request::DescribePCR { index })? {
            Response::DescribePCR { lock, data } => Ok((pcr(&data)?, lock)),
            _ => Err(NsmError::Unexpected),
        }
    }

    /// Measures `data` into a register, and gives its new value.
    pub fn extend_pcr(&mut self, index: u16, data: &[u8]) -> Result<Pcr, NsmError> {
        let data = data.to_vec();
        match self.exchange(Request::ExtendPCR { index, data })? {
            Response::ExtendPCR { data } => pcr(&data),
            _ => Err(NsmError::Unexpected),
        }
    }

    /// Locks a register until the enclave ends.
    pub fn lock_pcr(&mut self, index: u16) -> Result<(), NsmError> {
        match self.exchange(Request::LockPCR { index })? {
            Response::LockPCR => Ok(()),
            _ => Err(NsmError::Unexpected),
        }
    }

    /// Locks the registers below `range` until the enclave ends.
    pub fn lock_pcrs(&mut self, range: u16) -> Result<(), NsmError> {
        match self.exchange(Request::LockPCRs { range })? {
            Response::LockPCRs => Ok(()),
            _ => Err(NsmError::Unexpected),
        }
    }

    /// A signed attestation document. User data and nonce have at most 512
    /// bytes, a public key at most 1024.
    pub fn attestation(
        &mut self,
        user_data: Option<&[u8]>,
        nonce: Option<&[u8]>,
        public_key: Option<&[u8]>,
    ) -> Result<Vec<u8>, NsmError> {
        let request = Request::Attestation {
            user_data: user_data.map(ByteBuf::from),
            nonce: nonce.map(ByteBuf::from),
            public_key: public_key.map(ByteBuf::from),
        };
        match self.exchange(request)? {
            Response::Attestation { document } => Ok(document),
            _ => Err(NsmError::Unexpected),
        }
    }

    /// Some random bytes: the device gives up to 256 at a time.
    pub fn random(&mut self) -> Result<Vec<u8>, NsmError> {
        match self.exchange(Request::GetRandom)? {
            Response::GetRandom { random } if !random.is_empty() => Ok(random),
            _ => Err(NsmError::Unexpected),
        }
    }

    fn exchange(&mut self, request: Request) -> Result<Response, NsmError> {
        let response = match &mut self.0 {
            Connection::Device(descriptor) => nsm_process_request(*descriptor, request),
            Connection::Socket(socket) => exchange_over(socket, &request)?,
        };
        match response {
            Response::Error(code) => Err(refusal(&code)),
            response => Ok(response),
        }
    }
}

impl Drop for Nsm {
    fn drop(&mut self) {
        if let Connection::Device(descriptor) = self.0 {
            nsm_exit(descriptor);
        }
    }
}

/// One exchange with the software NSM: each message is a big-endian `u32`
/// length and the device's own CBOR.
fn exchange_over(socket: &mut UnixStream, request: &Request) -> Result<Response, NsmError> {
    socket.write_all(&encode(request)?)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut bytes = vec![0; response_length(length)?];
    socket.read_exact(&mut bytes)?;
    decode(&bytes)
}

/// A document with this nonce, of the software NSM. The caller sets the deadline.
#[cfg(feature = "client")]
pub(crate) async fn attestation_over(path: &Path, nonce: &[u8]) -> Result<Vec<u8>, NsmError> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let request = Request::Attestation {
        user_data: None,
        nonce: Some(ByteBuf::from(nonce)),
        public_key: None,
    };
    let mut socket = tokio::net::UnixStream::connect(path).await?;
    socket.write_all(&encode(&request)?).await?;
    let mut length = [0; 4];
    socket.read_exact(&mut length).await?;
    let mut bytes = vec![0; response_length(length)?];
    socket.read_exact(&mut bytes).await?;
    match decode(&bytes)? {
        Response::Attestation { document } => Ok(document),
        Response::Error(code) => Err(refusal(&code)),
        _ => Err(NsmError::Unexpected),
    }
}

/// Whether nobody signed a document: the place of its signature holds zeros, as
/// in the documents of QEMU's module, whose form breaks other rules too. No key
/// makes such a signature.
pub fn is_unsigned(document: &[u8]) -> bool {
    signature(document)
        .is_ok_and(|signature| !signature.is_empty() && signature.iter().all(|byte| *byte == 0))
}

/// The signature of a COSE_Sign1, whatever else is wrong with it.
fn signature(document: &[u8]) -> Result<&[u8], Rejection> {
    let mut cursor = Cursor::new(document);
    let parts = cursor.array()?;
    let _header = cursor.bytes()?;
    let entries = cursor.definite_map()?;
    let _payload = cursor.bytes()?;
    let signature = cursor.bytes()?;
    if (parts, entries, cursor.left()) != (4, 0, 0) {
        return Err(Rejection::new(
            Rule::CoseStructure,
            "it is not a COSE_Sign1 as the module makes them",
        ));
    }
    Ok(signature)
}

fn encode(request: &Request) -> Result<Vec<u8>, NsmError> {
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

fn response_length(length: [u8; 4]) -> Result<usize, NsmError> {
    usize::try_from(u32::from_be_bytes(length))
        .ok()
        .filter(|length| *length <= MAX_RESPONSE)
        .ok_or_else(|| {
            let length = u32::from_be_bytes(length);
            NsmError::Message(format!("a response of {length} bytes"))
        })
}

fn decode(bytes: &[u8]) -> Result<Response, NsmError> {
    ciborium::from_reader(bytes).map_err(|error| NsmError::Message(error.to_string()))
}

/// The timestamp of a document that the module itself has just given, in
/// milliseconds of Unix time. Nothing else is looked at, least of all the signature:
/// QEMU's module, whose documents a verifier cannot even read, is a clock all the same.
pub fn unverified_timestamp_ms(document: &[u8]) -> Result<u64, NsmError> {
    let missing = || NsmError::Message("a document without a timestamp".to_owned());
    let read = |bytes: &[u8]| {
        ciborium::from_reader::<ciborium::Value, _>(bytes)
            .map_err(|error| NsmError::Message(error.to_string()))
    };
    let signed = match read(document)? {
        ciborium::Value::Tag(_, signed) => *signed,
        signed => signed,
    };
    let payload = signed.as_array().and_then(|parts| parts.get(2)?.as_bytes());
    let payload = read(payload.ok_or_else(missing)?)?;
    let timestamp = payload.as_map().and_then(|fields| {
        let mut fields = fields.iter();
        fields.find(|(name, _)| name.as_text() == Some("timestamp"))
    });
    timestamp
        .and_then(|(_, value)| u64::try_from(value.as_integer()?).ok())
        .ok_or_else(missing)
}

fn pcr(data: &[u8]) -> Result<Pcr, NsmError> {
    data.try_into()
        .map(Pcr::new)
        .map_err(|_| NsmError::Message(format!("a register of {} bytes", data.len())))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU's module writes it: the algorithm is -1, the signature zeros.
    fn of_qemu(signature: &[u8]) -> Vec<u8> {
        let mut document = vec![0x84, 0x43, 0xa1, 0x01, 0x20, 0xa0, 0x41, 0xa0, 0x58];
        document.push(u8::try_from(signature.len()).unwrap());
        document.extend(signature);
        document
    }

    #[test]
    fn a_document_is_unsigned_if_its_signature_is_all_zeros() {
        assert!(is_unsigned(&of_qemu(&[0; 64])));
        assert!(is_unsigned(&of_qemu(&[0; 96])));
        let mut one = [0; 96];
        one[95] = 1;
        assert!(!is_unsigned(&of_qemu(&one)));
        for (name, document) in [
            ("empty", Vec::new()),
            ("cut", of_qemu(&[0; 64])[..70].to_vec()),
            ("more", [of_qemu(&[0; 64]), vec![0]].concat()),
            ("rubbish", vec![0; 100]),
        ] {
            assert!(!is_unsigned(&document), "{name}");
        }
        assert!(!is_unsigned(include_bytes!(
            "../tests/vectors/8e5652f3b009e620.cbor"
        )));
    }
}
