//! The probe of the workload's health: the manifest's, and else the image's `HEALTHCHECK`.

use manifest::{
    Command, DEFAULT_FAILURES, Health, HealthProbe, HealthSource, Interval, MAX_FAILURES, Manifest,
    ManifestError, OnUnhealthy, Workload, WorkloadKind,
};
use serde_json::{Map, Value};

use crate::program::Surroundings;

/// What `CMD-SHELL` is run by where the image has no `Shell`.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// What Docker does where the image says nothing.
const DOCKERS_TIMEOUT_SECONDS: u64 = 30;
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// The probe as it is measured; its program can be executed.
pub(crate) fn measured(
    manifest: &Manifest,
    index: usize,
    fields: &Map<String, Value>,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Health>, ManifestError> {
    let Some(workload) = manifest.workloads.get(index) else {
        return Ok(None);
    };
    let about = |key: &'static str| {
        let path: Vec<&str> = ["health"]
            .into_iter()
            .chain((!key.is_empty()).then_some(key))
            .collect();
        move |reason: String| manifest.invalid_workload(index, &path, reason)
    };
    match &workload.health {
        Some(HealthSource::Disabled) => Ok(None),
        Some(HealthSource::Probe(health)) => {
            if let HealthProbe::Command(command) = &health.probe {
                surroundings
                    .check(command.program(), "workload.health.command")
                    .map_err(about("command"))?;
            }
            Ok(Some(health.clone()))
        }
        None if workload.kind == WorkloadKind::Batch => Ok(None),
        None => {
            let advice = "have workload.health probe the workload another way, or not at all by `health = { disable = true }`";
            let found = of_image(fields);
            let checked = found.and_then(|found| match found {
                Some((command, health)) => surroundings
                    .check(command.program(), "workload.health.command")
                    .map(|()| Some(health)),
                None => Ok(None),
            });
            checked.map_err(|reason| {
                about("")(format!("the image's HEALTHCHECK: {reason}; or {advice}"))
            })
        }
    }
}

/// What is to be said of the image's.
pub(crate) fn note(
    manifest: &Manifest,
    fields: &Map<String, Value>,
    measured: &[Workload],
) -> Option<String> {
    let (command, _) = of_image(fields).ok().flatten()?;
    let mut pairs = manifest.workloads.iter().zip(measured);
    let (_, measured) = pairs.find(|(source, _)| source.health.is_none())?;
    Some(match &measured.health {
        Some(health) => {
            let start = if has_start_interval(fields) {
                "; its start interval is not used"
            } else {
                ""
            };
            format!(
                "the image's HEALTHCHECK probes the workload: `{command}`, every {}{start}; the enclave is ready once it has succeeded, and ends if it has not within {}: workload.health has others, or none by `health = {{ disable = true }}`",
                health.interval, health.ready_within
            )
        }
        None => {
            format!("the image's HEALTHCHECK is not run, as the workload is a batch: `{command}`")
        }
    })
}

/// Whether the image says how often it is probed until it is ready.
fn has_start_interval(fields: &Map<String, Value>) -> bool {
    let check = fields
        .get("config")
        .and_then(|process| process.get("Healthcheck"));
    let interval = check.and_then(|check| check.get("StartInterval"));
    interval
        .and_then(Value::as_u64)
        .is_some_and(|interval| interval > 0)
}

