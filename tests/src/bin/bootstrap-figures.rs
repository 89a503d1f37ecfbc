//! Measures, step by step, how long it takes from `parent-agent bootstrap` to the
//! first attested response of an enclave under QEMU, and how much of it is this
//! project's own work: `cargo xtask bench bootstrap`.
//!
//! There is no Nitro device here, so that the steps which reserve memory and CPUs
//! are left out, `systemctl` is a program that does nothing, and what the unit would
//! start is started by hand. S3 is on the loopback address. Times depend on the
//! machine; the exit code says only whether everything could be measured.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command's output")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::fill;
use enclave_tests::{Hypervisor, Programs, Workload};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// How often everything is done; the table has each step's median.
const ROUNDS: usize = 3;
/// What this project's own share may be.
const OWN_LIMIT: Duration = Duration::from_millis(500);
/// Longer than anything takes; only what fails waits so long.
const LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked whether QEMU has been started.
const POLL: Duration = Duration::from_millis(1);
const NAME: &str = "workload";

/// The steps, whether each is this project's work, and what belongs to it.
const STEPS: [(&str, bool); 8] = [
    ("agent: start, configuration, first request", true),
    ("transfer of the image (loopback)", false),
    ("agent: fetch beyond that, digest, unit, service", true),
    ("agent: start, image checked, launch prepared", true),
    ("QEMU's start and the kernel's boot", false),
    ("init: its own steps (emulated)", true),
    ("workload's start, its health probe", false),
    ("attestation: command, relay, init, NSM", true),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let programs = Programs::from_environment()?;
    let folder = tempfile::Builder::new().prefix("boot-").tempdir()?;
    let image = Workload::build(&programs, &folder.path().join("image"))?;
    let bytes = Bytes::from(fs::read(&image.path)?);
    let mut rounds = Vec::new();
    for number in 0..ROUNDS {
        let round = Round::new(&programs, &folder.path().join(number.to_string()), &bytes).await?;
        rounds.push(timeout(LIMIT, round.measure(&image)).await??);
    }
    println!(
        "from bootstrap to the first attested response, image of {} MiB, median of {ROUNDS}\n",
        bytes.len() >> 20
    );
    println!("{:<48} {:>10}  {:>10}", "step", "ours", "not ours");
    let (mut own, mut others) = (Duration::ZERO, Duration::ZERO);
    for (index, (name, is_own)) in STEPS.iter().enumerate() {
        let mut times: Vec<_> = rounds
            .iter()
            .filter_map(|times| times.get(index).copied())
            .collect();
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        if *is_own {
            own += median;
            println!("{name:<48} {:>10}", shown(median));
        } else {
            others += median;
            println!("{name:<48} {:>10}  {:>10}", "", shown(median));
        }
    }
    println!("{:<48} {:>10}  {:>10}", "sum", shown(own), shown(others));
    let verdict = if own <= OWN_LIMIT { "ok" } else { "NOT HELD" };
    println!(
        "\nours: {}, promised {}: {verdict}",
        shown(own),
        shown(OWN_LIMIT)
    );
    Ok(())
}

fn shown(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

/// An instance that is a folder.
struct Round<'a> {
    programs: &'a Programs,
    folder: PathBuf,
    store: Store,
}

