//! What goes wrong while an image is fetched, beside what its server says: disks,
//! speed, and the agent's own end.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::agent::{LIMIT, output};
use crate::fake_aws::{FakeAws, Fault};
use crate::fake_registry::FakeRegistry;
use crate::fetching::{document, fetch, image, left};

/// The command in namespaces of its own, where the folder of images is a disk of
/// two MiB; then the same again where it has got larger.
fn on_a_small_disk(fetch: &Command, folder: &Path) -> Command {
    const SCRIPT: &str = r#"
mkdir -p "$IMAGES"
mount -t tmpfs -o size=2m none "$IMAGES"
"$@"
echo "code $?" >&2
stat -c "kept %s" "$IMAGES"/*.partial >&2
mount -o remount,size=16m "$IMAGES"
"$@"
"#;
    let fetch = fetch.as_std();
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .arg(fetch.get_program())
        .args(fetch.get_args())
        .envs(
            fetch
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("IMAGES", folder.join("images"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

fn lines(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{text}"))
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn fetch_says_that_a_disk_has_no_room_before_it_reads() {
    let aws = FakeAws::start().await;
    let bytes = image(5 << 20);
    aws.hold("bucket/a", bytes.clone());
    let folder = tempfile::tempdir().unwrap();
    for source in ["s3://bucket/a".to_owned(), aws.url("bucket/a")] {
        let fetch = fetch(
            folder.path(),
            &aws.environment(),
            &document(&source, &bytes),
        );
        let output = output(on_a_small_disk(&fetch, folder.path())).await;
        let text = lines(&output);
        assert!(output.status.success(), "{text}");
        assert_eq!(number(&text, "code"), 23, "{text}");
        let words = format!("needs {} bytes", bytes.len());
        assert!(
            text.contains(&words) && text.contains("enlarge the volume"),
            "{text}"
        );
        assert_eq!(number(&text, "kept"), 0, "{text}");
    }
}

#[tokio::test]
async fn fetch_onto_a_full_disk_goes_on_when_it_has_room() {
    let aws = FakeAws::start().await;
    let bytes = image(5 << 20);
    aws.hold("a", bytes.clone());
    // Neither the server nor the configuration says how large the image is.
    aws.state().hides_sizes = true;
    let mut document = document(&aws.url("a"), &bytes);
    document["enclaves"][0]["image"]["size"] = Value::Null;
    let folder = tempfile::tempdir().unwrap();
    let fetch = fetch(folder.path(), &aws.environment(), &document);
    let output = output(on_a_small_disk(&fetch, folder.path())).await;
    let text = lines(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(number(&text, "code"), 23, "{text}");
    assert!(text.contains("has room for"), "{text}");
    let kept = number(&text, "kept");
    assert!(kept > 0 && kept <= 2 << 20, "{text}");
    assert_eq!(aws.state().ranges, [kept]);
}

#[tokio::test]
async fn fetch_waits_for_a_slow_server() {
    let aws = FakeAws::start().await;
    let registry = FakeRegistry::start().await;
    let bytes = image(5 << 20);
    aws.hold("bucket/a", bytes.clone());
    registry.push("1", &bytes);
    registry.state().faults = [Fault::Slow].into();
    let folder = tempfile::tempdir().unwrap();
    for source in [
        "s3://bucket/a".to_owned(),
        aws.url("bucket/a"),
        registry.source(":1"),
    ] {
        aws.state().object_faults = [Fault::Slow, Fault::Slow].into();
        let fetch = fetch(
            folder.path(),
            &aws.environment(),
            &document(&source, &bytes),
        );
        let output = output(fetch).await;
        assert!(output.status.success(), "{}", lines(&output));
        assert_eq!(
            left(folder.path()),
            [("eif".to_owned(), bytes.len() as u64)]
        );
        std::fs::remove_dir_all(folder.path().join("images")).unwrap();
    }
}

/// Starts to fetch, kills the agent once something is there, and says how much
/// that was.
async fn killed_in_the_middle(mut fetch: Command, folder: &Path) -> u64 {
    let mut child = fetch.stderr(Stdio::null()).spawn().unwrap();
    let kept = async {
        loop {
            if let [(_, length @ 1..)] = left(folder)[..] {
                return length;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, kept).await.unwrap();
    child.start_kill().unwrap();
    let status = child.wait().await.unwrap();
    assert_eq!(status.signal(), Some(9));
    left(folder)[0].1
}

#[tokio::test]
async fn fetch_of_a_killed_agent_goes_on_from_what_it_has() {
    let bytes = image(9 << 20);
    let whole = [("eif".to_owned(), bytes.len() as u64)];
    for server in [Object::S3, Object::Http, Object::Registry] {
        let place = Place::new(server, &bytes).await;
        let folder = tempfile::tempdir().unwrap();
        let command = || {
            fetch(
                folder.path(),
                &place.aws.environment(),
                &document(&place.source, &bytes),
            )
        };
        // What comes stops in the middle, where the agent waits.
        place.stall();
        let kept = killed_in_the_middle(command(), folder.path()).await;
        assert!(kept < bytes.len() as u64, "{server:?}");
        place.aws.state().ranges.clear();
        place.aws.state().stalls_from = None;
        let output = output(command()).await;
        assert!(output.status.success(), "{}", lines(&output));
        assert_eq!(left(folder.path()), whole, "{server:?}");
        assert_eq!(place.first_range(), kept, "{server:?}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Object {
    S3,
    Http,
    Registry,
}

/// An image somewhere.
struct Place {
    server: Object,
    aws: FakeAws,
    registry: FakeRegistry,
    source: String,
}

impl Place {
    async fn new(server: Object, bytes: &Bytes) -> Self {
        let (aws, registry) = (FakeAws::start().await, FakeRegistry::start().await);
        aws.hold("bucket/a", bytes.clone());
        registry.push("1", bytes);
        let source = match server {
            Object::S3 => "s3://bucket/a".to_owned(),
            Object::Http => aws.url("bucket/a"),
            Object::Registry => registry.source(":1"),
        };
        Self {
            server,
            aws,
            registry,
            source,
        }
    }

    fn stall(&self) {
        match self.server {
            // One part comes whole, in which order the others are asked for is
            // not certain.
            Object::S3 => {
                self.aws.state().stalls_from = Some(4 << 20);
            }
            Object::Http => self.aws.state().object_faults = [Fault::Stalls].into(),
            Object::Registry => self.registry.state().faults = [Fault::Stalls].into(),
        }
    }

    /// The first byte that was asked for since.
    fn first_range(&self) -> u64 {
        if let Object::Registry = self.server {
            let range = self.registry.asked("/blobs/").pop().unwrap().range.unwrap();
            let start = range.strip_prefix("bytes=").unwrap().strip_suffix('-');
            return start.unwrap().parse().unwrap();
        }
        self.aws.state().ranges.iter().copied().min().unwrap()
    }
}
