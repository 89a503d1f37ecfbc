//! The lock of an enclave's state.

use std::time::Duration;

use tokio::sync::watch;

use crate::world::{DEPLOYED, World};

/// A plan that meets a lock until it is broken.
fn locked(created: &str) -> String {
    let detail = format!(
        "Error message: PreconditionFailed\\nLock Info:\\n  ID:        0f1e2d3c-0000-4000-8000-0123456789ab\\n  Path:      state/x\\n  Operation: OperationTypeApply\\n  Who:       runner@gone\\n  Created:   {created}\\n  Info:      \\n"
    );
    format!(
        r#"[ "$1" != force-unlock ] || touch $HERE/unlocked
if [ $1 = plan ] && ! [ -e $HERE/unlocked ]; then
  echo '{{"@level":"error","@message":"Error","diagnostic":{{"severity":"error","summary":"Error acquiring the state lock","detail":"{detail}"}},"type":"diagnostic"}}'
  exit 1
fi
{DEPLOYED}"#
    )
}

const LONG_AGO: &str = "2020-01-01 00:00:00.5 +0000 UTC";

#[tokio::test]
async fn a_lock_that_nobody_can_hold_any_more_is_broken() {
    let world = World::new(&locked(LONG_AGO)).await;
    world.run_here(watch::Sender::new(None)).await.unwrap();
    assert_eq!(
        world.commands(),
        ["init", "plan", "force-unlock", "plan", "apply"]
    );
    assert!(
        world
            .read("commands")
            .contains("force-unlock -force 0f1e2d3c-0000-4000-8000-0123456789ab")
    );
}

#[tokio::test]
async fn the_lock_is_waited_for_as_long_as_its_owner_may_need() {
    let world = World::new(DEPLOYED).await;
    world.run_here(watch::Sender::new(None)).await.unwrap();
    let commands = world.read("commands");
    assert_eq!(
        commands.matches("-lock-timeout=270s").count(),
        2,
        "{commands}"
    );
}

#[tokio::test]
async fn a_lock_that_may_have_an_owner_is_respected() {
    let mut world = World::new(&locked(LONG_AGO)).await;
    world.settings.lock_wait = Duration::from_secs(100 * 365 * 24 * 3600);
    let failure = world.run_here(watch::Sender::new(None)).await.unwrap_err();
    assert_eq!(failure.exit_code(), 4);
    assert_eq!(world.commands(), ["init", "plan"]);
    let sent = world.workflow.only("SendTaskFailure");
    assert_eq!(sent["error"], "StateLocked");
    let cause = sent["cause"].as_str().unwrap();
    assert!(
        cause.contains("held by runner@gone since 2020-01-01 00:00:00 UTC"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_lock_of_unknown_age_is_respected() {
    let world = World::new(&locked("at some time")).await;
    let failure = world.run_here(watch::Sender::new(None)).await.unwrap_err();
    assert_eq!(failure.name(), "StateLocked");
}

#[tokio::test]
async fn a_person_who_runs_it_breaks_locks_themselves() {
    let mut world = World::new(&locked(LONG_AGO)).await;
    world.variables.remove("TASK_TOKEN");
    let failure = world.run_here(watch::Sender::new(None)).await.unwrap_err();
    assert!(failure.to_string().contains("force-unlock"), "{failure}");
    assert_eq!(world.commands(), ["init", "plan"]);
}
