//! The workload of the end-to-end tests. Its runtime configuration says what it
//! does:
//!
//! | role | what it does |
//! |---|---|
//! | `serve` | sends back what each connection to port 8080 sends |
//! | `answer N` | reads a line from each connection to port 8080, sends N bytes and closes it |
//! | `collect` | reads each connection to port 8080 to its end, sends all back and closes it |
//! | `lines N` | prints N numbered lines, in turn to standard output and error |
//! | `paced N` | prints N numbered lines, one every millisecond |
//! | `load N` | prints N numbered lines of 100 bytes, as fast as they are taken |
//! | `bytes` | prints every byte, a long line and a line without an end, and ends |
//! | `fetch N` | sends N bytes to `peer.example:443` and checks that they come back |
//! | `decrypt` | has the local API decrypt, keeps what it got, and serves |
//! | `time N` | prints what the local API says of the time, N times, once a second |
//! | `secrets` | prints the secret `file-secret`, then `api-secret` once the local API has it |
//! | `keys` | prints a key of its family in hexadecimal, and sleeps |
//! | `exit N` | ends with that code |
//! | `eat` | takes memory until it is killed for it |
//! | `stubborn` | takes no notice of SIGTERM |
//! | `confined` | tries every way out and says what came of each |
//! | `hog` | has a process of its own use all memory, and serves |
//! | `bomb` | starts processes until there are no more, and serves |
//! | `fill` | fills every file system that its user may write to, and serves |
//! | a JSON object | answers each HTTP request to port 8080 with it: the control plane tells an enclave its id so; before that it prints the secret `file-secret`, if it has that |

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its purpose")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Pid, getgroups};

const FILE_SECRET: &str = "/run/secrets/file-secret";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<u8> {
    match std::env::args().nth(1).as_deref() {
        Some("eat") => eat(),
        Some("sleep") => sleep(),
        _ => {}
    }
    let file = std::env::var("ENCLAVE_RUNTIME_CONFIG").context("no runtime configuration")?;
    let role = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    if role.starts_with('{') {
        println!("told {role}");
        if let Ok(value) = std::fs::read_to_string(FILE_SECRET) {
            println!("file {value}");
        }
        // It is needed as long as the program runs.
        let told: &'static str = role.leak();
        serve(move |stream| answer_http(stream, told))?;
        return Ok(0);
    }
    let (role, number) = role.split_once(' ').unwrap_or((&role, "0"));
    let number: usize = number.parse().context("the role's number")?;
    match role {
        "serve" => serve(echo)?,
        "answer" => serve(move |stream| answer(stream, number))?,
        "collect" => serve(collect)?,
        "lines" => lines(number)?,
        "paced" => paced(number)?,
        "load" => load(number)?,
        "bytes" => bytes()?,
        "fetch" => fetch(number)?,
        "decrypt" => decrypt()?,
        "time" => time(number)?,
        "secrets" => secrets()?,
        "keys" => keys()?,
        "exit" => return Ok(u8::try_from(number)?),
        "eat" => eat(),
        "stubborn" => {
            SigSet::from(Signal::SIGTERM).thread_block()?;
            println!("stubborn");
            sleep();
        }
        "confined" => confined()?,
        "hog" => hog()?,
        "bomb" => bomb()?,
        "fill" => fill()?,
        other => bail!("there is no role {other:?}"),
    }
    Ok(0)
}

fn serve(
    handle: impl Fn(&TcpStream) -> io::Result<()> + Copy + Send + 'static,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:8080")?;
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // Who breaks a connection off notices that by itself.
            let _ = handle(&stream);
        });
    }
    Ok(())
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut &*stream, &mut &*stream)?;
    stream.shutdown(Shutdown::Write)
}

