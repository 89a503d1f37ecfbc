//! The workload of the end-to-end tests. Its runtime configuration says what it
//! does, or of several workloads each by its arguments, `as` and a role:
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
//! | `fetch N` | has the proxy connect to `peer.example:443`, sends N bytes there and checks that they come back |
//! | `fetch-at N` | the same at the address 192.0.2.7, port 443, without the proxy |
//! | `serve-ends N` | sends N bytes on every other connection to port 8080 and resets it, and says how the others end |
//! | `ends N` | the same by the name, the proxy and the address of its destinations |
//! | `doze N` | sends N small packets on each connection to port 8080, and reads as many late |
//! | `full N` | fills both directions of four connections, in and out, with N bytes each |
//! | `crowd N` | opens N connections to `peer.example:443` at once, and says what became of them |
//! | `decrypt` | has the local API decrypt, keeps what it got, and serves |
//! | `time N` | prints what the local API says of the time, N times, once a second |
//! | `secrets` | prints the secret `file-secret`, then `api-secret` once the local API has it |
//! | `keys` | prints a key of its family in hexadecimal, and sleeps |
//! | `exit N` | ends with that code |
//! | `eat` | takes memory until it is killed for it |
//! | `stubborn` | takes no notice of SIGTERM |
//! | `confined` | tries every way out and says what came of each |
//! | `probed` | is probed by `probe` as its argument, and fails its probes after a few |
//! | `users` | gives files to others, becomes another user, and says what each sees |
//! | `hog` | has a process of its own use all memory, and serves |
//! | `bomb` | starts processes until there are no more, and serves |
//! | `spin N` | keeps all processors busy for N seconds and says how much it has done |
//! | `fill` | fills every file system that its user may write to, and serves |
//! | `files` | says what became of the image's files, tries what programs do that look after their disk, and serves |
//! | a JSON object | answers each HTTP request to port 8080 with it: the control plane tells an enclave its id so; before that it prints the secret `file-secret`, if it has that |

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its purpose")]

mod files;
mod network;

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::statvfs::statvfs;
use nix::unistd::{
    Gid, Pid, Uid, getegid, geteuid, getgroups, getpid, getppid, setgroups, setresgid, setresuid,
};

/// Where it serves.
const PORT: &str = "127.0.0.1:8080";
const FILE_SECRET: &str = "/run/secrets/file-secret";
/// Where container runtimes mount something, or might, and the files of an image there.
const IMAGES_FILES: [&str; 10] = [
    "/tmp",
    "/tmp/left",
    "/tmp/cache/deep",
    "/linked",
    "/run",
    "/run/lock",
    "/run/lock/file",
    "/var/tmp",
    "/var/tmp/left",
    "/dev/shm/left",
];

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
        Some("probe") => return probe(),
        Some("sleep") => sleep(),
        Some("drop") => return drop_to_user().map(|()| 0),
        Some("called") => return files::called().map(|()| 0),
        Some("whoami") => return say_user("as /tmp/su").map(|()| 0),
        _ => {}
    }
    let role = match std::env::args().nth(1).as_deref() {
        Some("as") => std::env::args().nth(2).context("no role")?,
        _ => configured_role()?,
    };
    if role.starts_with('{') {
        println!("told {role}");
        if let Ok(value) = fs::read_to_string(FILE_SECRET) {
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
        "fetch-at" => exchange(&TcpStream::connect("192.0.2.7:443")?, number)?,
        "serve-ends" => network::serve_ends(number)?,
        "ends" => network::ends(number)?,
        "doze" => network::doze(number)?,
        "full" => network::full(number)?,
        "crowd" => network::crowd(number)?,
        "datagrams" => datagrams(number)?,
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
        "probed" => probed()?,
        "users" => users()?,
        "hog" => hog()?,
        "bomb" => bomb()?,
        "spin" => spin(number)?,
        "fill" => fill()?,
        "files" => {
            files::found(&IMAGES_FILES)?;
            files::tried()?;
            files::called_by_each_name()?;
            serve(echo)?;
        }
        other => bail!("there is no role {other:?}"),
    }
    Ok(0)
}

fn configured_role() -> anyhow::Result<String> {
    let file = std::env::var("ENCLAVE_RUNTIME_CONFIG").context("no runtime configuration")?;
    fs::read_to_string(&file).with_context(|| file.clone())
}

