//! The client of the module: a call for each request.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_exit, nsm_init, nsm_process_request};
use measurements::Pcr;
use serde_bytes::ByteBuf;

use crate::error::{NsmError, accepted};
use crate::framing::{decode_response, encode_request, response_length};

/// How long the software NSM may take for one exchange.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);

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
        match &mut self.0 {
            Connection::Device(descriptor) => accepted(nsm_process_request(*descriptor, request)),
            Connection::Socket(socket) => exchange_over(socket, &request),
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

fn exchange_over(socket: &mut UnixStream, request: &Request) -> Result<Response, NsmError> {
    socket.write_all(&encode_request(request)?)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut bytes = vec![0; response_length(length)?];
    socket.read_exact(&mut bytes)?;
    decode_response(&bytes)
}

fn pcr(data: &[u8]) -> Result<Pcr, NsmError> {
    data.try_into()
        .map(Pcr::new)
        .map_err(|_| NsmError::Message(format!("a register of {} bytes", data.len())))
}
