//! The program ends as it would where nobody reads what it prints.

use std::process::Command;

use test_support::readers::{check_failure, check_readers};

use crate::project::{Project, program};

#[test]
fn build_and_describe_end_quietly_when_their_reader_goes_away() {
    let project = Project::new();
    let describe = |more: &[&str]| {
        let mut command = program();
        command.current_dir(project.folder()).arg("describe");
        command.args(more);
        command
    };
    let build = |more: &[&str]| {
        let mut command = project.command();
        command.args(more);
        command
    };
    for build in [&(|| build(&[])) as &dyn Fn() -> Command, &|| {
        build(&["--json"])
    }] {
        check_readers(build, 0, 1);
    }
    for more in [["out.eif"].as_slice(), &["--json", "out.eif"]] {
        check_readers(&|| describe(more), 0, 1);
    }
    let mut damaged = std::fs::read(project.path("out.eif")).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    project.write("damaged.eif", damaged);
    for (more, code) in [
        (["missing.eif"].as_slice(), 1),
        (&["damaged.eif"], 3),
        (&["--format"], 2),
    ] {
        check_failure(&|| describe(more), code);
    }
    let key_policy =
        r#"{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}}"#;
    project.write("policy.json", key_policy);
    let check = || {
        let mut command = program();
        command.current_dir(project.folder());
        command.args(["kms-policy", "check", "policy.json"]);
        command
    };
    check_readers(&check, 5, 1);
    for option in ["--help", "--version"] {
        let command = || {
            let mut command = program();
            command.arg(option);
            command
        };
        check_readers(&command, 0, 1);
    }
}
