//! Which type each value of `enclave.toml` has. An example of every key says it, and is
//! what an error tells people to write instead.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every key with a value of its type. It is no manifest: some keys exclude each other.
const EXAMPLE: &str = r#"
[enclave]
name = "payments"
image = "oci:./payments"
cpus = 2
memory_mib = 1024

[workload]
name = "web"
after = ["database"]
essential = false
limits = { memory_mib = 256, pids = 100, cpu_weight = 50 }
kind = "service"
entrypoint = ["/app/server"]
command = ["--fast"]
init = true
env = { RUST_LOG = "info" }
user = "1000:1000"
working_directory = "/app"
restart = { policy = "on-failure", max = 5, backoff = "1s..30s" }
health = { http = "http://127.0.0.1:8080/health", tcp = 8080, command = ["/app/check"], notify = true, watchdog = "30s", disable = true, interval = "30s", timeout = "5s", failures = 3, ready_within = "10m", on_unhealthy = "report" }
stop_signal = "SIGQUIT"
stop_grace = "10s"
aws_credentials = true

[network]
egress = ["api.example.com:443"]
ingress = [{ port = 443, to = 8443, proxy_protocol = true }]
aws_services = ["kms"]
aws_fips = true
proxy = true

[logs]
release = "always"
when_full = "drop-oldest"
buffer = "4MiB"
compression = "none"
multiline = { start = '^\S' }
redact = [{ pattern = "key=[a-z]+", with = "key=***" }, { json_fields = ["password"] }]

[attestation]
self_check = "required"
root = "aws"
allow_debug = true
open_registers = [17]
peers = [{ name = "oracle", policy = "oracle.toml" }]

[confinement]
profile = "default"
capabilities = ["IPC_LOCK"]
allow = ["io-uring"]
read_only_root = true
memory_mib = 512
pids = 1000
root_mib = 64
tmp_mib = 64
run_mib = 16
shm_mib = 64

[kms]
endpoint = "https://kms.eu-west-1.amazonaws.com"
region = "eu-west-1"
roots = "kms-roots.pem"
command = true
[[secrets]]
name = "database-password"
kms = { ciphertext = "AQICAHhrZXk=", file = "password.kms", ssm = "/app/password", secretsmanager = "app/password", s3 = "s3://bucket/password" }
sealed = { sender = "operator.pem" }
wait = "10m"
encryption_context = { app = "payments" }
key_id = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
file = "/run/secrets/database-password"
env = "DATABASE_PASSWORD"
api = true
mode = "0400"
refresh = "10m"
on_change = { signal = "SIGHUP", command = ["/app/reload"], workload = "web" }
on_failure = "stop"

[keys]
family = "payments"
kms = { key_id = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", ssm = "/payments/seed" }
siblings = { signer = "signer.pem", role = "arn:aws:iam::111122223333:role/payments", generation = 1, fingerprint = "e9903d08a8b5bf5439229e7432653e04", wait = "10m" }
"#;

/// Whether the keys of a table are the reader's own.
fn has_any_key(path: &str) -> bool {
    path == "workload.env"
        || (path.starts_with("workload[") && path.ends_with("].env"))
        || path.ends_with("].encryption_context")
}

/// A value of another type than its key has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Where the value begins.
    pub(crate) offset: usize,
    /// What it is, what is wanted, and an example.
    pub(crate) message: String,
}

/// Holds every value against its key's type. Keys that are not known, and ranges and
/// words, are for others to check.
pub(crate) fn check(document: &DeTable<'_>) -> Result<(), Mismatch> {
    // It is parsed by the tests, too.
    let Ok(example) = DeTable::parse(EXAMPLE) else {
        return Ok(());
    };
    check_table(document, &[example.get_ref()], "")
}

