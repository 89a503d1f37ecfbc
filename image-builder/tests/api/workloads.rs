//! Several workloads of one image: what is measured of each, and what is refused.

use manifest::{MEASURED_CONFIG_PATH, MeasuredConfig, Workloads};
use serde_json::json;

use crate::image::{Image, app};
use crate::layer::elf;
use crate::project::Project;
use crate::ramdisk::{file, ramdisks};

fn measured(project: &Project) -> MeasuredConfig {
    let application = ramdisks(&project.build_with_notes().0).pop().unwrap();
    MeasuredConfig::from_json(&file(&application, MEASURED_CONFIG_PATH)).unwrap()
}

fn image() -> Image {
    let layer = app()
        .program("bin/db", elf())
        .directory("srv")
        .file("etc/passwd", "web:x:33:44::/:/bin/sh\n");
    Image::new(&[layer])
        .with("Cmd", json!(["--port", "80"]))
        .with("User", json!("web"))
        .with("StopSignal", json!("SIGINT"))
        .with("Healthcheck", json!({"Test": ["CMD", "/app", "-q"]}))
}

#[test]
fn workloads_have_the_images_defaults_each() {
    let project = Project::of(&image());
    project.manifest(
        "[[workload]]\nname = \"db\"\nentrypoint = [\"/bin/db\"]\nuser = \"0\"\nworking_directory = \"/srv\"\nhealth = { disable = true }\nlimits = { pids = 9 }\n\n[[workload]]\nname = \"web\"\nafter = [\"db\"]\nessential = false\n",
    );
    let config = measured(&project);
    let [db, web] = &*config.workloads else {
        panic!("{:?}", config.workloads);
    };
    assert_eq!(*db.command, ["/bin/db"]);
    assert_eq!((db.user.uid, db.health.is_none()), (0, true));
    assert_eq!(db.limits.pids.unwrap().get(), 9);
    assert_eq!(db.working_directory.as_str(), "/srv");
    // Without an entrypoint and a command it runs the image's.
    assert_eq!(*web.command, ["/app", "--port", "80"]);
    assert_eq!((web.user.uid, web.essential), (33, false));
    assert!(web.health.is_some());
    assert_eq!(web.stop_signal.to_string(), "SIGINT");
    assert_eq!(&*web.after[0], "db");
    // A list of one is a list, and a table is none.
    project.manifest("[[workload]]\nname = \"web\"\n");
    assert!(matches!(
        measured(&project).workloads,
        Workloads::Several(_)
    ));
    project.manifest("");
    let one = measured(&project).workloads;
    let text = serde_json::to_string(&one).unwrap();
    assert!(
        !text.contains("essential") && !text.contains("after"),
        "{text}"
    );
}

#[test]
fn workloads_that_could_not_run_are_refused_each_with_its_line() {
    let project = Project::of(&image());
    let web = "[[workload]]\nname = \"web\"\n\n";
    for (more, words) in [
        (
            "[[workload]]\nname = \"db\"\nentrypoint = [\"/bin/dd\"]\n",
            ["enclave.toml:10: ", "/bin/dd does not exist in the image"],
        ),
        (
            "[[workload]]\nname = \"db\"\nuser = \"nobody\"\n",
            ["enclave.toml:10: ", "nobody"],
        ),
        (
            "[[workload]]\nname = \"db\"\nworking_directory = \"/none\"\n",
            [
                "enclave.toml:10: ",
                "the working directory /none does not exist",
            ],
        ),
        (
            "[[workload]]\nname = \"db\"\nhealth = { command = [\"/check\"] }\n",
            ["enclave.toml:10: ", "/check does not exist in the image"],
        ),
        (
            "[[workload]]\nname = \"db\"\nafter = [\"webb\"]\n",
            [
                "enclave.toml:10: ",
                "`db` is started after `webb`, which is not there",
            ],
        ),
        (
            "[[workload]]\nname = \"db\"\nafter = [\"db\"]\n",
            ["enclave.toml:10: ", "`db` cannot be started after itself"],
        ),
    ] {
        project.manifest(&format!("{web}{more}"));
        project.refused(2, &words);
    }
}

#[test]
fn secrets_files_are_for_all_workloads_or_refused() {
    let project = Project::of(&image());
    project.write("sender.pem", SENDER);
    let manifest = |mode: &str, user: &str| {
        format!(
            "[[workload]]\nname = \"db\"\nentrypoint = [\"/bin/db\"]\n[[workload]]\nname = \"web\"\nuser = \"{user}\"\n[[secrets]]\nname = \"s\"\nsealed = {{ sender = \"sender.pem\" }}\nfile = \"/run/secrets/s\"\nmode = \"{mode}\"\n"
        )
    };
    project.manifest(&manifest("0400", "7"));
    let words = [
        "enclave.toml:14: ",
        "belongs to the user of the first workload, 33:44",
        "write `mode = \"0444\"`",
    ];
    project.refused(2, &words);
    project.manifest(&manifest("0444", "7"));
    measured(&project);
    project.manifest(&manifest("0400", "web"));
    measured(&project);
}

/// The public key of nobody.
const SENDER: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