fn serve(
    handle: impl Fn(&TcpStream) -> io::Result<()> + Copy + Send + 'static,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(PORT)?;
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
    let mut stream = TcpStream::connect("198.18.0.1:7070")?;
    write!(
        stream,
        "POST /v1/kms/decrypt HTTP/1.1\r\nHost: 198.18.0.1:7070\r\nEnclave-Api: 1\r\nContent-Length: {}\r\n\r\n{body}",
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
    let value = fs::read_to_string(FILE_SECRET)?;
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
    let mut stream = TcpStream::connect("198.18.0.1:7070")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 198.18.0.1:7070\r\nEnclave-Api: 1\r\n\r\n");
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
    exchange(&connect_by_proxy()?, count)
}

/// A connection of the proxy's to `peer.example:443`, on which nothing was read yet.
fn connect_by_proxy() -> anyhow::Result<TcpStream> {
    let proxy = std::env::var("HTTPS_PROXY").context("no proxy")?;
    let address = proxy.strip_prefix("http://").context("no HTTP proxy")?;
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"CONNECT peer.example:443 HTTP/1.1\r\nHost: peer.example:443\r\n\r\n")?;
    // Byte by byte: what follows the answer belongs to the connection.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    let answer = String::from_utf8(answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "the proxy says {answer}"
    );
    Ok(stream)
}

