//! Writes the corpora with the encoders of the crates themselves: run it when a
//! format has changed, from this folder: `cargo run --example seeds`. The files
//! of `cpio_read` and `eif_read` that other programs made are left alone.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use attestation::Document;
use attestation::software_nsm::{Identity, SoftwareNsm, TestRoot};
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eif::cpio::{Entry, Kind, Writer};
use eif::{Architecture, BuildMetadata, Measurements, Metadata, Pcr};
use fuzz::encode;
use link::control::{self, EndCause, ExitStatus, HealthState};
use link::frame::{MAX_CONTROL, MAX_LOGS, MAX_TARGET};
use link::logs::{self, LogStream, Record, Source};
use link::target::{Connect, Refusal, Reply};
use link::{Bytes, Text};
use serde_json::json;

fn main() {
    link_control();
    link_logs();
    log_lines();
    link_target();
    link_frames();
    write("link_hello", "opener", b"ENCL\0\x01\x01\0");
    write("link_hello", "newer", b"ENCL\0\x02\x02\0");
    write("link_hello", "http", b"GET / HTTP/1.1\r\n");
    manifests();
    configurations();
    requests();
    documents();
    policies();
    ramdisks();
    write("agent_image", "image", &image());
    layers();
    agent_configurations();
    registries();
    answers();
    hosts();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = PathBuf::from("corpus").join(target);
    fs::create_dir_all(&folder).expect("the corpus");
    fs::write(folder.join(name), bytes).expect("a seed");
}

fn agent_configurations() {
    let sha256 = "00112233445566778899aabbccddeeff".repeat(2);
    let complete = json!({ "region": "us-west-2", "enclaves": [{
        "name": "payments-1", "id": "payments-1",
        "image": { "source": "s3://bucket/images/a.eif", "sha256": sha256, "size": 52_428_800 },
        "cpus": 2, "memory_mib": 1024, "debug": false,
        "runtime_configuration": "{\"enclave_id\":\"payments-1\"}",
        "publish": ["0.0.0.0:8080:8080"], "aws_services": ["kms", "s3"],
        "log_group": "/aws/ec2/enclave/payments-1", "log_retention_days": 30,
        "gate": { "function": "gate", "interval": "30s" },
    }] });
    write("agent_config", "json", complete.to_string().as_bytes());
    let toml = toml::to_string(&complete).expect("a table");
    write("agent_config", "toml", toml.as_bytes());
    for (name, source) in [
        (
            "registry",
            format!("oci://localhost:5000/team/payments:1@sha256:{sha256}"),
        ),
        ("file", "file:/images/a.eif".to_owned()),
    ] {
        let document = json!({ "enclaves": [{ "name": "a", "image": { "source": source } }] });
        write("agent_config", name, document.to_string().as_bytes());
    }
    let web = format!(
        "[[enclaves]]\nname = 'a'\nimage = {{ source = 'https://example.com/a.eif', sha256 = '{sha256}' }}\n"
    );
    write("agent_config", "web", web.as_bytes());
}

fn registries() {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": parent_agent::registry::MEDIA_TYPE,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "data": "e30=" },
        "layers": [{
            "mediaType": parent_agent::registry::MEDIA_TYPE,
            "digest": format!("sha256:{}", "0a".repeat(32)),
            "size": 52_428_800,
            "annotations": { "org.opencontainers.image.title": "payments.eif" },
        }],
    });
    let docker = r#"{"auths":{"https://registry.example.com/v2/":{"auth":"bmFtZTpwdw=="},"docker.io":{"username":"a","password":"b"}},"credsStore":"desktop"}"#;
    let bearer = r#"Bearer realm="https://auth.example.com/token",service="a \"b\"", scope="repository:a/b:pull",error=x"#;
    for (name, seed) in [
        ("manifest", format!("m{manifest}")),
        (
            "index",
            "m{\"schemaVersion\":2,\"manifests\":[]}".to_owned(),
        ),
        ("bearer", format!("c{bearer}")),
        ("basic", "cBasic realm=\"here\"".to_owned()),
        ("docker", format!("d{docker}")),
        (
            "reference",
            "roci://registry.example.com:5000/team/payments:1.0".to_owned(),
        ),
        (
            "ecr",
            "roci://123456789012.dkr.ecr.us-west-2.amazonaws.com/a__b@sha256:00".to_owned(),
        ),
        ("local", "roci://[::1]:5000/a-b:_x".to_owned()),
    ] {
        write("agent_registry", name, seed.as_bytes());
    }
}