/// What is decrypted is in this process's memory as long as it runs.
fn decrypt() -> anyhow::Result<()> {
    let body = r#"{"ciphertext":"AQ=="}"#;
    let mut stream = TcpStream::connect("127.0.0.1:7070")?;
    write!(
        stream,
        "POST /v1/kms/decrypt HTTP/1.1\r\nHost: 127.0.0.1:7070\r\nEnclave-Api: 1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{body}");
    let body: serde_json::Value = serde_json::from_str(body)?;
    let plaintext = body.get("plaintext").and_then(|value| value.as_str());
    let plaintext = plaintext.context("no plaintext")?;
    let plaintext = base64::engine::general_purpose::STANDARD.decode(plaintext)?;
    println!("decrypted");
    serve(echo)?;
    drop(plaintext);
    Ok(())
}

fn time(count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        let (_, body) = ask("/v1/time")?;
        println!("time {body}");
        thread::park_timeout(Duration::from_secs(1));
    }
    sleep();
}

fn secrets() -> anyhow::Result<()> {
    let value = std::fs::read_to_string(FILE_SECRET)?;
    println!("file {value}");
    loop {
        let (head, body) = ask("/v1/secrets/api-secret?wait=10")?;
        if head.starts_with("HTTP/1.1 200 ") {
            println!("api {body}");
            sleep();
        }
    }
}

fn keys() -> anyhow::Result<()> {
    let (head, body) = ask_for_bytes("/v1/keys/end-to-end")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    println!("key {}", hex::encode(body));
    sleep();
}

/// What the local API answers: head and body.
fn ask(path: &str) -> anyhow::Result<(String, String)> {
    let (head, body) = ask_for_bytes(path)?;
    Ok((head, String::from_utf8(body)?))
}

/// The same where the body is no text.
fn ask_for_bytes(path: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect("127.0.0.1:7070")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:7070\r\nEnclave-Api: 1\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = answer.split_off(end.context("no body")? + 4);
    Ok((String::from_utf8(answer)?, body))
}

fn answer(mut stream: &TcpStream, count: usize) -> io::Result<()> {
    BufReader::new(stream).read_line(&mut String::new())?;
    stream.write_all(&pattern(count))
}

/// One request, whatever it asks for.
fn answer_http(mut stream: &TcpStream, body: &str) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn collect(mut stream: &TcpStream) -> io::Result<()> {
    let mut data = Vec::new();
    stream.read_to_end(&mut data)?;
    stream.write_all(&data)
}

fn lines(count: usize) -> anyhow::Result<()> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    for number in 0..count {
        if number % 2 == 0 {
            writeln!(stdout, "line {number}")?;
        } else {
            writeln!(stderr, "line {number}")?;
        }
    }
    writeln!(stdout, "done")?;
    sleep()
}

fn paced(count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        writeln!(io::stdout(), "line {number}")?;
        thread::park_timeout(Duration::from_millis(1));
    }
    writeln!(io::stdout(), "done")?;
    sleep()
}

fn load(count: usize) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let rest = "x".repeat(88);
    for number in 0..count {
        // 100 bytes with the line's end.
        writeln!(stdout, "{number:010} {rest}")?;
    }
    writeln!(stdout, "done")?;
    sleep()
}

fn bytes() -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let every: Vec<u8> = (0..=255).collect();
    stdout.write_all(&every)?;
    stdout.write_all(b"\n")?;
    stdout.write_all(&vec![b'x'; 150_000])?;
    stdout.write_all(b"\nno end")?;
    stdout.flush()?;
    Ok(())
}

fn fetch(count: usize) -> anyhow::Result<()> {
    let proxy = std::env::var("HTTPS_PROXY").context("no proxy")?;
    let address = proxy.strip_prefix("http://").context("no HTTP proxy")?;
    let stream = TcpStream::connect(address)?;
    (&stream).write_all(b"CONNECT peer.example:443 HTTP/1.1\r\nHost: peer.example:443\r\n\r\n")?;
    let mut reader = BufReader::new(&stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    ensure!(
        status.starts_with("HTTP/1.1 200"),
        "the proxy says {status}"
    );
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let sent = pattern(count);
    let received = thread::scope(|scope| -> anyhow::Result<Vec<u8>> {
        let sending = scope.spawn(|| -> io::Result<()> {
            (&stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received)?;
        sending.join().ok().context("the sender panicked")??;
        Ok(received)
    })?;
    ensure!(
        received == sent,
        "{} of {count} bytes came back",
        received.len()
    );
    println!("fetched {count}");
    sleep()
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect()
}

fn sleep() -> ! {
    loop {
        thread::park();
    }
}

/// Uses memory until it is killed.
fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1u8; 1 << 20]);
    }
}

