//! Instructions that use the network as an application does. A static program
//! has no resolver, so names are asked for by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE};

/// Answers each HTTP request with what the file holds: a status; at 127.0.0.1, or at another
/// address.
pub(crate) fn answer(port: u16, file: &str, address: Option<&str>) {
    let address: IpAddr = address.unwrap_or("127.0.0.1").parse().unwrap();
    let listener = TcpListener::bind((address, port)).unwrap();
    println!("answering on {port}");
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let count = stream.read(&mut request).unwrap();
        let request = String::from_utf8_lossy(&request[..count]).into_owned();
        let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
        println!("asked for {target}");
        let status = std::fs::read_to_string(file).unwrap();
        let answer = format!("HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n", status.trim());
        // A probe that has seen enough is gone.
        let _ = stream.write_all(answer.as_bytes());
    }
}

pub(crate) fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut query = Packet::new_query(1);
    query.questions.push(Question::new(
        Name::new(name).unwrap(),
        QTYPE::try_from(kind).unwrap(),
        CLASS::IN.into(),
        false,
    ));
    query.build_bytes_vec().unwrap()
}

pub(crate) fn ask(name: &str, kind: u16) -> (RCODE, Vec<Ipv4Addr>) {
    let query = query(name, kind);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket.send_to(&query, "198.18.0.1:53").unwrap();
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer).unwrap();
    let answer = Packet::parse(&answer[..count]).unwrap();
    let addresses = answer
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::A(address) => Some(Ipv4Addr::from(address.address)),
            _ => None,
        });
    (answer.rcode(), addresses.collect())
}

/// Asks for records of a type, by number, of a name.
pub(crate) fn name(name: &str, kind: u16) {
    let (code, addresses) = ask(name, kind);
    println!("{name} {kind} {code:?} {}", addresses.len());
}

/// Asks for the records of a name, over UDP or, with `tcp`, over TCP.
pub(crate) fn records(name: &str, kind: u16, transport: &str) {
    let query = query(name, kind);
    let answer = if transport == "tcp" {
        let mut stream = TcpStream::connect("198.18.0.1:53").unwrap();
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &query].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        answer
    } else {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&query, "198.18.0.1:53").unwrap();
        let mut answer = vec![0; 2048];
        let count = socket.recv(&mut answer).unwrap();
        answer.truncate(count);
        answer
    };
    let answer = Packet::parse(&answer).unwrap();
    let is_cut = answer.has_flags(PacketFlag::TRUNCATION);
    let count = answer.answers.len();
    println!("{name} {kind} {:?} {count} cut={is_cut}", answer.rcode());
    for record in answer.answers.iter().take(2) {
        match &record.rdata {
            RData::SRV(found) => println!("{} {} {}", found.priority, found.port, found.target),
            RData::TXT(found) => println!("{:?}", String::try_from(found.clone()).unwrap()),
            RData::PTR(found) => println!("{}", found.0),
            other => println!("{other:?}"),
        }
    }
}

fn address(host: &str) -> Ipv4Addr {
    host.parse().unwrap_or_else(|_| ask(host, 1).1[0])
}

/// Sends a datagram of so many bytes to a name or an address from a connected socket, and
/// says what comes back.
pub(crate) fn datagram(host: &str, port: u16, size: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((address(host), port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket.send(&vec![b'x'; size]).unwrap();
    let mut answer = vec![0; 1 << 16];
    match socket.recv(&mut answer) {
        Ok(length) => println!("datagram of {length} from {host}"),
        Err(error) => println!("datagram to {host}: {:?}", error.kind()),
    }
}

/// Sends to two destinations from one socket that is not connected, and says whose answers
/// come back.
pub(crate) fn datagrams(first: &str, second: &str, port: u16) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for host in [first, second] {
        let to = (address(host), port);
        socket.send_to(host.as_bytes(), to).unwrap();
        let mut answer = [0; 64];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        let is_same = from == to.into();
        let answer = String::from_utf8_lossy(&answer[..length]);
        println!("{host} answers {answer:?} from there: {is_same}");
    }
}

/// Sends a datagram from each of so many sockets; after a file is there again, and one from
/// another socket; and one from a further socket after another file is there.
pub(crate) fn datagram_crowd(host: &str, port: u16, count: usize) {
    let to = (address(host), port);
    let socket = || UdpSocket::bind("0.0.0.0:0").unwrap();
    // No faster than they are taken: what does not fit the init's socket is lost.
    let send = |socket: &UdpSocket| {
        socket.send_to(b"x", to).unwrap();
        std::thread::park_timeout(Duration::from_millis(1));
    };
    let sockets: Vec<_> = (0..count).map(|_| socket()).collect();
    for socket in &sockets {
        send(socket);
    }
    crate::until("/sooner");
    for socket in &sockets {
        send(socket);
    }
    let more = [socket(), socket()];
    send(&more[0]);
    crate::until("/later");
    send(&more[1]);
    std::thread::park();
}

/// Asks for many names that do not exist.
pub(crate) fn names(count: u32) {
    for number in 0..count {
        assert_eq!(
            ask(&format!("n{number}.nowhere.test"), 1).0,
            RCODE::NameError
        );
    }
    println!("asked");
}

/// Says something, closes that direction, and prints what comes back. The other
/// side may break the connection at any moment.
fn converse(mut stream: TcpStream, text: &str) {
    let mut answer = String::new();
    let conversed = stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut answer));
    match conversed {
        Ok(_) => println!("answer {answer:?}"),
        // What was not waiting for the reset finds a socket without a peer.
        Err(error) => match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::NotConnected | ErrorKind::BrokenPipe => {
                println!("broken by a reset");
            }
            kind => println!("broken {kind:?}"),
        },
    }
}

