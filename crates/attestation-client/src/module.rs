//! A request to the software NSM.

use std::path::Path;

use nsm::framing::{decode_response, encode_request, response_length};
use nsm::{NsmError, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A document with this nonce. The caller sets the deadline.
pub(crate) async fn attestation(socket: &Path, nonce: &[u8]) -> Result<Vec<u8>, NsmError> {
    let request = Request::Attestation {
        user_data: None,
        nonce: Some(nonce.to_vec().into()),
        public_key: None,
    };
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&encode_request(&request)?).await?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut bytes = vec![0; response_length(length)?];
    stream.read_exact(&mut bytes).await?;
    match decode_response(&bytes)? {
        Response::Attestation { document } => Ok(document),
        _ => Err(NsmError::Unexpected),
    }
}
