//! `enclave.toml` as people write it, right and wrong.

use std::path::{Path, PathBuf};

use manifest::{
    Allowance, Compression, Confinement, Cpus, Health, HealthProbe, HealthSource, LogRelease, Logs,
    Manifest, ManifestError, MemoryMib, Pids, Profile, Redaction, RestartPolicy, RootSource,
    SelfCheck, WhenFull, WorkloadKind,
};

const COMPLETE: &str = r#"
[enclave]
name = "payments"
image = "oci:./payments"
cpus = 4
memory_mib = 2048

[workload]
kind = "daemon"
command = ["--fast"]
env = { RUST_LOG = "info" }
user = "1000:app"
working_directory = "/srv"
restart = { policy = "always", max = 3, backoff = "100ms..1m" }
health = { http = "http://127.0.0.1:8080/health", interval = "5s" }
stop_grace = "30s"
stop_signal = "SIGINT"
entrypoint = ["/app/server"]
aws_credentials = true

[network]
egress = ["kms.us-west-2.amazonaws.com:443", "*.example.com:443"]
ingress = [{ port = 8080, to = 80 }]

[logs]
release = "debug-only"
when_full = "block"
buffer = "8MiB"
compression = "zstd"
multiline = { start = '^\S' }
redact = [
  { pattern = 'key=\w+', with = "key=***" },
  { json_fields = ["password", "card.number"] },
]

[attestation]
self_check = "report"
root = "root.pem"
allow_debug = true
open_registers = [18, 17]

[[attestation.peers]]
name = "oracle"
policy = "oracle.toml"

[confinement]
profile = "container"
capabilities = ["CAP_IPC_LOCK"]
allow = ["io-uring", "ptrace"]
memory_mib = 1024
pids = 500
root_mib = 100
tmp_mib = 200
run_mib = 10
shm_mib = 64

[kms]
endpoint = "https://kms.us-west-2.amazonaws.com"
command = true
"#;

fn parse(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(text, Path::new("deploy/enclave.toml"))
}

#[test]
fn every_key_is_read() {
    let manifest = parse(COMPLETE).unwrap();
    assert_eq!(manifest.enclave.name.as_str(), "payments");
    assert_eq!(manifest.enclave.cpus.get(), 4);
    assert_eq!(manifest.enclave.memory_mib.get(), 2048);
    let workload = &manifest.workloads[0];
    assert_eq!(workload.kind, WorkloadKind::Daemon);
    assert_eq!(workload.entrypoint.as_deref().unwrap(), ["/app/server"]);
    assert_eq!(workload.command.as_deref().unwrap(), ["--fast"]);
    assert_eq!(workload.stop_signal.unwrap().to_string(), "SIGINT");
    assert_eq!(workload.env.get("RUST_LOG").unwrap(), "info");
    assert_eq!(workload.user.as_ref().unwrap().to_string(), "1000:app");
    assert_eq!(workload.working_directory.as_deref(), Some("/srv"));
    assert_eq!(workload.restart().policy, RestartPolicy::Always);
    assert_eq!(workload.restart().max, 3);
    let health = workload.health.as_ref().and_then(HealthSource::probe);
    let Health {
        probe, interval, ..
    } = health.unwrap();
    assert!(matches!(probe, HealthProbe::Http(url) if url.target() == "/health"));
    assert_eq!(interval.to_string(), "5s");
    assert_eq!(workload.stop_grace.to_string(), "30s");
    assert!(workload.aws_credentials);
    assert!(manifest.kms.as_ref().unwrap().command);
    assert!(manifest.network.allows("api.example.com", 443));
    assert_eq!(manifest.network.ingress[0].to.get(), 80);
    let logs = &manifest.logs;
    assert_eq!(logs.release, LogRelease::DebugOnly);
    assert_eq!(logs.when_full, WhenFull::Block);
    assert_eq!(logs.buffer.bytes(), 8 << 20);
    assert_eq!(logs.compression, Compression::Zstd);
    let start = &logs.multiline.as_ref().unwrap().start;
    assert!(start.is_match(b"java.lang.Error") && !start.is_match(b"  at x"));
    let [
        Redaction::Pattern { with, .. },
        Redaction::JsonFields(fields),
    ] = &logs.redact[..]
    else {
        panic!("{logs:?}");
    };
    assert_eq!((with.as_str(), fields.len()), ("key=***", 2));
    let attestation = &manifest.attestation;
    assert_eq!(attestation.self_check, SelfCheck::Report);
    assert_eq!(attestation.root, RootSource::File("deploy/root.pem".into()));
    assert!(attestation.allow_debug);
    assert_eq!(*attestation.open_registers, [17, 18]);
    assert_eq!(attestation.peers[0].policy, Path::new("deploy/oracle.toml"));
    let confinement = &manifest.confinement;
    assert_eq!(confinement.profile, Profile::Container);
    assert_eq!(confinement.capabilities[0].to_string(), "IPC_LOCK");
    assert_eq!(confinement.allow, [Allowance::IoUring, Allowance::Ptrace]);
    assert!(!confinement.read_only_root);
    assert_eq!(confinement.pids.map(Pids::get), Some(500));
    let sizes = [
        confinement.memory_mib,
        confinement.root_mib,
        confinement.tmp_mib,
        confinement.run_mib,
        confinement.shm_mib,
    ];
    let sizes = sizes.map(|size| size.unwrap().bytes() >> 20);
    assert_eq!(sizes, [1024, 100, 200, 10, 64]);
}