impl<'a> Round<'a> {
    async fn new(programs: &'a Programs, folder: &Path, image: &Bytes) -> anyhow::Result<Self> {
        let round = Self {
            programs,
            folder: folder.to_owned(),
            store: Store::start(image.clone()).await?,
        };
        let bin = round.path("bin");
        for path in [&bin, &round.path("tmp")] {
            fs::create_dir_all(path)?;
        }
        let systemctl = bin.join("systemctl");
        fs::write(
            &systemctl,
            "#!/bin/sh\ncase \"$1\" in is-active) test -e \"$ROOT/$3\";; start) : > \"$ROOT/$2\";; esac\n",
        )?;
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?;
        let document = json!({ "enclaves": [{
            "name": NAME,
            "image": {
                "source": "s3://bucket/image.eif",
                "sha256": hex::encode(digest(&SHA256, image)),
                "size": image.len(),
            },
            "runtime_configuration": "serve",
            "publish": ["127.0.0.1:0:8080"],
        }] });
        fs::write(round.path("config.json"), document.to_string())?;
        Ok(round)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.programs.path("parent-agent"));
        command
            .arg(subcommand)
            .arg("--state-dir")
            .arg(self.path("s"))
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("ROOT", &self.folder)
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_STATE_HOME", self.path("logs"))
            .env("RUST_LOG", "error")
            .env("AWS_ENDPOINT_URL", &self.store.endpoint)
            .env("AWS_REGION", "us-west-2")
            .env("AWS_ACCESS_KEY_ID", "AKID")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Each step's time, as [`STEPS`] has them.
    async fn measure(&self, image: &Workload) -> anyhow::Result<Vec<Duration>> {
        let transfer = self.store.transfer().await?;
        self.store.forget();

        let start = Instant::now();
        self.bootstrap().await?;
        let end = Instant::now();
        let asked = self.store.first_asked()?;
        let rest = (end - asked).saturating_sub(transfer);
        let mut times = vec![asked - start, transfer, rest];

        let start = Instant::now();
        let mut agent = self.run()?;
        let events = agent.stdout.take().context("no pipe to the agent")?;
        let mut events = BufReader::new(events).lines();
        let (qemu, ready) = tokio::join!(self.qemu_started(), ready(&mut events));
        let Boot {
            at,
            since_init,
            own,
        } = ready?;
        times.push(qemu? - start);
        let init = at
            .checked_sub(since_init)
            .context("a clock that goes back")?;
        times.push(
            init.saturating_duration_since(start + times.last().copied().unwrap_or_default()),
        );
        times.push(own);
        times.push(since_init.saturating_sub(own));

        let start = Instant::now();
        let (document, nonce) = self.attest().await?;
        times.push(start.elapsed());
        check(&document, &nonce, image)?;

        let stopped = self
            .command("stop")
            .arg("--name")
            .arg(NAME)
            .output()
            .await?;
        ensure!(
            stopped.status.success(),
            "parent-agent stop: {}",
            text(&stopped.stderr)
        );
        while let Some(_line) = events.next_line().await? {}
        agent.wait().await?;
        Ok(times)
    }

    async fn bootstrap(&self) -> anyhow::Result<()> {
        let output = self
            .command("bootstrap")
            .args(["--hypervisor", "qemu", "--root"])
            .arg(&self.folder)
            .arg("--config")
            .arg(self.path("config.json"))
            .arg("--image-dir")
            .arg(self.path("images"))
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "parent-agent bootstrap: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(())
    }

    /// Starts what the unit would: from the copy of the configuration.
    fn run(&self) -> anyhow::Result<Child> {
        let copy = self.path("var/lib/enclaves/config.json");
        ensure!(copy.exists(), "bootstrap has left no {}", copy.display());
        Ok(self
            .command("run")
            .arg("--json")
            .arg("--config")
            .arg(copy)
            .arg("--image-dir")
            .arg(self.path("images"))
            .args(["--name", NAME])
            .args(self.programs.hypervisor(Hypervisor::Qemu))
            .stdout(Stdio::piped())
            .spawn()?)
    }

    /// When QEMU runs.
    async fn qemu_started(&self) -> anyhow::Result<Instant> {
        let program = self.programs.qemu.as_os_str().as_encoded_bytes();
        let folder = self.folder.as_os_str().as_encoded_bytes();
        loop {
            for entry in fs::read_dir("/proc")?.flatten() {
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                if command.starts_with(program) && contains(&command, folder) {
                    return Ok(Instant::now());
                }
            }
            sleep(POLL).await;
        }
    }

