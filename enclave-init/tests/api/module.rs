//! A security module that lies: the software NSM behind a socket of the test's,
//! with requests or responses changed on their way.

use nsm::{Request, Response};
use software_nsm::SoftwareNsm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Answers a request in the module's place.
pub(crate) type Lie = Box<dyn FnMut(&mut SoftwareNsm, Request) -> Response + Send>;

/// Serves one connection after the other: the init has one.
pub(crate) async fn serve(listener: UnixListener, mut module: SoftwareNsm, mut lie: Lie) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some(request) = read(&mut stream).await {
            let response = lie(&mut module, request);
            let mut bytes = Vec::new();
            ciborium::into_writer(&response, &mut bytes).unwrap();
            let length = u32::try_from(bytes.len()).unwrap();
            // The init may have ended meanwhile.
            let _ = stream.write_u32(length).await;
            let _ = stream.write_all(&bytes).await;
        }
    }
}

async fn read(stream: &mut UnixStream) -> Option<Request> {
    let length = stream.read_u32().await.ok()?;
    let mut bytes = vec![0; length.try_into().unwrap()];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(ciborium::from_reader(bytes.as_slice()).unwrap())
}