/// What the reference shows is right, and complete but for `[enclave]`.
#[test]
fn examples_of_the_reference_are_manifests() {
    let page = include_str!("../../../docs/enclave-toml.md");
    let examples = page.split("```toml\n").skip(1);
    // But for a policy, which is another file.
    let examples: Vec<_> = examples
        .filter(|example| !example.starts_with("[pcrs]"))
        .collect();
    assert!(examples.len() > 3);
    for example in examples {
        let (example, _) = example.split_once("```").unwrap();
        let enclave = "[enclave]\nname = \"a\"\nimage = \"oci:a\"\n";
        let whole = if example.contains("[enclave]") {
            example.to_owned()
        } else {
            format!("{enclave}{example}")
        };
        parse(&whole).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}

#[test]
fn confinement_is_tight_unless_the_file_says_otherwise() {
    let manifest = parse("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n").unwrap();
    let confinement = manifest.confinement;
    assert_eq!(confinement, Confinement::default());
    assert_eq!(confinement.profile, Profile::Default);
    assert!(confinement.capabilities_of(true).is_empty());
    assert!(confinement.allow.is_empty());
}

#[test]
fn confinement_that_is_wrong_is_named_with_its_line() {
    for (table, message) in [
        (
            "profile = \"none\"",
            "6: `none` is not a known profile: use `default`, ",
        ),
        (
            "capabilities = [\"CHOWN\",\n\"SYS_ADMIN\"]",
            "7: no workload may have the capability SYS_ADMIN: it mounts",
        ),
        (
            "capabilities = [\"CHOWN\",\n\"NET\"]",
            "7: `NET` is not a known capability: use one of CHOWN, ",
        ),
        (
            "capabilities = [\"CHOWN\",\n\"CAP_CHOWN\"]",
            "7: `CHOWN` is listed twice: remove one",
        ),
        (
            "allow = [\"vsock\"]",
            "6: `vsock` cannot be allowed: use io-uring, ",
        ),
        (
            "allow = [\"io-uring\",\n\"ptrace\",\n\"io-uring\"]",
            "8: `io-uring` is listed twice",
        ),
        (
            "allow = [\"io-uring\",\n\"bpf\"]",
            "7: `bpf` cannot be allowed: the enclave's kernel is built without it",
        ),
        (
            "allow = [\"keyring\"]",
            "6: `keyring` cannot be allowed: the enclave's kernel is built without it",
        ),
        (
            "read_only_root = 1",
            "6: `confinement.read_only_root` is a whole number where `true` or `false` is wanted: write as in `read_only_root = true`",
        ),
        (
            "capabilities = \"NET_RAW\"",
            "6: `confinement.capabilities` is a text where a list is wanted: write as in `capabilities = [\"IPC_LOCK\"]`",
        ),
        ("seccomp = false", "6: unknown field `seccomp`"),
        ("pids = 7", "6: 7 is not a number of processes"),
        ("tmp_mib = 0", "6: 0 is not a size"),
        (
            "\nmemory_mib = 256",
            "7: memory_mib of 256 MiB is not below the enclave's 256 MiB",
        ),
        ("shm_mib = 2000", "6: shm_mib of 2000 MiB is not below"),
    ] {
        let text = format!(
            "[enclave]\nname = \"a\"\nimage = \"oci:x\"\nmemory_mib = 256\n[confinement]\n{table}\n"
        );
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(&format!("toml:{message}")), "{error}");
    }
}

