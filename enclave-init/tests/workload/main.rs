//! The program that the API tests run in their enclaves. Each argument is one
//! instruction, its words separated by spaces; they run one after the other, and
//! each says what came of it in lines on standard output.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::zombie_processes,
    clippy::unnecessary_debug_formatting,
    reason = "a program without a runtime, whose failing instructions end it with their reason"
)]

mod channel;
mod confinement;
mod kms;
mod linger;
mod lure;
mod network;
mod packet;
mod process;
mod usurpation;

use std::fs;
use std::io::{ErrorKind, Read, Write, stderr, stdin, stdout};
use std::net::TcpListener;
use std::process::{Command, exit};
use std::thread::sleep;
use std::time::Duration;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getegid, geteuid, getgroups, getpid};

const POLL: Duration = Duration::from_millis(5);

fn main() {
    usurpation::reign();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for instruction in &arguments {
        let words: Vec<&str> = instruction.split(' ').collect();
        run(words[0], &words[1..], &arguments);
    }
}

fn run(verb: &str, words: &[&str], arguments: &[String]) {
    match verb {
        "arguments" => println!("{arguments:?}"),
        "say" => println!("{}", words.join(" ")),
        "exit" => exit(words[0].parse().unwrap()),
        "die" => die(words[0].parse().unwrap()),
        "fault" => process::fault(),
        "wait" => wait_for_ever(),
        "surroundings" => surroundings(),
        "show" => println!("{:?}", fs::read_to_string(words[0]).unwrap()),
        "print" => print(words[0], words.get(1)),
        "flood" => flood(words[0].parse().unwrap()),
        "catch" => catch(words),
        "ignore" => ignore(words[0]),
        "handle" => process::handle(words[0]),
        "descriptor" => process::descriptor(words[0]),
        "reign" => process::reign(words),
        "note" => process::note_common(words[0]),
        "compare" => process::compare_common(words[0]),
        "judge" => process::judge(words[0]),
        "notify" => process::notify(&words.join(" ")),
        "beat" => process::beat(words[0]),
        "stalk" => process::stalk(words),
        "linger" => linger::linger(words[0]),
        "lure" => lure::lure(words[0], words[1]),
        "orphans" => orphans(words[0].parse().unwrap()),
        "run" => run_program(words[0]),
        "leave" => leave(words),
        "listen" => listen_for_ever(words[0].parse().unwrap()),
        "status" => confinement::status(),
        "try" => words.iter().for_each(|name| confinement::attempt(name)),
        "open" => words.iter().for_each(|path| confinement::open(path)),
        "write" => words.iter().for_each(|path| confinement::write(path)),
        "list" => words.iter().for_each(|path| confinement::list(path)),
        "mode" => words.iter().for_each(|path| confinement::mode(path)),
        "room" => words.iter().for_each(|path| confinement::room(path)),
        "signal" => confinement::signal(words[0].parse().unwrap(), words[1]),
        "first" => first(words),
        "second" => second(words),
        "until" => until(words[0]),
        "mark" => fs::write(words[0], "").unwrap(),
        "usurp" => usurpation::usurp(words[0]),
        "relink" => usurpation::relink(words[0], words[1]),
        "look" => usurpation::look(),
        "answer" => network::answer(words[0].parse().unwrap(), words[1], words.get(2).copied()),
        "name" => network::name(words[0], words[1].parse().unwrap()),
        "records" => network::records(words[0], words[1].parse().unwrap(), words[2]),
        "datagram" => {
            network::datagram(
                words[0],
                words[1].parse().unwrap(),
                words[2].parse().unwrap(),
            );
        }
        "datagrams" => network::datagrams(words[0], words[1], words[2].parse().unwrap()),
        "datagram-crowd" => {
            network::datagram_crowd(
                words[0],
                words[1].parse().unwrap(),
                words[2].parse().unwrap(),
            );
        }
        "names" => network::names(words[0].parse().unwrap()),
        "connect" => network::connect(words[0], words[1].parse().unwrap(), words[2]),
        "proxy" => network::proxy(words[0], words[1]),
        "serve" => network::serve(words[0].parse().unwrap()),
        "serve-beside" => network::serve_beside(words[0], words[1].parse().unwrap()),
        "tcp" => network::tcp(words[0], words[1].parse().unwrap(), words[2]),
        "reach" => network::reach(words[0], words[1].parse().unwrap()),
        "packet" => packet::query(words[0].parse().unwrap(), words[1]),
        "tell" => packet::tell(
            words[0].parse().unwrap(),
            words[1].parse().unwrap(),
            words[2],
        ),
        "advertise" => packet::advertise(words[0].parse().unwrap()),
        "hear" => network::hear(words[0].parse().unwrap(), words[1]),
        "name-tcp" => network::name_tcp(words),
        "request" => network::request(words[0], words[1], words[2], &words[3..].join(" ")),
        "channel-serve" => channel::serve(words[0].parse().unwrap(), words[1]),
        "channel-open" => channel::open(words[0], words[1].parse().unwrap(), words[2]),
        "together" => network::together(words[0].parse().unwrap(), words[1], &words[2..].join(" ")),
        "crowd" => network::crowd(
            words[0],
            words[1].parse().unwrap(),
            words[2].parse().unwrap(),
        ),
        "forge" => network::forge(words[0], words[1], &words[2..]),
        "kms" => kms::call(words[0], &words[1..].join(" ")),
        "kms-as" => kms::call_as(words[0], words[1], words[2], &words[3..].join(" ")),
        "kms-file" => kms::call(words[0], &fs::read_to_string(words[1]).unwrap()),
        "kms-together" => {
            kms::call_together(words[0].parse().unwrap(), words[1], &words[2..].join(" "));
        }
        "kms-quietly" => kms::call_quietly(words[0], words[1]),
        "kms-api-quietly" => kms::call_api_quietly(words[0], words[1]),
        "kms-unsigned" => kms::call_unsigned(words[0], &words[1..].join(" ")),
        "kms-with" => kms::call_with(words[0], words[1], &words[2..].join(" ")),
        "half" => network::half_request(words[0]),
        _ => panic!("what is {verb}?"),
    }
}

