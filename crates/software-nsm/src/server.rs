//! The software NSM behind a Unix socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nsm::{ErrorCode, MAX_REQUEST, MAX_RESPONSE, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;
use tracing::debug;

use crate::module::SoftwareNsm;

/// Most connections at a time; a further one waits.
const MAX_CONNECTIONS: usize = 64;
/// How long the rest of a request may take once it has begun.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the module until the future is dropped.
pub async fn serve(listener: UnixListener, module: SoftwareNsm) -> io::Result<()> {
    let module = Arc::new(Mutex::new(module));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let module = Arc::clone(&module);
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = serve_connection(stream, &module).await {
                debug!(%error, "a connection to the software NSM ended");
            }
        });
    }
}

async fn serve_connection(mut stream: UnixStream, module: &Mutex<SoftwareNsm>) -> io::Result<()> {
    loop {
        // A client may keep its connection open without a request.
        let Ok(length) = stream.read_u32().await else {
            return Ok(());
        };
        let length = usize::try_from(length).expect("usize has 64 bits");
        if length > MAX_REQUEST {
            return write(&mut stream, &Response::Error(ErrorCode::InputTooLarge)).await;
        }
        let mut request = vec![0; length];
        timeout(REQUEST_TIMEOUT, stream.read_exact(&mut request)).await??;
        let response = match ciborium::from_reader(request.as_slice()) {
            Ok(request) => module.lock().await.answer(request),
            Err(_) => Response::Error(ErrorCode::InvalidArgument),
        };
        timeout(REQUEST_TIMEOUT, write(&mut stream, &response)).await??;
    }
}

async fn write(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    if ciborium::into_writer(response, &mut bytes).is_err() || bytes.len() - 4 > MAX_RESPONSE {
        return Err(io::Error::other("a response cannot be encoded"));
    }
    let length = u32::try_from(bytes.len() - 4).expect("at most MAX_RESPONSE");
    if let Some(start) = bytes.first_chunk_mut() {
        *start = length.to_be_bytes();
    }
    stream.write_all(&bytes).await
}
