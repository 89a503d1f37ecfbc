//! What configures an enclave, and what its workload writes.

use serde_json::json;

use crate::write;

/// What a family's seed is known by.
const FINGERPRINT: &str = "e9903d08a8b5bf5439229e7432653e04";

pub(crate) fn write_all() {
    manifests();
    configurations();
    log_lines();
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
entrypoint = ["/app/server"]
command = ["--fast"]
env = { RUST_LOG = "info" }
user = "1000:app"
working_directory = "/srv"
restart = { policy = "always", max = 3, backoff = "100ms..1m" }
health = { http = "http://127.0.0.1:8080/health", interval = "5s" }
stop_signal = "SIGRTMIN+3"
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
    let siblings = format!(
        r#"{minimal}
[keys]
family = "payments"
siblings = {{ signer = "signer.pem", role = "arn:aws:iam::111122223333:role/payments", generation = 2, fingerprint = "{FINGERPRINT}", wait = "30m" }}
"#
    );
    write("manifest_toml", "siblings", siblings.as_bytes());
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
            "groups": [27, 50],
            "restart": {"policy": "on-failure", "max": 5, "backoff": "1s..30s"},
            "health": {"tcp": 8080, "interval": "30s"},
            "stop_signal": "SIGQUIT",
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
    let mut siblings = measured;
    siblings["keys"] = json!({
        "family": "payments",
        "siblings": {
            "signer": "01".repeat(48),
            "role": "arn:aws:iam::111122223333:role/payments",
            "generation": 2,
            "fingerprint": FINGERPRINT,
            "wait": "30m"
        }
    });
    write(
        "manifest_config",
        "siblings.json",
        siblings.to_string().as_bytes(),
    );
    write(
        "manifest_config",
        "host.json",
        host().to_string().as_bytes(),
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

pub(crate) fn host() -> serde_json::Value {
    json!({
        "schema": 1,
        "name": "payments",
        "cpus": 2,
        "memory_mib": 64,
        "ingress": [{"port": 8080, "to": 80}],
        "egress": ["*.example.com:443"]
    })
}
