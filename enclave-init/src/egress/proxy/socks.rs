//! SOCKS's part of the proxy (RFC 1928): `CONNECT` by name or IPv4 address, without
//! authentication.

use std::io;
use std::net::Ipv4Addr;

use link::target::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Denied, open};
use crate::egress::destination::Destination;
use crate::egress::{Egress, carry};

/// The first byte of every message.
pub(super) const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Why there is no connection (RFC 1928, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Failure {
    General = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    Command = 7,
    AddressType = 8,
}

/// Agrees on the method, and reads where to; what comes after the first byte.
pub(super) async fn greet(workload: &mut TcpStream) -> io::Result<Result<Destination, Failure>> {
    let mut methods = vec![0; workload.read_u8().await?.into()];
    workload.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        workload.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    workload.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let mut head = [0; 4];
    workload.read_exact(&mut head).await?;
    let [VERSION, command, 0, kind] = head else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let host = match kind {
        IPV4 => Some(Ipv4Addr::from_bits(workload.read_u32().await?).to_string()),
        NAME => {
            let mut name = vec![0; workload.read_u8().await?.into()];
            workload.read_exact(&mut name).await?;
            Some(String::from_utf8(name).unwrap_or_default())
        }
        IPV6 => {
            workload.read_u128().await?;
            None
        }
        _ => return Ok(Err(Failure::AddressType)),
    };
    let port = workload.read_u16().await?;
    Ok(match (command, host) {
        (CONNECT, Some(host)) => Destination::new(&host, port).ok_or(Failure::General),
        (CONNECT, None) => Err(Failure::AddressType),
        _ => Err(Failure::Command),
    })
}

pub(super) async fn serve(
    mut workload: TcpStream,
    asked: Result<Destination, Failure>,
    egress: &Egress,
) {
    let opened = match asked {
        Ok(destination) => open(egress, destination).await,
        Err(failure) => {
            return reply(&mut workload, failure as u8)
                .await
                .unwrap_or_default();
        }
    };
    let failure = match opened {
        Ok((destination, place, outside)) => {
            if reply(&mut workload, 0).await.is_ok() {
                carry(egress, workload, outside, &destination, &place).await;
            }
            return;
        }
        Err(Denied::NotListed(_)) => Failure::NotAllowed,
        Err(Denied::Failed(refused)) => match refused.refusal {
            Refusal::NotAllowed => Failure::NotAllowed,
            Refusal::Busy => Failure::General,
            Refusal::NameNotFound | Refusal::Unreachable | Refusal::TimedOut => {
                Failure::HostUnreachable
            }
        },
    };
    // A program that is gone needs no answer.
    let _ = reply(&mut workload, failure as u8).await;
}

/// Replies with a code; the address from which the connection is made is the parent's matter.
async fn reply(workload: &mut TcpStream, code: u8) -> io::Result<()> {
    let reply = [VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0];
    workload.write_all(&reply).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a client that says this after the version's byte, and what it hears.
    async fn greeted(said: &[u8]) -> (Option<Result<Destination, Failure>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(said).await.unwrap();
        client.shutdown().await.unwrap();
        let asked = greet(&mut server).await.ok();
        drop(server);
        let mut heard = Vec::new();
        // What was not read is told by a reset.
        let _ = client.read_to_end(&mut heard).await;
        (asked, heard)
    }

    #[tokio::test]
    async fn socks_takes_names_and_addresses() {
        let name = b"\x02\x02\x00\x05\x01\x00\x03\x06A.test\x01\xbb";
        let address = b"\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50";
        for (said, host, port) in [(&name[..], "a.test", 443), (&address[..], "192.0.2.7", 80)] {
            let (asked, heard) = greeted(said).await;
            assert_eq!(asked, Some(Ok(Destination::new(host, port).unwrap())));
            assert_eq!(heard, [VERSION, NO_AUTHENTICATION]);
        }
    }

    #[tokio::test]
    async fn socks_refuses_what_it_does_not_know() {
        let mut six = b"\x01\x00\x05\x01\x00\x04".to_vec();
        six.extend([0; 18]);
        for (said, failure) in [
            (&six[..], Failure::AddressType),
            (b"\x01\x00\x05\x01\x00\x09", Failure::AddressType),
            (b"\x01\x00\x05\x02\x00\x01\0\0\0\0\0\0", Failure::Command),
            (b"\x01\x00\x05\x01\x00\x03\x01\xff\0\x01", Failure::General),
        ] {
            assert_eq!(greeted(said).await.0, Some(Err(failure)), "{said:?}");
        }
        let (asked, heard) = greeted(b"\x01\x02").await;
        assert_eq!((asked, &*heard), (None, &[VERSION, NO_METHOD][..]));
        for said in [&b"\x01\x00\x04\x01\x00\x01"[..], b"\x01\x00\x05", b""] {
            assert_eq!(greeted(said).await.0, None, "{said:?}");
        }
    }
}
