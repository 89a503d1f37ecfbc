//! Measures the agent's proxy beside AWS's `vsock-proxy` (a stand-in, see
//! [`vsock_proxy`]) and `socat`: `cargo xtask bench proxy`.
//!
//! The same connections go through each of them, from a client over a Unix socket
//! or vsock to a server on TCP: what an enclave's egress is. Each proxy, the client
//! and the server are processes of their own. Over vsock it is done in a machine
//! under QEMU with the enclaves' kernel, which has a vsock loopback; that machine is
//! emulated, so only ratios mean something there.
//!
//! Times depend on the machine and on what else it does. Nothing here is a test:
//! the exit code says only whether everything could be measured.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command's output")]

mod compare;
mod endure;
mod guest;
mod load;
mod proxies;
mod target;
mod vsock_proxy;

use std::fmt::{Display, Write};
use std::future::Future;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use enclave_tests::Programs;
use link::Endpoint;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime;

use compare::{Comparison, HOST, Scale};
use proxies::Kind;

fn main() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] if guest::is_here() => block_on(guest::measure()),
        [] => block_on(async {
            host().await?;
            guest::run(&Programs::from_environment()?).await
        }),
        ["host"] => block_on(host()),
        ["guest"] => block_on(async { guest::run(&Programs::from_environment()?).await }),
        ["serve", kib, workers, endpoint, target] => proxies::serve(kib, workers, endpoint, target),
        ["target", address] => block_on(target::serve(address.parse()?, None)),
        ["target", address, direct] => {
            let direct = Some(direct.parse()?);
            block_on(target::serve(address.parse()?, direct))
        }
        _ => bail!("write `proxy-figures [host|guest]`"),
    }
}

/// One thread, as the agent has.
fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime?.block_on(future)
}

async fn host() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let target = Target::start()?;
    let endpoint = |name: &str| Endpoint::Unix {
        path: folder.path().join(name),
    };
    println!("Unix sockets to TCP, on this machine");
    let mut comparison = Comparison::default();
    for (number, kind) in HOST.into_iter().enumerate() {
        let endpoint = endpoint(&number.to_string());
        comparison.start(kind, endpoint, target.address).await?;
    }
    comparison.measure(&Scale::HOST).await?;
    drop(comparison);
    endure::measure(endpoint("ours"), target.address).await
}

/// The server behind the proxies; it ends with this.
struct Target {
    address: SocketAddr,
    child: Child,
}

impl Target {
    fn start() -> anyhow::Result<Self> {
        let address = load::free_address()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["target", &address.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the target")?;
        Ok(Self { address, child })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One figure of each proxy.
fn row<T: Display>(what: &str, values: &[(Kind, Option<T>)]) {
    let mut line = format!("{what:<44}");
    for (_, value) in values {
        let value = value.as_ref().map_or("-".to_owned(), ToString::to_string);
        let _ = write!(line, " {value:>12}");
    }
    println!("{line}");
}

/// The same without a proxy: what none can be better than.
fn bound(figure: &str) {
    println!("{:<44} {figure:>12}", "  with no proxy at all");
}

/// One figure, and whether it is what was promised.
fn verdict(what: &str, measured: impl Display, limit: impl Display, held: bool) {
    let verdict = if held { "ok" } else { "NOT HELD" };
    println!(
        "{what:<44} {:>12} {:>12}  {verdict}",
        measured.to_string(),
        limit.to_string()
    );
}