    async fn attest(&self) -> anyhow::Result<(Vec<u8>, [u8; 32])> {
        let mut nonce = [0; 32];
        fill(&mut nonce).ok().context("no random bytes")?;
        let output = self
            .command("attest")
            .args(["--name", NAME, "--nonce", &hex::encode(nonce)])
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "parent-agent attest: {}",
            text(&output.stderr)
        );
        Ok((output.stdout, nonce))
    }
}

/// Checks what a document of QEMU's can be checked for: nobody signs them, so that
/// the nonce and the registers are looked for in it.
fn check(document: &[u8], nonce: &[u8], image: &Workload) -> anyhow::Result<()> {
    ensure!(contains(document, nonce), "the document has another nonce");
    let measurements = image.measurements;
    for pcr in [measurements.pcr0, measurements.pcr1, measurements.pcr2] {
        let value = hex::decode(pcr.to_string())?;
        ensure!(
            contains(document, &value),
            "the document is of another image"
        );
    }
    Ok(())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// How an enclave has booted.
struct Boot {
    /// When the agent said so.
    at: Instant,
    /// How long after the init's start that was.
    since_init: Duration,
    /// What the init's own steps took.
    own: Duration,
}

async fn ready(events: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<Boot> {
    let mut steps = BTreeMap::new();
    while let Some(line) = events.next_line().await? {
        let at = Instant::now();
        let event: Value = serde_json::from_str(&line)?;
        let micros = |field: &str| {
            let value = event.get(field).and_then(Value::as_u64);
            value.map(Duration::from_micros).context("no such field")
        };
        let text = |field: &str| event.get(field).and_then(Value::as_str);
        match text("event") {
            Some("step") => {
                let name = text("name").context("a step without a name")?.to_owned();
                steps.insert(name, micros("took_us")?);
            }
            Some("ready") => {
                return Ok(Boot {
                    at,
                    since_init: micros("at_us")?,
                    own: steps.values().sum(),
                });
            }
            _ => {}
        }
    }
    anyhow::bail!("the enclave has ended before it was ready")
}

/// S3, as far as the agent asks it for the image.
struct Store {
    endpoint: String,
    size: usize,
    /// When it was asked first.
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Store {
    async fn start(image: Bytes) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let asked = Arc::<Mutex<Option<Instant>>>::default();
        let (size, noted) = (image.len(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (image, asked) = (image.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                        asked.get_or_insert_with(Instant::now);
                        let answer = answer(&request, &image);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self {
            endpoint,
            size,
            asked,
        })
    }

    /// How long the whole image takes on one connection to somebody who throws it
    /// away.
    async fn transfer(&self) -> anyhow::Result<Duration> {
        let address = self.endpoint.trim_start_matches("http://");
        let start = Instant::now();
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /bucket/image.eif HTTP/1.1\r\nhost: s3\r\nconnection: close\r\n\r\n")
            .await?;
        let mut buffer = vec![0; 256 * 1024];
        let mut received = 0;
        loop {
            match stream.read(&mut buffer).await? {
                0 => break,
                count => received += count,
            }
        }
        ensure!(received > self.size, "the image did not come");
        Ok(start.elapsed())
    }

    fn forget(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// When the first request came.
    fn first_asked(&self) -> anyhow::Result<Instant> {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.context("nobody has asked for the image")
    }
}

fn answer(request: &Request<Incoming>, image: &Bytes) -> Response<Full<Bytes>> {
    let range = request.headers().get("range").and_then(|range| {
        let (first, last) = range
            .to_str()
            .ok()?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let first: usize = first.parse().ok()?;
        Some((
            first,
            last.parse().map_or(image.len(), |last: usize| last + 1),
        ))
    });
    let mut response = Response::builder().header("etag", "\"e\"");
    let body = match range {
        _ if request.method() == "HEAD" => {
            response = response.header("content-length", image.len());
            Bytes::new()
        }
        Some((start, end)) if start < end && end <= image.len() => {
            response = response.status(206);
            image.slice(start..end)
        }
        _ => image.clone(),
    };
    response.body(Full::new(body)).unwrap_or_default()
}