#[test]
fn services_of_aws_are_named() {
    let network = "[enclave]\nname = \"a\"\nimage = \"oci:x\"\n[network]\n";
    let text = format!("{network}aws_services = [\"kms\",\n\"s3\"]\naws_fips = true\n");
    let manifest = parse(&text).unwrap();
    assert!(manifest.network.aws_fips);
    assert!(
        manifest
            .network
            .allows("kms-fips.us-east-1.amazonaws.com", 443)
    );
    for (services, message) in [
        (
            "aws_services = [\"kms\",\n\"KMS\"]",
            "6: `KMS` is not a known service: use acm-pca, ",
        ),
        (
            "aws_services = [\"kms\",\n\"kms\"]",
            "6: the AWS service `kms` is listed twice: remove one",
        ),
        (
            "aws_services = \"kms\"",
            "5: `network.aws_services` is a text where a list is wanted",
        ),
        (
            "\naws_fips = true",
            "6: aws_fips applies to the hosts of aws_services",
        ),
    ] {
        let error = parse(&format!("{network}{services}\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn two_keys_are_enough() {
    let manifest = parse("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n").unwrap();
    assert_eq!(manifest.enclave.cpus, Cpus::DEFAULT);
    assert_eq!(manifest.enclave.memory_mib, MemoryMib::DEFAULT);
    assert_eq!(manifest.workloads[0].kind, WorkloadKind::Service);
    assert_eq!(
        manifest.workloads[0].restart().policy,
        RestartPolicy::OnFailure
    );
    assert!(!manifest.network.has_egress());
    assert!(manifest.network.ingress.is_empty());
    assert_eq!(manifest.logs, Logs::default());
    assert_eq!(manifest.logs.release, LogRelease::Always);
}

#[test]
fn a_batch_workload_is_not_restarted() {
    let manifest =
        parse("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n[workload]\nkind = \"batch\"\n")
            .unwrap();
    assert_eq!(manifest.workloads[0].restart().policy, RestartPolicy::Never);
}

#[test]
fn image_paths_start_at_the_manifests_folder() {
    for (text, expected) in [
        ("oci:payments", "deploy/payments"),
        ("rootfs:/srv/images", "/srv/images"),
        ("docker-archive:a.tar:app:1.2", "deploy/a.tar"),
    ] {
        let manifest = parse(&format!("[enclave]\nname = \"a\"\nimage = \"{text}\"\n")).unwrap();
        assert_eq!(manifest.enclave.image.path, Path::new(expected));
    }
}

/// Wrong manifests: a line of the complete one is replaced, and this is the
/// whole error.
const WRONG: &[(&str, &str, &str)] = &[
    ("name = \"payments\"", "", "2: missing field `name`"),
    (
        "name = \"payments\"",
        "name = \"Payments\"",
        "3: name `Payments` is not allowed: use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends",
    ),
    (
        "image = \"oci:./payments\"",
        "image = \"payments:latest\"",
        "4: image `payments:latest` is not understood: write `oci:FOLDER`, `oci-archive:FILE`, `docker-archive:FILE`, `rootfs:FOLDER` or `rootfs-archive:FILE`",
    ),
    (
        "image = \"oci:./payments\"",
        "image = \"oci:\"",
        "4: image `oci:` is not understood: write `oci:FOLDER`, `oci-archive:FILE`, `docker-archive:FILE`, `rootfs:FOLDER` or `rootfs-archive:FILE`",
    ),
    (
        "cpus = 4",
        "cpus = 0",
        "5: 0 is not a number of CPUs: write a whole number from 1 to 128",
    ),
    (
        "cpus = 4",
        "cpus = \"4\"",
        "5: `enclave.cpus` is a text where a whole number is wanted: write as in `cpus = 2`",
    ),
    (
        "cpus = 4",
        "cpu = 4",
        "5: unknown field `cpu`, expected one of `name`, `image`, `cpus`, `memory_mib`",
    ),
    (
        "memory_mib = 2048",
        "memory_mib = 32",
        "6: 32 is not a size of memory: write a whole number of MiB from 64 to 1048576",
    ),
    (
        "kind = \"daemon\"",
        "kind = \"cron\"",
        "9: unknown variant `cron`, expected one of `service`, `daemon`, `batch`",
    ),
    (
        "kind = \"daemon\"",
        "kind = \"batch\"",
        "14: a batch workload runs once: remove `restart`, or choose the kind `service` or `daemon`",
    ),
    (
        "entrypoint = [\"/app/server\"]",
        "entrypoint = \"/app/server\"",
        "18: `workload.entrypoint` is a text where a list is wanted: write as in `entrypoint = [\"/app/server\"]`",
    ),
    (
        "command = [\"--fast\"]",
        "command = [\"--fast\", \"\\u0000\"]",
        "10: an argument of the command contains a zero byte: remove it",
    ),
    (
        "env = { RUST_LOG = \"info\" }",
        "env = { \"A=B\" = \"info\" }",
        "11: `A=B` is not a name for an environment variable: it must not be empty or contain `=`",
    ),
    (
        "env = { RUST_LOG = \"info\" }",
        "env = { A = \"\\u0000\" }",
        "11: the value of an environment variable contains a zero byte: remove it",
    ),
    (
        "env = { RUST_LOG = \"info\" }",
        "env = { A = \"1\", A = \"2\" }",
        "11: duplicate key",
    ),
    (
        "user = \"1000:app\"",
        "user = \"a:b:c\"",
        "12: user `a:b:c` is not understood: write a name or number, with a group if need be, as in `app`, `1000` or `1000:1000`",
    ),
    (
        "working_directory = \"/srv\"",
        "working_directory = \"srv\"",
        "13: working_directory `srv` is not an absolute path: write one that begins with `/`",
    ),
    (
        "backoff = \"100ms..1m\"",
        "backoff = \"1m..1s\"",
        "14: `1m..1s` is not a back-off range: write the first and the longest delay, as in `1s..30s`",
    ),
    (
        "health = { http = \"http://127.0.0.1:8080/health\", interval = \"5s\" }",
        "health = { interval = \"5s\" }",
        "15: health needs one probe: write one of `http = \"http://127.0.0.1:PORT/PATH\"`, `tcp = PORT`, `command = [\"PROGRAM\", \"ARGUMENT\"]` and `notify = true`",
    ),
    (
        "http = \"http://127.0.0.1:8080/health\"",
        "http = \"https://example.com/\"",
        "15: `https://example.com/` cannot be probed: write a plain HTTP URL on the enclave's loopback address, as in `http://127.0.0.1:8080/health`",
    ),
    (
        "http = \"http://127.0.0.1:8080/health\"",
        "udp = 53",
        "15: unknown field `udp`, expected one of `http`, `tcp`, `command`, `notify`, `watchdog`, `disable`, `interval`, `timeout`, `failures`, `ready_within`, `on_unhealthy`",
    ),
    (
        "interval = \"5s\"",
        "interval = \"5\"",
        "15: `5` is not a length of time: write a whole number and a unit, as in `500ms`, `30s`, `5m` or `1h`",
    ),
    (
        "stop_grace = \"30s\"",
        "stop_grace = \"0s\"",
        "16: `0s` is out of range: a length of time is at least 1ms and at most 7 days (168h)",
    ),
    (
        "\"*.example.com:443\"]",
        "\n  \"*.example.com\"]",
        "23: `*.example.com` has no port: write `host:port`, as in `kms.us-west-2.amazonaws.com:443`",
    ),
    (
        "\"*.example.com:443\"]",
        "\n  \"a.com:1\",\n  \"A.com:1\"]",
        "24: the egress rule `a.com:1` is listed twice: remove one",
    ),
    (
        "ingress = [{ port = 8080, to = 80 }]",
        "ingress = [{ port = 8080, to = 80 },\n  { port = 8080, to = 81 }]",
        "24: the ingress port 8080 is listed twice: remove one, or give it another `port`",
    ),
    (
        "\"*.example.com:443\"]",
        "\n  \"198.18.0.1:7070\"]",
        "23: the egress rule `198.18.0.1:7070` is for an address of the enclave's own network (198.18.0.0/15, 169.254.170.2), so it leads nowhere outside: remove it",
    ),
    (
        "ingress = [{ port = 8080, to = 80 }]",
        "ingress = [{ port = 8080, to = 65536 }]",
        "23: `65536` is not a port: ports are whole numbers from 1 to 65535",
    ),
    (
        "ingress = [{ port = 8080, to = 80 }]",
        "ingress = [{ port = 8080 }]",
        "23: missing field `to`",
    ),
    (
        "release = \"debug-only\"",
        "release = \"sometimes\"",
        "26: unknown variant `sometimes`, expected one of `always`, `debug-only`, `never`",
    ),
    (
        "when_full = \"block\"",
        "when_full = \"drop\"",
        "27: unknown variant `drop`, expected `drop-oldest` or `block`",
    ),
    (
        "buffer = \"8MiB\"",
        "buffer = \"8MB\"",
        "28: `8MB` is not a size for the log buffer: write a whole number of MiB from 1 to 64, as in `4MiB`",
    ),
    (
        "compression = \"zstd\"",
        "compression = \"gzip\"",
        "29: unknown variant `gzip`, expected `none` or `zstd`",
    ),
    (
        "start = '^\\S'",
        "start = '^('",
        "30: `^(` is not a regular expression that can be used: unclosed group",
    ),
    (
        "pattern = 'key=\\w+'",
        "pattern = 'key=\\w++('",
        "32: `key=\\w++(` is not a regular expression that can be used: unclosed group",
    ),
    (
        "\"card.number\"",
        "\"card.\"",
        "33: `card.` does not name a JSON field: write its name, or the names on the way to it joined by dots, as in `card.number`, at most 256 bytes",
    ),
    (
        "{ json_fields = [\"password\", \"card.number\"] }",
        "{ fields = [\"password\"] }",
        "33: unknown field `fields`, expected one of `pattern`, `with`, `json_fields`",
    ),
    (
        "[logs]",
        "[log]",
        "25: unknown field `log`, expected one of `enclave`, `workload`, `network`, `logs`, `attestation`, `confinement`, `kms`, `secrets`, `keys`",
    ),
    (
        "self_check = \"report\"",
        "self_check = \"maybe\"",
        "37: unknown variant `maybe`, expected `required` or `report`",
    ),
    (
        "root = \"root.pem\"",
        "root = \"\"",
        "38: a file's name is empty: write `aws`, `aws-us-gov`, or the name of a PEM file beside the manifest",
    ),
    (
        "[18, 17]",
        "[18, 16]",
        "40: register 16 cannot be left open: write 17 to 31, because 0 to 15 are the platform's and 16 holds the runtime configuration",
    ),
    (
        "[18, 17]",
        "[18, 18]",
        "40: register 18 is named twice: name it once",
    ),
    (
        "policy = \"oracle.toml\"",
        "policy = \"oracle.toml\"\n[[attestation.peers]]\nname = \"oracle\"\npolicy = \"x\"",
        "45: the peer `oracle` is named twice: give each its own name",
    ),
];

#[test]
fn errors_name_file_line_and_fix() {
    for (right, wrong, expected) in WRONG {
        assert!(COMPLETE.contains(right), "{right}");
        let error = parse(&COMPLETE.replacen(right, wrong, 1))
            .expect_err(wrong)
            .to_string();
        assert_eq!(error, format!("deploy/enclave.toml:{expected}"), "{wrong}");
    }
}

#[test]
fn a_log_buffer_must_fit_into_the_memory_four_times() {
    let small = COMPLETE
        .replace("memory_mib = 2048", "memory_mib = 64")
        .replace("memory_mib = 1024", "memory_mib = 16")
        .replace("root_mib = 100", "root_mib = 16")
        .replace("tmp_mib = 200", "tmp_mib = 16")
        .replace("shm_mib = 64", "shm_mib = 16");
    parse(&small.replace("8MiB", "16MiB")).unwrap();
    let error = parse(&small.replace("8MiB", "17MiB")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "deploy/enclave.toml:28: a log buffer of 17MiB needs an enclave with 68 MiB of memory, this one has 64: lower `buffer` or raise `memory_mib`"
    );
}

#[test]
fn an_absent_table_is_named() {
    assert_eq!(
        parse("").unwrap_err().to_string(),
        "deploy/enclave.toml:1: missing field `enclave`"
    );
}

#[test]
fn lines_are_found_however_the_value_is_written() {
    let line = |text: &str, path: &[&str]| match parse(text).unwrap().invalid(path, "") {
        ManifestError::Invalid { line, .. } => line,
        other => panic!("{other}"),
    };
    let dotted = "# a comment with name = 1\nenclave.image = \"oci:x\"\nenclave.name = \"a\"\n";
    assert_eq!(line(dotted, &["enclave", "name"]), 3);
    assert_eq!(line(COMPLETE, &["workload", "command"]), 10);
    assert_eq!(line(COMPLETE, &["network", "egress", "1"]), 22);
    let short = "[enclave]\nname = \"a\"\nimage = \"oci:x\"\n\n[workload]\nkind = \"daemon\"\n";
    assert_eq!(line(short, &["workload", "command"]), 5);
    assert_eq!(line(short, &["network", "egress"]), 1);
}

#[test]
fn files_that_are_no_manifest_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str, bytes: &[u8]| {
        let file: PathBuf = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        Manifest::load(&file).unwrap_err().to_string()
    };
    assert!(
        load("binary", b"\xff\xfe")
            .ends_with("is not a text file in UTF-8: is this the right file?")
    );
    assert!(load("large", &vec![b'#'; 256 * 1024 + 1]).contains("more than the 262144 bytes"));
    let absent = Manifest::load(&folder.path().join("absent")).unwrap_err();
    assert!(
        absent
            .to_string()
            .ends_with("No such file or directory (os error 2)")
    );
    assert!(
        Manifest::load(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("more than")
    );
}

#[test]
fn workload_entrypoint_and_stop_signal_are_absent_unless_given() {
    let manifest = |more: &str| {
        let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:a\"\n[workload]\n{more}");
        parse(&text)
    };
    let workload = manifest("").unwrap().workloads[0].clone();
    assert_eq!((workload.entrypoint, workload.command), (None, None));
    assert_eq!(workload.stop_signal, None);
    let given = "entrypoint = []\ncommand = [\"\", \"b c\"]\nstop_signal = \"QUIT\"\n";
    let workload = manifest(given).unwrap().workloads[0].clone();
    assert_eq!(workload.entrypoint.as_deref(), Some([].as_slice()));
    assert_eq!(*workload.command.unwrap(), ["", "b c"]);
    assert_eq!(workload.stop_signal.unwrap().to_string(), "SIGQUIT");
    let error = manifest("stop_signal = \"BYE\"\n").unwrap_err().to_string();
    assert!(error.contains(":5: `BYE` is not a signal"), "{error}");
}