/// Holds a table against those of the example, which have different keys in a list.
fn check_table(
    table: &DeTable<'_>,
    examples: &[&DeTable<'_>],
    parent: &str,
) -> Result<(), Mismatch> {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let mut entries = examples.iter().flat_map(|example| example.iter());
        let found =
            entries.find(|(known, _)| known.get_ref().as_ref() == name || has_any_key(parent));
        let Some((known, example)) = found else {
            continue;
        };
        let path = match parent {
            "" => name.to_owned(),
            _ => format!("{parent}.{name}"),
        };
        let written = EXAMPLE.get(known.span().start..example.span().end);
        let entry = Entry {
            path: &path,
            written: written.filter(|_| !parent.is_empty()),
        };
        check_value(
            value.get_ref(),
            value.span().start,
            example.get_ref(),
            &entry,
        )?;
    }
    Ok(())
}

/// A key of the document, and how the example has it.
struct Entry<'a> {
    path: &'a str,
    /// Without it the value is one of the file's sections.
    written: Option<&'a str>,
}

fn check_value(
    value: &DeValue<'_>,
    offset: usize,
    example: &DeValue<'_>,
    entry: &Entry<'_>,
) -> Result<(), Mismatch> {
    let Entry { path, written } = entry;
    if let ("workload", DeValue::Array(tables), DeValue::Table(example)) = (*path, value, example)
        && !tables.is_empty()
        && tables.iter().all(|table| table.get_ref().is_table())
    {
        return check_each(tables, example, path);
    }
    let (is, wanted) = (kind(value), kind(example));
    if is != wanted {
        let instead = if let Some(written) = written {
            format!("as in `{written}`")
        } else {
            let name = path.split('[').next().unwrap_or(path);
            let is_list = name != *path || matches!(example, DeValue::Array(_));
            let header = if is_list {
                format!("[[{name}]]")
            } else {
                format!("[{name}]")
            };
            format!("`{header}` on a line of its own, and its keys below it")
        };
        return Err(Mismatch {
            offset,
            message: format!("`{path}` is {is} where {wanted} is wanted: write {instead}"),
        });
    }
    match (value, example) {
        (DeValue::Table(table), DeValue::Table(example)) => check_table(table, &[example], path),
        (DeValue::Array(elements), DeValue::Array(examples)) => {
            let tables: Vec<_> = examples
                .iter()
                .filter_map(|example| example.get_ref().as_table())
                .collect();
            let Some(first) = examples.first() else {
                return Ok(());
            };
            for (index, element) in elements.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let entry = Entry {
                    path: &path,
                    written: *written,
                };
                match element.get_ref() {
                    DeValue::Table(table) if !tables.is_empty() => {
                        check_table(table, &tables, &path)?;
                    }
                    value => check_value(value, element.span().start, first.get_ref(), &entry)?,
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Several tables where one may stand, too.
fn check_each(
    tables: &[Spanned<DeValue<'_>>],
    example: &DeTable<'_>,
    path: &str,
) -> Result<(), Mismatch> {
    let mut tables = tables.iter().enumerate();
    tables.try_for_each(|(index, table)| match table.get_ref() {
        DeValue::Table(table) => check_table(table, &[example], &format!("{path}[{index}]")),
        _ => Ok(()),
    })
}

const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use toml::{Table, Value};

    use super::*;
    use crate::Manifest;

    /// A step from a value to one inside.
    #[derive(Debug, Clone, PartialEq)]
    enum Step {
        Key(String),
        Element(usize),
    }

    fn values(value: &Value, path: &[Step], found: &mut Vec<(Vec<Step>, Value)>) {
        let mut inside = |step, value: &Value| {
            let path = [path, &[step]].concat();
            found.push((path.clone(), value.clone()));
            values(value, &path, found);
        };
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    inside(Step::Key(key.clone()), value);
                }
            }
            Value::Array(elements) => {
                for (index, value) in elements.iter().enumerate() {
                    inside(Step::Element(index), value);
                }
            }
            _ => {}
        }
    }

    fn at<'v>(mut value: &'v mut Value, path: &[Step]) -> &'v mut Value {
        for step in path {
            value = match step {
                Step::Key(key) => value.get_mut(key).unwrap(),
                Step::Element(index) => value.get_mut(*index).unwrap(),
            };
        }
        value
    }

    fn shown(path: &[Step]) -> String {
        let steps = path.iter().map(|step| match step {
            Step::Key(key) => format!(".{key}"),
            Step::Element(index) => format!("[{index}]"),
        });
        let shown: String = steps.collect();
        shown.trim_start_matches('.').to_owned()
    }

    fn error(document: &Value) -> String {
        let text = toml::to_string(document).unwrap();
        let error = Manifest::parse(&text, Path::new("enclave.toml")).unwrap_err();
        error.to_string()
    }

    #[test]
    fn wrong_types_of_every_key_say_what_to_write_instead() {
        let example = Value::Table(EXAMPLE.parse().unwrap());
        let wrong = "
            v = ['text', 17, 1.5, true, 2024-01-31T12:00:00Z, ['x'], { x = 1 }, [], {}]";
        let wrong: Table = wrong.parse().unwrap();
        let wrong = wrong["v"].as_array().unwrap();
        let mut found = Vec::new();
        values(&example, &[], &mut found);
        assert!(found.len() > 60, "{}", found.len());
        let mut tried = 0;
        for (path, right) in &found {
            for wrong in wrong.iter().filter(|wrong| !wrong.same_type(right)) {
                let mut document = example.clone();
                *at(&mut document, path) = wrong.clone();
                let error = error(&document);
                let path = shown(path);
                assert!(
                    error.contains(&format!(": `{path}` is ")),
                    "{path}: {error}"
                );
                assert!(error.contains(" is wanted: write "), "{path}: {error}");
                for jargon in ["invalid type", "struct ", "sequence", "expected"] {
                    assert!(!error.contains(jargon), "{path}: {error}");
                }
                tried += 1;
            }
        }
        assert!(tried > 400, "{tried}");
    }

    #[test]
    fn wrong_types_are_held_against_an_example_of_every_key() {
        let example = Value::Table(EXAMPLE.parse().unwrap());
        let mut found = vec![(Vec::new(), example.clone())];
        values(&example, &[], &mut found);
        // What excludes another key is said before what follows it is read.
        let mut base = example.clone();
        let health = base["workload"]["health"].as_table_mut().unwrap();
        for other in ["tcp", "command", "notify", "watchdog", "disable"] {
            health.remove(other);
        }
        let secret = base["secrets"][0].as_table_mut().unwrap();
        let on_change = secret["on_change"].as_table_mut().unwrap();
        on_change.remove("command");
        let mut keys_of_lists = BTreeSet::new();
        for (path, value) in &found {
            let Value::Table(table) = value else { continue };
            if has_any_key(&shown(path)) {
                continue;
            }
            // What the parser says that a table may have.
            let mut document = base.clone();
            if !shown(path).starts_with("keys.siblings") {
                document["keys"].as_table_mut().unwrap().remove("siblings");
            }
            let Value::Table(inner) = at(&mut document, path) else {
                continue;
            };
            inner.clear();
            inner.insert("unknown-key".to_owned(), Value::Integer(1));
            let error = error(&document);
            let (_, listed) = error.split_once("unknown field `unknown-key`, ").unwrap();
            let listed: BTreeSet<&str> = listed.split('`').skip(1).step_by(2).collect();
            let keys: BTreeSet<&str> = table.keys().map(String::as_str).collect();
            if shown(path).contains("redact[") {
                // Two kinds of one table.
                keys_of_lists.extend(keys.iter().map(ToString::to_string));
                assert!(keys.is_subset(&listed), "{path:?}");
                continue;
            }
            assert_eq!(keys, listed, "{path:?}");
        }
        assert_eq!(keys_of_lists.len(), 3, "{keys_of_lists:?}");
    }
}