/// Ends by a signal; a number, because real-time signals have no name.
fn die(signal: i32) {
    // SAFETY: neither call touches memory; the default action ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    unreachable!("signal {signal} did not end the process");
}

fn wait_for_ever() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

fn surroundings() {
    println!("uid {} gid {}", geteuid(), getegid());
    println!("groups {}", getgroups().unwrap().len());
    println!("folder {}", std::env::current_dir().unwrap().display());
    println!("host {:?}", nix::unistd::gethostname().unwrap());
    println!("input {:?}", stdin().read(&mut [0]).unwrap());
    println!("leader {}", nix::unistd::getsid(None).unwrap() == getpid());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    println!("descriptors {soft} {hard}");
    for (name, value) in std::env::vars() {
        println!("variable {name}={value}");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines() {
        let blocked_or_ignored = ["SigBlk:", "SigIgn:", "Umask:"];
        if blocked_or_ignored
            .iter()
            .any(|start| line.starts_with(start))
        {
            println!("{line}");
        }
    }
}

/// Writes one file to standard output, another to standard error.
fn print(out: &str, err: Option<&&str>) {
    stdout().write_all(&fs::read(out).unwrap()).unwrap();
    stdout().flush().unwrap();
    if let Some(err) = err {
        stderr().write_all(&fs::read(err).unwrap()).unwrap();
    }
}

fn flood(lines: u64) {
    let mut out = stdout().lock();
    for number in 0..lines {
        writeln!(out, "{number:0>99}").unwrap();
    }
}

/// Waits for each of these signals, in any order.
fn catch(names: &[&str]) {
    let mut set: SigSet = names
        .iter()
        .map(|name| name.parse::<Signal>().unwrap())
        .collect();
    set.thread_block().unwrap();
    println!("catching");
    for _ in names {
        let caught = set.wait().unwrap();
        println!("caught {caught}");
        set.remove(caught);
    }
}

fn ignore(name: &str) {
    let signal: Signal = name.parse().unwrap();
    // SAFETY: no handler is set that could touch anything.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
    println!("ignoring");
}

/// Makes orphans, and waits until none is left, neither running nor as a zombie.
fn orphans(count: u32) {
    for _ in 0..count {
        // The child leaves a child of its own behind.
        let status = Command::new("/bin/workload")
            .arg("leave say orphan")
            .status()
            .unwrap();
        assert!(status.success());
    }
    let others = || {
        let processes = fs::read_dir("/proc").unwrap();
        processes
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| *pid != 1 && *pid != getpid().as_raw())
            .count()
    };
    while others() > 0 {
        sleep(POLL);
    }
    println!("no process is left");
}

/// Runs the program and arguments that a file has as JSON, and tells what came of it.
fn run_program(file: &str) {
    let command: Vec<String> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let output = loop {
        match Command::new(&command[0]).args(&command[1..]).output() {
            // Whoever has copied it into the image may be about to close it.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => sleep(POLL),
            output => break output.unwrap(),
        }
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let told = serde_json::json!({
        "code": output.status.code(),
        "output": text(output.stdout),
        "errors": text(output.stderr),
    });
    println!("ran {told}");
}

/// Starts a program with this instruction and does not wait for it.
fn leave(words: &[&str]) {
    let child = Command::new("/bin/workload")
        .arg(words.join(" "))
        .spawn()
        .unwrap();
    println!("left {}", child.id());
}

fn listen_for_ever(port: u16) {
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("listening on {port}");
    fs::write("/tmp/listening", "").unwrap();
    wait_for_ever();
}

/// Runs the instruction in the first run only, as `first WORDS`.
fn first(words: &[&str]) {
    let marker = format!("/tmp/was-here-{}", words.join("-").replace('/', "-"));
    if fs::metadata(&marker).is_err() {
        fs::write(marker, "").unwrap();
        run(words[0], &words[1..], &[]);
    }
}

/// Runs the instruction in every run but the first; of one instruction alone.
fn second(words: &[&str]) {
    let marker = "/tmp/was-here-before";
    if fs::metadata(marker).is_ok() {
        run(words[0], &words[1..], &[]);
    }
    fs::write(marker, "").unwrap();
}

/// Waits for a file.
fn until(file: &str) {
    while fs::metadata(file).is_err() {
        sleep(POLL);
    }
}