pub(crate) fn connect(name: &str, port: u16, text: &str) {
    let (_, addresses) = ask(name, 1);
    converse(TcpStream::connect((addresses[0], port)).unwrap(), text);
}

/// Opens so many connections to a name and keeps them, whatever becomes of them.
pub(crate) fn crowd(name: &str, port: u16, count: usize) {
    let (_, addresses) = ask(name, 1);
    let held: Vec<_> = (0..count)
        .map(|_| TcpStream::connect((addresses[0], port)).unwrap())
        .collect();
    println!("{} connections are open", held.len());
    std::mem::forget(held);
}

/// Has the proxy connect to a target.
pub(crate) fn proxy(target: &str, text: &str) {
    let mut stream = TcpStream::connect("198.18.0.1:3128").unwrap();
    stream
        .write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    println!("proxy {}", head.lines().next().unwrap());
    if head.contains(" 200 ") {
        converse(stream, text);
    }
}

/// Connects to an address and says something there.
pub(crate) fn tcp(address: &str, port: u16, text: &str) {
    let address: IpAddr = address.parse().unwrap();
    converse(TcpStream::connect((address, port)).unwrap(), text);
}

/// Tells whether there is somebody at an address.
pub(crate) fn reach(address: &str, port: u16) {
    let address: IpAddr = address.parse().unwrap();
    let reached = match TcpStream::connect((address, port)) {
        Ok(_) => "reached".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    println!("{address} {port} {reached}");
}

/// Prints each datagram that comes to a port, up to the one that has the last text.
pub(crate) fn hear(port: u16, last: &str) {
    let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    println!("hearing on {port}");
    loop {
        let mut text = [0; 64];
        let count = socket.recv(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..count]);
        println!("heard {text}");
        if text == last {
            break;
        }
    }
}

/// Asks for the addresses of these names over one connection.
pub(crate) fn name_tcp(names: &[&str]) {
    let mut stream = TcpStream::connect("198.18.0.1:53").unwrap();
    for name in names {
        let query = query(name, 1);
        let length = u16::try_from(query.len()).unwrap();
        stream.write_all(&length.to_be_bytes()).unwrap();
        stream.write_all(&query).unwrap();
    }
    for name in names {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        let answer = Packet::parse(&answer).unwrap();
        println!("{name} {:?} {}", answer.rcode(), answer.answers.len());
    }
}

/// Serves beside the instructions that follow.
pub(crate) fn serve_beside(address: &str, port: u16) {
    let address: IpAddr = address.parse().unwrap();
    let listener = TcpListener::bind((address, port)).unwrap();
    println!("serving on {port} of {address}");
    std::thread::spawn(move || serve_at(&listener));
}

/// Answers each connection, once its client has said everything.
pub(crate) fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("serving on {port}");
    serve_at(&listener);
}

fn serve_at(listener: &TcpListener) {
    loop {
        let (mut stream, peer) = listener.accept().unwrap();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = stream.read_to_end(&mut text);
            println!("read {} bytes from {}", text.len(), peer.ip());
            if read.is_ok() {
                text.reverse();
                // A client that is gone wants no answer.
                let _ = stream.write_all(&text);
            }
        });
    }
}

/// One request to the local API, over `tcp` or `unix`; the body in base64.
pub(crate) fn request(transport: &str, method: &str, path: &str, body: &str) {
    send_request(
        transport,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: 198.18.0.1:7070\r\nEnclave-Api: 1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
}

/// A request at `target` with these headers alone, over `tcp` or `unix` or at the address
/// of `credentials`, in which `$TOKEN` is the one for
/// credentials.
pub(crate) fn forge(transport: &str, target: &str, headers: &[&str]) {
    let token = std::env::var("AWS_CONTAINER_AUTHORIZATION_TOKEN").unwrap_or_default();
    let headers: String = headers
        .iter()
        .flat_map(|header| [header.replace("$TOKEN", &token), "\r\n".to_owned()])
        .collect();
    send_request(
        transport,
        &format!("GET {target} HTTP/1.1\r\n{headers}\r\n"),
    );
}

fn send_request(transport: &str, request: &str) {
    let mut answer = Vec::new();
    if transport == "unix" {
        let mut stream = UnixStream::connect("/run/enclave/api.sock").unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_end(&mut answer).unwrap();
    } else {
        let address = match transport {
            "credentials" => "169.254.170.2:80",
            _ => "198.18.0.1:7070",
        };
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_end(&mut answer).unwrap();
    }
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap();
    println!("api {status} {}", STANDARD.encode(&answer[end + 4..]));
}

/// So many requests to the local API at the same time.
pub(crate) fn together(count: u32, path: &str, body: &str) {
    std::thread::scope(|threads| {
        for _ in 0..count {
            threads.spawn(|| request("tcp", "POST", path, body));
        }
    });
}

/// Opens so many connections to the local API that never say anything, keeps
/// them, and waits until another is answered all the same.
pub(crate) fn half_request(count: &str) {
    let count: usize = count.parse().unwrap();
    let silent: Vec<_> = (0..count)
        .map(|_| TcpStream::connect("198.18.0.1:7070").unwrap())
        .collect();
    request("tcp", "GET", "/v1/random?bytes=1", "");
    drop(silent);
}