fn hog() -> anyhow::Result<()> {
    let status = Command::new("/proc/self/exe").arg("eat").status()?;
    println!("the eater ended with signal {:?}", status.signal());
    serve(echo)
}

fn bomb() -> anyhow::Result<()> {
    let mut started: usize = 0;
    loop {
        let child = Command::new("/proc/self/exe")
            .arg("sleep")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Err(error) = child {
            println!("refused after {started}: {:?}", error.kind());
            break;
        }
        started += 1;
    }
    serve(echo)
}

fn fill() -> anyhow::Result<()> {
    let block = vec![1; 1 << 16];
    for folder in ["/dev/shm", "/tmp"] {
        let size = statvfs(folder)?;
        let mib = size.blocks() * size.fragment_size() / (1 << 20);
        let file = Path::new(folder).join("filling");
        let mut file = File::create(&file).with_context(|| folder.to_owned())?;
        let mut written = 0;
        let error = loop {
            match file.write_all(&block) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        println!(
            "{folder} of {mib} MiB took {} MiB: {:?}",
            written / 16,
            error.kind()
        );
    }
    serve(echo)
}

/// Everything that would lead out, and what came of it.
fn confined() -> anyhow::Result<()> {
    let tried = |what: &str, result: Result<(), Errno>| match result {
        Ok(()) => println!("{what}: done"),
        Err(error) => println!("{what}: {error:?}"),
    };
    let socket = |family| socket(family, SockType::Stream, SockFlag::empty(), None).map(drop);
    tried("vsock", socket(AddressFamily::Vsock));
    tried("inet", socket(AddressFamily::Inet));
    let mut groups: Vec<_> = getgroups()?.into_iter().map(Gid::as_raw).collect();
    groups.sort_unstable();
    println!("groups: {groups:?}");
    let null = makedev(1, 3);
    let mode = Mode::from_bits_truncate(0o666);
    tried("device", mknod("/tmp/null", SFlag::S_IFCHR, mode, null));
    let none = None::<&str>;
    let mounted = mount(Some("proc"), "/tmp", Some("proc"), MsFlags::empty(), none);
    tried("mount", mounted);
    tried("unmount", umount("/proc"));
    tried("trace", ptrace::attach(Pid::from_raw(1)));
    tried("kill", kill(Pid::from_raw(1), Signal::SIGKILL));
    tried("terminate", kill(Pid::from_raw(1), Signal::SIGTERM));
    for path in [
        "/proc/1/mem",
        "/proc/1/environ",
        "/dev/nsm",
        "/dev/mem",
        "/proc/kcore",
    ] {
        let opened = File::open(path).map(drop);
        let code = opened.err().and_then(|error| error.raw_os_error());
        tried(path, code.map_or(Ok(()), |code| Err(Errno::from_raw(code))));
    }
    for path in ["/dev/stdout", "/dev/stderr"] {
        let opened = File::options().append(true).open(path);
        println!("{path} can be opened: {}", opened.is_ok());
    }
    let mut devices: Vec<_> = std::fs::read_dir("/dev")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    devices.sort_unstable();
    println!("devices: {}", devices.join(" "));
    for file in ["memory.max", "pids.max"] {
        let limit = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(file))?;
        println!("{file} is limited: {}", limit.trim() != "max");
        let write = File::options()
            .write(true)
            .open(Path::new("/sys/fs/cgroup").join(file));
        println!("{file} can be changed: {}", write.is_ok());
    }
    let root = std::fs::read_to_string("/proc/self/mounts")?;
    let root = root
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/"));
    let root = root.context("no root")?;
    println!(
        "root has a size: {}",
        root.contains("size=") && statvfs("/")?.blocks() > 0
    );
    println!("root has no devices: {}", root.contains("nodev"));
    println!("tried");
    sleep()
}