fn answers() {
    for (name, seed) in [
        (
            "s3",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>no &lt;key&gt; &#233;</Message></Error>",
        ),
        (
            "ec2",
            "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>m</Message></Error></Errors></Response>",
        ),
        (
            "instances",
            "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>i-1</instanceId><instanceState><name>running</name></instanceState><privateIpAddress>10.0.0.1</privateIpAddress><tagSet><item><key>k</key><value><![CDATA[v]]></value></item></tagSet></item></instancesSet></item></reservationSet><nextToken>t</nextToken></DescribeInstancesResponse>",
        ),
        (
            "json",
            r#"{"__type":"com.amazonaws.logs#ThrottlingException","message":"slower"}"#,
        ),
        ("ssm", r#"{"__type":"ParameterNotFound","Message":"none"}"#),
        (
            "lambda",
            "x-amzn-errortype: TooManyRequestsException:http://internal\n{\"Reason\":\"x\"}",
        ),
        (
            "function",
            r#"{"errorType":"Boom","errorMessage":"it broke\nhere"}"#,
        ),
    ] {
        write("aws_answer", name, seed.as_bytes());
    }
}

fn hosts() {
    for (name, host) in [
        ("kms", "kms.us-east-1.amazonaws.com"),
        ("fips", "sqs-fips.us-gov-west-1.api.aws"),
        ("bucket", "bucket.s3.dualstack.cn-north-1.amazonaws.com.cn"),
        (
            "endpoint",
            "vpce-1a-2b.api.ecr.us-east-1.vpce.amazonaws.com",
        ),
        ("registry", "1.dkr.ecr.eusc-de-east-1.amazonaws.eu"),
        ("iam", "iam.us-iso-east-1.c2s.ic.gov"),
        ("sts", "STS.amazonaws.com."),
    ] {
        write("aws_host", name, host.as_bytes());
    }
}

/// Messages of one side, each behind the byte that says which side it is.
fn messages<M: minicbor::Encode<()>>(target: &str, side: u8, limit: usize, all: &[(&str, M)]) {
    for (name, message) in all {
        let seed = [&[side], encode(message, limit).as_slice()].concat();
        write(target, name, &seed);
    }
}

fn bytes<const MAX: usize>(bytes: &[u8]) -> Bytes<MAX> {
    Bytes::new(bytes).expect("a short string")
}

fn link_control() {
    use control::{FromAgent, FromInit};
    let status = ExitStatus::Code(1);
    let from_init = [
        (
            "boot",
            FromInit::Boot {
                boot: bytes(&[7; 16]),
                version: Text::new("0.1.0"),
            },
        ),
        (
            "step",
            FromInit::Step {
                name: Text::new("mounts"),
                at_us: 70_000,
                took_us: 1,
            },
        ),
        ("ready", FromInit::Ready { at_us: 1 << 40 }),
        (
            "health",
            FromInit::Health {
                state: HealthState::Unhealthy,
                detail: Text::new("HTTP 500"),
            },
        ),
        (
            "document",
            FromInit::Document {
                id: 1,
                document: bytes(&[0x84; 24]),
            },
        ),
        (
            "challenge-failed",
            FromInit::ChallengeFailed {
                id: 2,
                reason: Text::new("no NSM"),
            },
        ),
        (
            "workload-exited",
            FromInit::WorkloadExited {
                status,
                restart_in_ms: Some(1000),
            },
        ),
        (
            "ending",
            FromInit::Ending {
                cause: EndCause::WorkloadExited(status),
                detail: Text::new("it ended"),
            },
        ),
    ];
    messages("link_control", 0, MAX_CONTROL, &from_init);
    let from_agent = [
        (
            "start",
            FromAgent::Start {
                runtime_config: bytes(b"{}"),
            },
        ),
        (
            "challenge",
            FromAgent::Challenge {
                id: 3,
                nonce: Some(bytes(b"nonce")),
                user_data: None,
                public_key: Some(bytes(b"key")),
            },
        ),
        (
            "shutdown",
            FromAgent::Shutdown {
                grace_ms: Some(10_000),
            },
        ),
    ];
    messages("link_control", 1, MAX_CONTROL, &from_agent);
}

fn link_logs() {
    use logs::{FromAgent, FromInit};
    let record = |sequence, source, data| Record {
        stream: LogStream::Application,
        sequence,
        time_us: 1_760_000_000_000_000,
        source,
        continues: false,
        data,
    };
    let boot = bytes(&[7; 16]);
    let records = vec![
        record(1, Source::Stdout, b"one"),
        record(300, Source::Stderr, b"\xff"),
    ];
    let mut compressor = logs::Compressor::new().expect("memory");
    let compressed = compressor.compress(records.clone()).expect("a small batch");
    let from_init = [
        ("open", FromInit::Open { boot }),
        ("compressed", compressed),
        ("batch", FromInit::Batch { records }),
    ];
    messages("link_logs", 0, MAX_LOGS, &from_init);
    let last = LogStream::ALL.map(|stream| (stream, 70_000)).to_vec();
    messages(
        "link_logs",
        1,
        MAX_LOGS,
        &[("stored", FromAgent::Stored { last })],
    );
}

/// Output of a workload, behind the seed of its cuts and the configuration.
fn log_lines() {
    let trace = "Error: s:SECRET\n  at a\n  at b\nnext\n";
    let json = "{\"p\":\"s:A\",\"q\":[{\"r\":{\"x\":1}}],\"\\u0070\":\"s:B\"}\n{\"p\":\"s:C\n";
    for (name, text) in [("trace", trace), ("json", json)] {
        for kind in 0..4 {
            let seed = [&[7, kind], text.as_bytes()].concat();
            write("init_log_lines", &format!("{name}-{kind}"), &seed);
        }
    }
}

fn connect() -> Connect {
    Connect {
        host: Text::new("kms.example"),
        port: 443,
    }
}

fn link_target() {
    messages("link_target", 0, MAX_TARGET, &[("connect", connect())]);
    let refused = Reply::Refused {
        refusal: Refusal::Busy,
        reason: Text::new("too many"),
    };
    let replies = [("connected", Reply::Connected), ("refused", refused)];
    messages("link_target", 1, MAX_TARGET, &replies);
}

fn link_frames() {
    let mut stream = vec![1, 2];
    for text in ["", "one", &"x".repeat(150)] {
        let body = encode(&Text::<200>::new(text), MAX_TARGET);
        stream.extend((body.len() as u32).to_be_bytes());
        stream.extend(body);
    }
    write("link_frames", "three", &stream);
    stream.extend(301_u32.to_be_bytes());
    write("link_frames", "too-large", &stream);
}

fn manifests() {
    let minimal = "[enclave]\nname = \"a\"\nimage = \"oci:./a\"\n";
    write("manifest_toml", "minimal", minimal.as_bytes());
    let complete = r#"
[enclave]
name = "payments"
image = "docker-archive:./payments.tar:1.2"
cpus = 4
memory_mib = 2048

[workload]
kind = "daemon"
command = ["/app/server", "--fast"]
env = { RUST_LOG = "info" }
user = "1000:app"
working_directory = "/srv"
restart = { policy = "always", max = 3, backoff = "100ms..1m" }
health = { http = "http://127.0.0.1:8080/health", interval = "5s" }
stop_grace = "30s"

[network]
egress = ["kms.us-west-2.amazonaws.com:443", "*.example.com:443", "10.0.0.1:80"]
ingress = [{ port = 8080, to = 80 }]

[logs]
release = "debug-only"
when_full = "block"
buffer = "8MiB"
compression = "zstd"
multiline = { start = '^\S' }
redact = [{ pattern = 'key=\w+', with = "?" }, { json_fields = ["a", "b.c"] }]
"#;
    write("manifest_toml", "complete", complete.as_bytes());
    let health = complete.replace(
        "http = \"http://127.0.0.1:8080/health\"",
        "exec = [\"/check\"]",
    );
    write("manifest_toml", "health", health.as_bytes());
}

fn host() -> serde_json::Value {
    json!({
        "schema": 1,
        "name": "payments",
        "cpus": 2,
        "memory_mib": 64,
        "ingress": [{"port": 8080, "to": 80}],
        "egress": ["*.example.com:443"]
    })
}

fn configurations() {
    let measured = json!({
        "schema": 1,
        "name": "payments",
        "workload": {
            "kind": "service",
            "command": ["/app/server"],
            "env": {"RUST_LOG": "info"},
            "working_directory": "/srv",
            "user": {"uid": 1000, "gid": 1000},
            "restart": {"policy": "on-failure", "max": 5, "backoff": "1s..30s"},
            "health": {"tcp": 8080, "interval": "30s"},
            "stop_grace": "10s"
        },
        "network": {
            "egress": ["*.example.com:443"],
            "ingress": [{"port": 8080, "to": 80}]
        },
        "logs": {
            "release": "always",
            "when_full": "drop-oldest",
            "buffer": "4MiB",
            "compression": "none",
            "multiline": {"start": "^[^ ]"},
            "redact": [{"pattern": "key=[a-z]+", "with": "?"}, {"json_fields": ["a", "b.c"]}]
        }
    });
    write(
        "manifest_config",
        "measured.json",
        measured.to_string().as_bytes(),
    );
    write(
        "manifest_config",
        "host.json",
        host().to_string().as_bytes(),
    );
}

fn requests() {
    let attestation = Request::Attestation {
        user_data: Some(b"data".to_vec().into()),
        nonce: Some(b"nonce".to_vec().into()),
        public_key: None,
    };
    for (name, request) in [
        ("describe-pcr", Request::DescribePCR { index: 0 }),
        (
            "extend-pcr",
            Request::ExtendPCR {
                index: 16,
                data: b"data".to_vec(),
            },
        ),
        ("lock-pcr", Request::LockPCR { index: 31 }),
        ("lock-pcrs", Request::LockPCRs { range: 17 }),
        ("describe", Request::DescribeNSM),
        ("attestation", attestation),
        ("random", Request::GetRandom),
    ] {
        let mut bytes = Vec::new();
        ciborium::into_writer(&request, &mut bytes).expect("a request");
        write("nsm_request", name, &bytes);
    }
}

/// A document under a root of its own, and some that AWS signed.
fn documents() {
    let root = TestRoot::generate().expect("a root");
    fs::write("test-root.pem", root.certificate_pem()).expect("the root's certificate");
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements: Some(Measurements {
            pcr0: Pcr::new([1; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([3; 48]),
            pcr8: None,
        }),
    };
    let mut module = SoftwareNsm::new(identity, root).expect("a module");
    let answer = module.answer(Request::Attestation {
        user_data: Some(b"data".to_vec().into()),
        nonce: Some(b"nonce".to_vec().into()),
        public_key: Some(b"key".to_vec().into()),
    });
    let Response::Attestation { document } = answer else {
        panic!("{answer:?}");
    };
    write("attestation_document", "test-root", &document);
    chain("test-root", 0, &document);
    bodies(&document);
    let vectors = Path::new("../attestation/tests/vectors");
    for name in ["46591b92f9abefaa.cbor", "a72552688ab6de06.cbor"] {
        let document = fs::read(vectors.join(name)).expect("a vector");
        write("attestation_document", name, &document);
        chain(name, 1, &document);
    }
}

/// The chain of a document, for the root of this number, at the document's time.
fn chain(name: &str, root: u8, document: &[u8]) {
    let document = Document::parse(document).expect("a document");
    let mut seed = vec![root];
    seed.extend(document.unverified_timestamp_ms().to_be_bytes());
    for der in document.unverified_certificates().skip(1) {
        let length = u16::try_from(der.len()).expect("a certificate");
        seed.extend(length.to_be_bytes());
        seed.extend(der);
    }
    write("attestation_chain", name, &seed);
}

fn policies() {
    let pcr = |byte: u8| hex::encode([byte; 48]);
    let toml = format!(
        r#"nonce = "required"
max_age = "90s"
clock_skew = "1m"
module_id = "i-0123456789abcdef0-enc*"
user_data = {{ sha256_of = "a1b2" }}
public_key = {{ prefix = "3076" }}
allow_debug = true

[[images]]
name = "payments 1.5"
[images.Measurements]
HashAlgorithm = "Sha384 {{ ... }}"
PCR0 = "{0}"
PCR1 = "{0}"
PCR2 = "{0}"
PCR8 = "{0}"

[pcrs]
3 = "{0}"
16 = ["{0}", "{1}"]
"#,
        pcr(1),
        pcr(2),
    );
    write("attestation_policy", "complete.toml", toml.as_bytes());
    let json: serde_json::Value = toml::from_str(&toml).expect("TOML");
    write(
        "attestation_policy",
        "complete.json",
        json.to_string().as_bytes(),
    );
    let tpm = "profile = \"nitro-tpm\"\nnonce = \"00ff\"\n[pcrs]\n0 = []\n";
    write("attestation_policy", "tpm.toml", tpm.as_bytes());
    let any = "allow_any_image = true\nuser_data = { equal = \"\" }\n";
    write("attestation_policy", "any.toml", any.as_bytes());
}

/// What clients send to the verification service.
fn bodies(document: &[u8]) {
    let document = STANDARD.encode(document);
    let hash = "00".repeat(48);
    let inline = json!({
        "images": [{ "name": "a", "Measurements": { "PCR0": hash, "PCR1": hash, "PCR2": hash } }],
        "pcrs": { "3": hash, "16": [hash, hash] },
        "nonce": "required",
        "user_data": { "sha256_of": "00ff" },
        "public_key": { "prefix": "3076" },
        "module_id": "i-*",
        "max_age": "5m",
        "clock_skew": "1m",
    });
    for (name, body) in [
        ("challenge", json!({ "policy": "payments" })),
        (
            "named",
            json!({ "document": document, "policy": "payments", "challenge": "00ff" }),
        ),
        (
            "own-nonce",
            json!({ "document": "", "policy": "a", "nonce": "00ff", "ear": false }),
        ),
        (
            "inline",
            json!({ "document": "", "policy": inline, "nonce": "00" }),
        ),
    ] {
        write(
            "attestation_service_body",
            name,
            body.to_string().as_bytes(),
        );
    }
    write("attestation_service_body", "empty", b"");
}

fn entry(name: &str, kind: Kind, inode: u32, links: u32, size: usize) -> Entry {
    let permissions = if kind == Kind::Directory {
        0o755
    } else {
        0o644
    };
    let size = u32::try_from(size).expect("a short file");
    Entry {
        inode,
        links,
        ..Entry::new(name, kind, permissions, size)
    }
}

fn archive(entries: &[(&str, Kind, u32, u32, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, kind, inode, links, contents) in entries {
        let entry = entry(name, *kind, *inode, *links, contents.len());
        writer.append(&entry, *contents).expect("an entry");
    }
    writer.finish().expect("an archive")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("memory");
    gzip.finish().expect("memory")
}

fn tree() -> Vec<u8> {
    archive(&[
        ("bin", Kind::Directory, 1, 2, b""),
        ("bin/sh", Kind::File, 2, 1, b"shell"),
        ("bin/bash", Kind::Symlink, 3, 1, b"sh"),
        ("console", Kind::CharDevice, 4, 1, b""),
    ])
}

fn ramdisks() {
    write("agent_ramdisk", "tree", &tree());
    write("agent_ramdisk", "tree.gz", &gzip(&tree()));
    let links = archive(&[
        ("a", Kind::File, 7, 2, b""),
        ("b", Kind::File, 7, 2, b"abc"),
        ("c", Kind::Symlink, 8, 1, b"../victim"),
        ("d", Kind::Symlink, 9, 1, b"../outside"),
        ("d", Kind::Directory, 10, 1, b""),
        ("d/e", Kind::File, 11, 1, b"x"),
    ]);
    write("agent_ramdisk", "links", &links);
    write("cpio_read", "links", &links);
}

/// A whole image, as the agent opens them.
fn image() -> Vec<u8> {
    let metadata = Metadata {
        image_name: "fuzz".to_owned(),
        image_version: "1".to_owned(),
        build_metadata: BuildMetadata {
            build_time: "1970-01-01T00:00:00Z".to_owned(),
            build_tool: "seeds".to_owned(),
            build_tool_version: "1".to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version: "6.12".to_owned(),
        },
        docker_info: json!({}).into(),
        custom_metadata: json!({ manifest::HOST_CONFIG_KEY: host() }).into(),
    };
    let (boot, application) = (gzip(&tree()), tree());
    let mut file = Cursor::new(Vec::new());
    eif::write(
        eif::Image {
            architecture: Architecture::X86_64,
            default_memory: 1 << 26,
            default_cpus: 2,
            kernel: &mut b"kernel".as_slice(),
            command_line: "reboot=k",
            metadata: &metadata,
            ramdisks: vec![&mut boot.as_slice(), &mut application.as_slice()],
            signer: None,
        },
        &mut file,
    )
    .expect("an image");
    file.into_inner()
}

fn layers() {
    let layer = |entries: &[(&str, tar::EntryType, &str, &[u8])]| {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind, link, contents) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(1);
            header.set_size(contents.len() as u64);
            if !link.is_empty() {
                header.set_link_name(link).expect("a short target");
            }
            archive
                .append_data(&mut header, name, *contents)
                .expect("an entry");
        }
        archive.into_inner().expect("an archive")
    };
    use tar::EntryType;
    let tree = layer(&[
        ("etc", EntryType::Directory, "", b""),
        ("etc/passwd", EntryType::Regular, "", b"root:x:0:0::/:\n"),
        ("etc/link", EntryType::Symlink, "passwd", b""),
        ("etc/same", EntryType::Link, "etc/passwd", b""),
    ]);
    write("image_builder_layer", "tree.tar", &tree);
    let whiteouts = layer(&[
        (".wh.app", EntryType::Regular, "", b""),
        ("app", EntryType::Regular, "", b"#!/app"),
        ("srv", EntryType::Directory, "", b""),
        ("srv/.wh..wh..opq", EntryType::Regular, "", b""),
    ]);
    write("image_builder_layer", "whiteouts.tar", &whiteouts);
    let long = "d/".repeat(60);
    write(
        "image_builder_layer",
        "long-name.tar",
        &layer(&[(&format!("{long}x"), EntryType::Regular, "", b"x")]),
    );
}
