//! `[[workload]]` in `enclave.toml`: what is taken, and what is refused on which line.

use std::path::Path;

use manifest::{Manifest, Workloads};

fn parse(tables: &str) -> Result<Manifest, String> {
    let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:x\"\nmemory_mib = 256\n{tables}");
    Manifest::parse(&text, Path::new("e.toml")).map_err(|error| error.to_string())
}

#[test]
fn workloads_are_read_in_their_order_with_defaults() {
    let manifest = parse(
        r#"
[[workload]]
name = "db"
limits = { memory_mib = 256, pids = 20, cpu_weight = 1 }
health = { tcp = 5432 }
[[workload]]
name = "web"
after = ["db"]
essential = false
env = { A = "b" }
"#,
    )
    .unwrap();
    assert!(matches!(manifest.workloads, Workloads::Several(_)));
    let [db, web] = &*manifest.workloads else {
        panic!("{:?}", manifest.workloads);
    };
    assert_eq!((db.essential, web.essential), (None, Some(false)));
    assert_eq!(db.limits.cpu_weight.unwrap().get(), 1);
    assert_eq!(
        web.after.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["db"]
    );
    assert_eq!(web.env.get("A").unwrap(), "b");
    assert_eq!(manifest.workloads.before(1), [0]);
    assert_eq!(manifest.workloads.dependents(0), [1]);
    // The table alone is what it was.
    let one = parse("[workload]\nkind = \"batch\"\n").unwrap();
    assert!(matches!(one.workloads, Workloads::One(_)));
    assert!(matches!(parse("").unwrap().workloads, Workloads::One(_)));
}

#[test]
fn workloads_that_cannot_be_are_refused_with_the_line() {
    let web = "[[workload]]\nname = \"web\"\n";
    let changes = |more: &str| {
        format!(
            "[[secrets]]\nname = \"s\"\nsealed = {{ sender = \"s.pem\" }}\napi = true\non_change = {{ signal = \"SIGHUP\"{more} }}\n"
        )
    };
    for (tables, message) in [
        (
            "[workload]\nname = \"web\"\n",
            "6: `name` is for one of several workloads",
        ),
        (
            "[workload]\nlimits = { pids = 9 }\n",
            "6: `limits` is for one of several workloads",
        ),
        (
            "[[workload]]\nkind = \"batch\"\n",
            "5: a workload of a list needs a name",
        ),
        (
            &format!("{web}[[workload]]\nname = \"web\"\n"),
            "8: two workloads have the name `web`",
        ),
        (
            &format!("{web}after = [\"web\"]\n"),
            "7: the workload `web` cannot be started after itself",
        ),
        (
            &format!("{web}after = [\"bd\"]\n"),
            "7: the workload `web` is started after `bd`, which is not there: there are `web`",
        ),
        (
            &format!("{web}after = [\"db\"]\n[[workload]]\nname = \"db\"\nafter = [\"web\"]\n"),
            "7: these workloads would wait for each other for ever",
        ),
        (
            &format!(
                "{web}stop_grace = \"200s\"\nafter = [\"db\"]\n[[workload]]\nname = \"db\"\nstop_grace = \"101s\"\n"
            ),
            "11: these workloads are stopped one after the other, which may take 301 s: `web`, `db`",
        ),
        (
            &format!("{web}limits = {{ memory_mib = 257 }}\n"),
            "7: limits.memory_mib of 257 MiB is more than the enclave's 256 MiB",
        ),
        (
            &format!("{web}limits = {{ cpu_weight = 0 }}\n"),
            "7: 0 is not a weight",
        ),
        (
            &format!("{web}essential = 1\n"),
            "7: `workload[0].essential` is a whole number",
        ),
        (&format!("{web}name_ = 1\n"), "7: unknown field `name_`"),
        (
            "[[workload]]\nname = \"Web\"\n",
            "6: name `Web` is not allowed",
        ),
        (
            &format!("{web}kind = \"batch\"\nrestart = {{ policy = \"always\" }}\n"),
            "8: a batch workload runs once",
        ),
        ("workload = []\n", "is a list where a table is wanted"),
        (
            &format!(
                "{web}[[secrets]]\nname = \"s\"\nsealed = {{ sender = \"s.pem\" }}\napi = true\non_change = {{ signal = \"SIGHUP\", workload = \"db\" }}\n"
            ),
            "on_change is for the workload `db`, which is not there",
        ),
        (
            &format!("{web}[[workload]]\nname = \"db\"\n{}", changes("")),
            "on_change has to say which workload it is for, as there are several: add `workload = \"web\"`",
        ),
        (
            &format!(
                "{web}[[workload]]\nname = \"migrate\"\nkind = \"batch\"\n{}",
                changes(", workload = \"migrate\"")
            ),
            "on_change is for the workload `migrate`, which is a batch",
        ),
        (
            &format!("{web}essential = false\n[[workload]]\nname = \"db\"\nessential = false\n"),
            "7: no workload is essential",
        ),
    ] {
        let tables = if tables.starts_with("workload =") {
            // A key of no table stands before the first.
            let text = format!("{tables}[enclave]\nname = \"a\"\nimage = \"oci:x\"\n");
            Manifest::parse(&text, Path::new("e.toml")).map_err(|error| error.to_string())
        } else {
            parse(tables)
        };
        let error = tables.unwrap_err();
        assert!(error.starts_with("e.toml:"), "{error}");
        assert!(error.contains(message), "{message}: {error}");
    }
}
