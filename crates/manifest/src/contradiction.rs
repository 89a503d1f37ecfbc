//! Values of `enclave.toml` that are right by themselves and not beside others.

use crate::confinement::{Confinement, Mebibytes};
use crate::health::OnUnhealthy;
use crate::process::Environment;
use crate::workload::{RestartPolicy, WorkloadKind, WorkloadSource};
use crate::workloads::{MAX_STOP_GRACE, Workloads};

/// The path of a value, and what is wrong with it.
pub(crate) type Contradiction = (Vec<String>, String);
/// The same below a table.
type Found = (&'static [&'static str], String);

/// Variables by which an SDK finds other credentials, or none at all, before it asks the
/// enclave for them.
const OTHER_CREDENTIALS: [&str; 8] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Refuses what the enclave would not keep, or what would mean nothing.
pub(crate) fn check(
    workloads: &Workloads<WorkloadSource>,
    confinement: &Confinement,
) -> Result<(), Contradiction> {
    for (index, workload) in workloads.iter().enumerate() {
        let found = restart(workload)
            .or_else(|| stop_grace(workload))
            .or_else(|| on_unhealthy(workload))
            .or_else(|| credentials(workload));
        if let Some((key, message)) = found {
            return Err((workloads.path(index, key), message));
        }
    }
    let found = read_only_root(confinement).or_else(|| sizes(confinement));
    found.map_or(Ok(()), |(key, message)| {
        let table = std::iter::once("confinement").chain(key.iter().copied());
        Err((table.map(str::to_owned).collect(), message))
    })
}

/// A batch workload runs once.
fn restart(workload: &WorkloadSource) -> Option<Found> {
    let restart = workload.restart?;
    (workload.kind == WorkloadKind::Batch && restart.policy != RestartPolicy::Never).then(|| {
        let message = "a batch workload runs once: remove `restart`, or choose the kind `service` or `daemon`";
        (["restart"].as_slice(), message.to_owned())
    })
}

/// Who stops the enclave does not wait for longer.
fn stop_grace(workload: &WorkloadSource) -> Option<Found> {
    (workload.stop_grace.as_duration() > MAX_STOP_GRACE).then(|| {
        let message = format!(
            "stop_grace of {} would not be kept: the agent waits {} s for an enclave to end; write at most `{}s`",
            workload.stop_grace,
            MAX_STOP_GRACE.as_secs(),
            MAX_STOP_GRACE.as_secs(),
        );
        (["stop_grace"].as_slice(), message)
    })
}

/// A workload that is never started again is not restarted for its health either.
fn on_unhealthy(workload: &WorkloadSource) -> Option<Found> {
    let health = workload.health.as_ref()?.probe()?;
    let never = workload.restart().policy == RestartPolicy::Never;
    (health.on_unhealthy == OnUnhealthy::Restart && never).then(|| {
        let message = "`on_unhealthy = \"restart\"` restarts by the policy, which is `never`: choose another policy, or `on_unhealthy = \"end\"`";
        (["health", "on_unhealthy"].as_slice(), message.to_owned())
    })
}

/// An SDK takes the credentials that it finds first.
fn credentials(workload: &WorkloadSource) -> Option<Found> {
    let message = check_credentials(workload.aws_credentials, &workload.env).err()?;
    Some((["aws_credentials"].as_slice(), message))
}

/// Refuses an environment in which a workload that gets AWS credentials would use others;
/// the message goes with `workload.aws_credentials`.
pub fn check_credentials(aws_credentials: bool, environment: &Environment) -> Result<(), String> {
    let mut others = OTHER_CREDENTIALS.into_iter();
    match others.find(|name| aws_credentials && environment.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "aws_credentials gives the workload credentials, and its environment sets {name}, by which AWS's SDKs look for others first: remove one of the two"
        )),
    }
}

/// Whether AWS's SDKs look for credentials in this variable.
pub(crate) fn is_of_credentials(variable: &str) -> bool {
    OTHER_CREDENTIALS.contains(&variable)
}

/// There is no room to bound where nothing can be written.
fn read_only_root(confinement: &Confinement) -> Option<Found> {
    (confinement.read_only_root && confinement.root_mib.is_some()).then(|| {
        let message = "root_mib is space for files in `/`, and read_only_root makes `/` read-only: remove one of the two";
        (["root_mib"].as_slice(), message.to_owned())
    })
}

/// What is written into memory counts against the workload's memory, too.
fn sizes(confinement: &Confinement) -> Option<Found> {
    let memory = confinement.memory_mib?;
    let larger = |size: Option<Mebibytes>| size.filter(|size| *size > memory);
    let sizes: [(&'static [&'static str], _); 4] = [
        (&["root_mib"], confinement.root_mib),
        (&["tmp_mib"], confinement.tmp_mib),
        (&["run_mib"], confinement.run_mib),
        (&["shm_mib"], confinement.shm_mib),
    ];
    let (path, size) = sizes
        .into_iter()
        .find_map(|(path, size)| Some((path, larger(size)?)))?;
    let key = path.last().copied().expect("a path of one name");
    let message = format!(
        "{key} of {size} MiB is more than confinement.memory_mib of {memory} MiB, against which files count: lower it, or raise memory_mib"
    );
    Some((path, message))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::source::Manifest;

    #[test]
    fn contradictions_are_refused_with_the_line() {
        for (tables, message) in [
            (
                "[workload]\nkind = \"batch\"\nrestart = { policy = \"always\" }",
                "6: a batch workload runs once",
            ),
            (
                "[workload]\nstop_grace = \"301s\"",
                "5: stop_grace of 301s would not be kept",
            ),
            (
                "[workload]\nkind = \"batch\"\nhealth = { tcp = 8080, on_unhealthy = \"restart\" }",
                "6: `on_unhealthy = \"restart\"` restarts by the policy, which is `never`",
            ),
            (
                "[workload]\nenv = { AWS_SESSION_TOKEN = \"x\" }\naws_credentials = true",
                "6: aws_credentials gives the workload credentials, and its environment sets AWS_SESSION_TOKEN",
            ),
            (
                "[confinement]\nread_only_root = true\nroot_mib = 1",
                "6: root_mib is space for files in `/`",
            ),
            (
                "[confinement]\nmemory_mib = 10\n\nshm_mib = 11",
                "7: shm_mib of 11 MiB is more than confinement.memory_mib of 10 MiB",
            ),
        ] {
            let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n{tables}\n");
            let error = Manifest::parse(&text, Path::new("e.toml")).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with(&format!("e.toml:{message}")), "{error}");
        }
    }

    #[test]
    fn contradictions_are_not_what_only_looks_like_one() {
        for tables in [
            "[workload]\nkind = \"batch\"\nrestart = { policy = \"never\" }",
            "[workload]\nstop_grace = \"5m\"\nhealth = { tcp = 7070 }",
            "[workload]\nenv = { AWS_SESSION_TOKEN = \"x\" }\naws_credentials = false",
            "[workload]\nenv = { AWS_REGION = \"eu-west-1\" }\naws_credentials = true",
            "[confinement]\nread_only_root = false\nroot_mib = 1",
            "[confinement]\nmemory_mib = 10\nshm_mib = 10",
        ] {
            let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n{tables}\n");
            Manifest::parse(&text, Path::new("e.toml")).unwrap();
        }
    }
}
