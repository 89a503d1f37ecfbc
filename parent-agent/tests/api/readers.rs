//! Commands end as they would where nobody reads what they print.

use std::process::Command;

use test_support::readers::{check_failure, check_readers};

use crate::agent::{Agent, command};

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_quietly_when_their_reader_goes_away() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    let folder = agent.folder.path().to_owned();
    let with = move |subcommand: &'static str, arguments: &'static [&'static str]| {
        let folder = folder.clone();
        move || {
            let mut command = command(&folder, subcommand);
            command.args(arguments);
            command.into_std()
        }
    };
    let plain = |arguments: &'static [&'static str]| {
        move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_parent-agent"));
            command.args(arguments);
            command
        }
    };
    let checks = move || {
        for arguments in [
            ["version"].as_slice(),
            &["version", "--json"],
            &["--help"],
            &["logs", "--help"],
        ] {
            check_readers(&plain(arguments), 0, 1);
        }
        check_readers(&with("status", &[]), 0, 1);
        check_failure(&with("status", &["--name", "other"]), 1);
        check_failure(&plain(&["logs", "--log-dir", "/nonexistent/folder"]), 1);
        check_failure(&plain(&["fly"]), 2);
    };
    tokio::task::spawn_blocking(checks).await.unwrap();
}
