//! How large the functions' packages are, and how fast a function is there: from the
//! start of its process to its first answer, against Lambda's Runtime API on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use command_output::outln;

use crate::functions::{self, FUNCTIONS};
use crate::programs;

const STARTS: usize = 21;
const LIMIT: Duration = Duration::from_secs(30);

/// An answer of the Runtime API to `/next`. The event is one that needs no service:
/// a batch without records, or what no function takes.
const EVENT: &str = r#"{"Records":[]}"#;

pub(crate) fn run(workspace: &Path) -> anyhow::Result<()> {
    let programs = programs::build(workspace, &["control-plane"])?;
    let packages = functions::package(&programs)?;
    outln!(
        "{:<18} {:>8}  {:>26}",
        "function",
        "package",
        "start to first answer, ms"
    );
    outln!(
        "{:<18} {:>8}  {:>8} {:>8} {:>8}",
        "",
        "KiB",
        "best",
        "median",
        "worst"
    );
    for name in FUNCTIONS {
        let size = fs::metadata(packages.join(format!("{name}.zip")))?.len();
        let kib = size.div_ceil(1024);
        let mut times = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            times.push(start(&programs.join(name))?.as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        outln!(
            "{name:<18} {:>8}  {:>8.1} {:>8.1} {:>8.1}",
            kib,
            at(0),
            at(STARTS / 2),
            at(STARTS - 1)
        );
    }
    Ok(())
}

/// Ends the process however the measurement ends.
struct Function(Child);

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One start, with an event waiting.
fn start(program: &Path) -> anyhow::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let started = Instant::now();
    let _function = Function(
        Command::new(program)
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "cold-start")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("AWS_REGION", "us-west-2")
            .env("AWS_ACCESS_KEY_ID", "none")
            .env("AWS_SECRET_ACCESS_KEY", "none")
            .env("DYNAMODB_TABLE_NAME", "enclaves")
            .env("IMAGES_TABLE_NAME", "images")
            .env("STATUS_INDEX_NAME", "status-index")
            .env("EAR_KEY_ID", "alias/none")
            .env("LOG_LEVEL", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?,
    );
    let (answered, answer) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answered = answered.clone();
            thread::spawn(move || serve(stream, &answered));
        }
    });
    match answer.recv_timeout(LIMIT) {
        Ok(at) => Ok(at.duration_since(started)),
        Err(_) => bail!("{} does not answer", program.display()),
    }
}

/// The Runtime API for one connection: an event, and then nothing more to do.
fn serve(stream: TcpStream, answered: &std::sync::mpsc::Sender<Instant>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if header.starts_with("transfer-encoding:") {
                // The only bodies of unknown length are answers, which are all we wait for.
                let _ = answered.send(Instant::now());
            }
        }
        reader
            .by_ref()
            .take(length)
            .read_to_end(&mut Vec::new())
            .ok()?;
        let answer = if line.starts_with("GET") && line.contains("/invocation/next") {
            format!(
                "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: 1\r\nLambda-Runtime-Deadline-Ms: 9999999999999\r\nLambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-west-2:1:function:f\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{EVENT}",
                EVENT.len()
            )
        } else {
            if line.contains("/response") || line.contains("/error") {
                answered.send(Instant::now()).ok()?;
            }
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned()
        };
        stream.write_all(answer.as_bytes()).ok()?;
    }
}