/// The image's command and the probe that it makes; none if it has none, or `NONE`.
fn of_image(fields: &Map<String, Value>) -> Result<Option<(Command, Health)>, String> {
    let process = fields.get("config").and_then(Value::as_object);
    let Some(check) = process.and_then(|process| process.get("Healthcheck")) else {
        return Ok(None);
    };
    let words = |value: &Value| -> Option<Vec<String>> {
        let words = value.as_array()?.iter();
        words.map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let test = match check.get("Test") {
        _ if check.is_null() => return Ok(None),
        None | Some(Value::Null) if check.is_object() => return Ok(None),
        test => test.and_then(words),
    };
    let malformed = || "it is not understood: it needs `Test`, a list of words".to_owned();
    let test = test.ok_or_else(malformed)?;
    let command = match test.split_first() {
        None => return Ok(None),
        Some((kind, _)) if kind == "NONE" => return Ok(None),
        Some((kind, words)) if kind == "CMD" => words.to_vec(),
        Some((kind, script)) if kind == "CMD-SHELL" => {
            let own = process.and_then(|process| process.get("Shell"));
            let own = own.and_then(words).filter(|shell| !shell.is_empty());
            let shell = own.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
            [shell, script.to_vec()].concat()
        }
        Some((kind, _)) => {
            return Err(format!(
                "`{kind}` is not understood: it begins with CMD, CMD-SHELL or NONE"
            ));
        }
    };
    let command = Command::try_from(command).map_err(|error| error.to_string())?;
    let number = |name: &str| check.get(name).and_then(Value::as_u64).unwrap_or(0);
    let milliseconds = |name: &str| number(name) / NANOSECONDS_PER_MILLISECOND;
    let or = |found: Option<Interval>, default| found.unwrap_or(default);
    let interval = or(interval(milliseconds("Interval")), Interval::DEFAULT_HEALTH);
    let retries = match u32::try_from(number("Retries")) {
        Ok(0) => DEFAULT_FAILURES,
        retries => retries.unwrap_or(MAX_FAILURES).min(MAX_FAILURES),
    };
    // By then Docker calls the container unhealthy.
    let patience = u64::try_from(interval.as_duration().as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(retries.into())
        .saturating_add(milliseconds("StartPeriod"));
    let ready_within = or(self::interval(patience), Interval::DEFAULT_READY_WITHIN);
    let health = Health {
        probe: HealthProbe::Command(command.clone()),
        interval,
        timeout: or(
            self::interval(milliseconds("Timeout")),
            or(
                Interval::from_secs(DOCKERS_TIMEOUT_SECONDS),
                Interval::DEFAULT_HEALTH_TIMEOUT,
            ),
        ),
        failures: retries,
        ready_within: ready_within.max(Interval::DEFAULT_READY_WITHIN),
        on_unhealthy: OnUnhealthy::Report,
    };
    Ok(Some((command, health)))
}

/// A length of time, cut to the longest that there is; none if it is none.
fn interval(milliseconds: u64) -> Option<Interval> {
    let longest = Interval::LONGEST;
    let text = format!("{milliseconds}ms");
    (milliseconds > 0).then(|| text.parse().unwrap_or(longest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(check: &Value) -> Result<Option<Health>, String> {
        let fields = json!({ "config": { "Healthcheck": check } });
        of_image(fields.as_object().unwrap()).map(|found| found.map(|(_, health)| health))
    }

    fn command(check: &Value) -> Vec<String> {
        match read(check).unwrap().unwrap().probe {
            HealthProbe::Command(command) => command.to_vec(),
            probe => panic!("{probe:?}"),
        }
    }

    #[test]
    fn healthcheck_is_dockers_with_dockers_defaults() {
        let health = read(&json!({"Test": ["CMD", "/check"]})).unwrap().unwrap();
        let times = [health.interval, health.timeout, health.ready_within];
        assert_eq!(times.map(|time| time.to_string()), ["30s", "30s", "10m"]);
        assert_eq!(health.failures, 3);
        assert_eq!(health.on_unhealthy, OnUnhealthy::Report);
        let given = json!({
            "Test": ["CMD-SHELL", "curl -f localhost || exit 1"],
            "Interval": 300_000_000_000_u64,
            "Timeout": 1_500_000_000_u64,
            "StartPeriod": 60_000_000_000_u64,
            "Retries": 5,
        });
        let health = read(&given).unwrap().unwrap();
        let times = [health.interval, health.timeout, health.ready_within];
        assert_eq!(times.map(|time| time.to_string()), ["5m", "1500ms", "26m"]);
        assert_eq!(health.failures, 5);
        assert_eq!(
            command(&given),
            ["/bin/sh", "-c", "curl -f localhost || exit 1"]
        );
    }

    #[test]
    fn healthcheck_by_a_shell_is_run_by_the_images() {
        let fields = json!({"config": {
            "Shell": ["/bin/bash", "-ec"],
            "Healthcheck": {"Test": ["CMD-SHELL", "test $0 = x", "x"]},
        }});
        let (command, _) = of_image(fields.as_object().unwrap()).unwrap().unwrap();
        assert_eq!(*command, ["/bin/bash", "-ec", "test $0 = x", "x"]);
    }

    #[test]
    fn healthcheck_of_none_is_none_and_what_is_odd_is_named() {
        for none in [
            json!(null),
            json!({}),
            json!({"Test": null, "Interval": 1}),
            json!({"Test": []}),
            json!({"Test": ["NONE"]}),
        ] {
            assert_eq!(read(&none), Ok(None), "{none}");
        }
        for (odd, part) in [
            (json!(7), "not understood"),
            (json!({"Test": "true"}), "a list of words"),
            (json!({"Test": [1]}), "a list of words"),
            (json!({"Test": ["CMD"]}), "command is empty"),
            (json!({"Test": ["curl", "x"]}), "`curl` is not understood"),
        ] {
            assert!(read(&odd).unwrap_err().contains(part), "{odd}");
        }
        // What cannot be is cut to what can.
        let health = read(&json!({
            "Test": ["CMD", "/c"], "Interval": u64::MAX, "Retries": u64::MAX, "Timeout": -1,
        }));
        let health = health.unwrap().unwrap();
        assert_eq!(health.failures, MAX_FAILURES);
        assert_eq!(health.interval, Interval::LONGEST);
        assert_eq!(health.timeout.to_string(), "30s");
    }
}
