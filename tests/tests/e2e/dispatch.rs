//! `parent-agent dispatch` on real vsock, in a machine of its own: no vsock of this
//! machine is touched.

use std::fs::{self, File};
use std::time::Duration;

use enclave_tests::Machine;
use tokio::time::timeout;

use crate::PROGRAMS;

/// Longer than it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn dispatch_passes_vsock_connections_on_and_they_outlive_it() {
    let folder = tempfile::tempdir().unwrap();
    let (said, errors) = (folder.path().join("console"), folder.path().join("errors"));
    let programs = [("init", "dispatch-guest"), ("parent-agent", "parent-agent")];
    let machine = Machine {
        files: programs
            .map(|(name, program)| (name.to_owned(), PROGRAMS.path(program)))
            .into(),
        memory_mib: 512,
        cpus: 1,
    };
    let mut command = machine.command(&PROGRAMS, folder.path()).unwrap();
    command
        .stdout(File::create(&said).unwrap())
        .stderr(File::create(&errors).unwrap());
    let ended = timeout(LIMIT, command.status()).await;
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let (console, errors) = (read(&said), read(&errors));
    let ended = ended.unwrap_or_else(|_| panic!("the guest does not end: {console}{errors}"));
    assert!(ended.unwrap().success(), "{console}{errors}");
    for words in [
        "guest: 1 MiB came over a connection that was passed on",
        "guest: a small packet came after a large one",
        "guest: a connection without an agent was closed",
        "guest: the connection outlived the dispatcher",
        "guest: the agent registered with the next dispatcher",
        "guest: done",
    ] {
        assert!(console.contains(words), "{words}: {console}{errors}");
    }
}