/// Sends so many bytes, and checks that they come back.
fn exchange(stream: &TcpStream, count: usize) -> anyhow::Result<()> {
    let sent = pattern(count);
    let received = thread::scope(|scope| -> anyhow::Result<Vec<u8>> {
        let sending = scope.spawn(|| -> io::Result<()> {
            (&*stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        let mut received = Vec::new();
        (&*stream).read_to_end(&mut received)?;
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

/// Has so many datagrams sent back, the largest one among them, and then none.
fn datagrams(count: usize) -> anyhow::Result<()> {
    const LARGEST: usize = 65_507;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.7:123")?;
    let mut answer = vec![0; LARGEST + 1];
    for number in 0..count {
        let sent = pattern(LARGEST >> number.min(16));
        socket.send(&sent)?;
        let length = socket.recv(&mut answer)?;
        ensure!(answer.get(..length) == Some(&sent), "{number}: {length}");
    }
    println!("echoed {count}");
    // The other end goes away now; what it has not read by then is lost.
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let refused = loop {
        socket.send(b"x")?;
        match socket.recv(&mut answer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => break error.kind(),
            Ok(_) | Err(_) => {}
        }
    };
    println!("then {refused:?}");
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

/// What the workload and its probe have in common, and where it is noted.
const COMMON: &str = "/tmp/common";
/// Successful probes: a byte for each.
const PROBES: &str = "/tmp/probes";
/// What a probe has left in the background.
const LEFT: &str = "/tmp/left";
/// The probe fails while it is there.
const FAIL: &str = "/tmp/fail";
const ENOUGH_PROBES: u64 = 5;

fn common() -> anyhow::Result<String> {
    let mut text = format!("{} {} {:?}\n", geteuid(), getegid(), getgroups()?);
    let status = fs::read_to_string("/proc/self/status")?;
    let is_common = |line: &&str| {
        ["Cap", "NoNewPrivs", "Seccomp:"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    text.extend(status.lines().filter(is_common));
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let link = fs::read_link(Path::new("/proc/self/ns").join(name))?;
        text.push_str(&link.to_string_lossy());
    }
    Ok(text)
}

/// Is probed, fails its probes after a few, and is started again for it.
fn probed() -> anyhow::Result<()> {
    let is_again = fs::remove_file(FAIL).is_ok();
    fs::write(COMMON, common()?)?;
    println!("started {}", if is_again { "again" } else { "first" });
    while fs::metadata(PROBES).map_or(0, |file| file.len()) < ENOUGH_PROBES {
        thread::park_timeout(Duration::from_millis(10));
    }
    println!("probed");
    if !is_again {
        fs::write(FAIL, "")?;
    }
    sleep()
}

/// Probes the workload, and leaves something behind.
fn probe() -> anyhow::Result<u8> {
    ensure!(!Path::new(FAIL).exists(), "told to fail");
    let (noted, own) = (fs::read_to_string(COMMON)?, common()?);
    ensure!(noted == own, "the workload is {noted}, the probe {own}");
    let group = fs::read_to_string("/proc/self/cgroup")?;
    ensure!(group.trim() == "0::/../probe", "in the group {group}");
    if let Ok(left) = fs::read_to_string(LEFT) {
        let command = fs::read_to_string(format!("/proc/{left}/cmdline"));
        let is_there = command.is_ok_and(|command| command.contains("sleep"));
        ensure!(!is_there, "{left} was left behind");
    }
    let left = Command::new("/proc/self/exe")
        .arg("sleep")
        .process_group(0)
        .spawn()?;
    fs::write(LEFT, left.id().to_string())?;
    let mut probes = File::options().create(true).append(true).open(PROBES)?;
    probes.write_all(b".")?;
    Ok(0)
}

/// What an entrypoint does that starts as root.
fn users() -> anyhow::Result<()> {
    say_user("first")?;
    say_file("/", false)?;
    say_file("/app", true)?;
    say_file("/app/test-workload", true)?;
    for path in [
        "/run/enclave",
        "/run/enclave/runtime-config",
        "/tmp",
        "/etc/resolv.conf",
    ] {
        say_file(path, false)?;
    }
    for (path, uid, gid, mode) in [
        ("/tmp/of-33", 33, 65_534, 0o600),
        ("/tmp/of-65535", 65_534, 65_533, 0o640),
        ("/tmp/of-101", 33, 101, 0o640),
        ("/tmp/root", 0, 0, 0o700),
    ] {
        fs::write(path, "contents")?;
        chown(path, Some(uid), Some(gid)).with_context(|| path.to_owned())?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    // Programs may be executed there, and this one is linked statically.
    fs::copy("/proc/self/exe", "/tmp/su")?;
    fs::set_permissions("/tmp/su", Permissions::from_mode(0o4755))?;
    for path in ["/tmp/of-33", "/tmp/of-65535", "/tmp/su"] {
        say_file(path, false)?;
    }
    let status = Command::new("/proc/self/exe").arg("drop").status()?;
    ensure!(status.success(), "the other user ended with {status}");
    println!("tried");
    serve(echo)
}

/// As `su`, `gosu` and `setpriv` do.
fn drop_to_user() -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(1000), Gid::from_raw(1000));
    setgroups(&[Gid::from_raw(101), gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    say_user("then")?;
    for path in ["/tmp/of-33", "/tmp/of-101", "/tmp/root"] {
        match File::open(path) {
            Ok(_) => println!("{path}: readable"),
            Err(error) => println!("{path}: {:?}", errno(&error)),
        }
    }
    if let Err(error) = chown("/tmp/of-101", Some(1000), None) {
        println!("chown: {:?}", errno(&error));
    }
    let status = Command::new("/tmp/su").arg("whoami").status()?;
    ensure!(status.success(), "/tmp/su ended with {status}");
    Ok(())
}

fn say_user(when: &str) -> anyhow::Result<()> {
    let mut groups: Vec<_> = getgroups()?.into_iter().map(Gid::as_raw).collect();
    groups.sort_unstable();
    println!("{when}: {}:{} {groups:?}", geteuid(), getegid());
    Ok(())
}

/// Whose a file is, its permissions and perhaps its time.
fn say_file(path: &str, with_time: bool) -> anyhow::Result<()> {
    let found = fs::symlink_metadata(path).with_context(|| path.to_owned())?;
    let (uid, gid, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
    let time = if with_time {
        format!(" at {}", found.mtime())
    } else {
        String::new()
    };
    println!("{path}: {uid}:{gid} {mode:o}{time}");
    Ok(())
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
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

/// Threads that spin: more than the tests' machines have processors.
const SPINNING: usize = 4;

fn spin(seconds: usize) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds.try_into()?);
    let spinning = [(); SPINNING].map(|()| {
        thread::spawn(move || {
            let mut rounds: u64 = 0;
            while Instant::now() < end {
                rounds += 1;
            }
            rounds
        })
    });
    let mut rounds = 0;
    for thread in spinning {
        rounds += thread
            .join()
            .map_err(|_| anyhow!("a thread has panicked"))?;
    }
    println!("spun {rounds}");
    Ok(())
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
    println!("process {}, parent {}", getpid(), getppid());
    let mut processes: Vec<_> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok())
        .collect();
    processes.sort_unstable();
    println!("processes: {}", processes.join(" "));
    for path in ["/dev/nsm", "/dev/mem", "/proc/kcore"] {
        let opened = File::open(path).map(drop);
        let code = opened.err().and_then(|error| error.raw_os_error());
        tried(path, code.map_or(Ok(()), |code| Err(Errno::from_raw(code))));
    }
    for path in ["/dev/stdout", "/dev/stderr"] {
        let opened = File::options().append(true).open(path);
        println!("{path} can be opened: {}", opened.is_ok());
    }
    let mut devices: Vec<_> = fs::read_dir("/dev")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    devices.sort_unstable();
    println!("devices: {}", devices.join(" "));
    for file in ["memory.max", "pids.max"] {
        let limit = fs::read_to_string(Path::new("/sys/fs/cgroup").join(file))?;
        println!("{file} is limited: {}", limit.trim() != "max");
        let write = File::options()
            .write(true)
            .open(Path::new("/sys/fs/cgroup").join(file));
        println!("{file} can be changed: {}", write.is_ok());
    }
    let root = fs::read_to_string("/proc/self/mounts")?;
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
