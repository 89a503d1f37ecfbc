//! How the runner ends: told to stop, left alone by its workflow, not heard.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use terraform_runner::{Failure, Stop};
use tokio::sync::watch;

use crate::world::{DEPLOYED, World, is_running};

/// Applies until it is told to stop, and then needs a moment.
const PATIENT: &str = r"
[ $1 = apply ] || exit 0
trap 'echo asked >> $HERE/signals; sleep 0.3; exit 1' TERM
touch $HERE/applying
while true; do sleep 0.05; done";

/// Applies and does not listen; has a child as a provider is one.
const DEAF: &str = r"
[ $1 = apply ] || exit 0
trap '' TERM INT
bash -c 'echo $$ > $HERE/provider; trap : TERM; while true; do sleep 0.05; done' &
while ! [ -s $HERE/provider ]; do sleep 0.01; done
touch $HERE/applying
while true; do sleep 0.05; done";

fn pid(child: &tokio::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap())
}

#[tokio::test]
async fn sigterm_lets_terraform_end_in_order() {
    let world = World::new(PATIENT).await;
    let child = world.start();
    world.appears("applying").await;
    let pid = pid(&child);
    kill(pid, Signal::SIGTERM).unwrap();
    // Further signals change nothing: Terraform would leave without its state.
    world.appears("signals").await;
    let _ = kill(pid, Signal::SIGTERM);
    let (code, log) = world.end(child).await;
    assert_eq!(code, 5, "{log}");
    assert_eq!(world.read("signals").lines().count(), 1);
    assert_eq!(
        world.workflow.only("SendTaskFailure")["error"],
        "RunnerStopped"
    );
}

#[tokio::test]
async fn what_was_done_before_the_stop_counts() {
    let world = World::new(&format!("{DEPLOYED}\n[ $1 != apply ] || {{ trap 'exit 0' TERM; touch $HERE/applying; while true; do sleep 0.05; done; }}")).await;
    let child = world.start();
    world.appears("applying").await;
    kill(pid(&child), Signal::SIGTERM).unwrap();
    let (code, log) = world.end(child).await;
    assert_eq!(code, 0, "{log}");
    world.workflow.only("SendTaskSuccess");
}

#[tokio::test]
async fn a_terraform_that_does_not_stop_is_killed_with_its_providers() {
    let mut world = World::new(DEAF).await;
    world.settings.stop_grace = Duration::from_millis(300);
    let stop = watch::Sender::new(None);
    let stopping = async {
        world.appears("applying").await;
        stop.send_replace(Some(Stop::Signal));
    };
    let (result, ()) = tokio::join!(world.run_here(stop.clone()), stopping);
    assert_eq!(result.unwrap_err().name(), "TerraformKilled");
    assert!(!is_running(&world.read("provider")));
    assert_eq!(
        world.workflow.only("SendTaskFailure")["error"],
        "TerraformKilled"
    );
}

#[tokio::test]
async fn a_stop_between_two_commands_starts_no_other() {
    let world = World::new(DEPLOYED).await;
    let stop = watch::Sender::new(Some(Stop::Signal));
    let failure = world.run_here(stop).await.unwrap_err();
    assert_eq!(failure.name(), "RunnerStopped");
    assert!(world.commands().is_empty());
}

#[tokio::test]
async fn a_provider_that_holds_the_output_open_holds_nothing_up() {
    let world = World::new(&format!(
        "{DEPLOYED}\n[ $1 != apply ] || {{ sleep 1000 & echo $! > $HERE/provider; }}"
    ))
    .await;
    let (code, log) = world.run().await;
    assert_eq!(code, 0, "{log}");
    assert!(!is_running(&world.read("provider")));
}

#[tokio::test]
async fn when_the_workflow_has_timed_out_terraform_is_stopped() {
    for error in ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"] {
        let mut world = World::new(PATIENT).await;
        world.settings.heartbeat_interval = Duration::from_millis(20);
        let workflow = world.workflow.clone();
        let stop = watch::Sender::new(None);
        let ending = async {
            world.appears("applying").await;
            workflow.fail("SendTaskHeartbeat", 400, error, 1);
        };
        let (result, ()) = tokio::join!(world.run_here(stop.clone()), ending);
        assert!(
            matches!(result, Err(Failure::Abandoned(_))),
            "{error}: {result:?}"
        );
        assert_eq!(world.read("signals").lines().count(), 1);
        assert!(world.workflow.calls("SendTaskFailure").is_empty());
        assert!(world.workflow.calls("SendTaskSuccess").is_empty());
    }
}

#[tokio::test]
async fn when_the_workflow_is_out_of_reach_for_long_terraform_is_stopped() {
    let mut world = World::new(PATIENT).await;
    world.settings.heartbeat_interval = Duration::from_millis(20);
    world.settings.heartbeat_loss = Duration::from_millis(200);
    world
        .workflow
        .fail("SendTaskHeartbeat", 503, "ServiceUnavailable", 100_000);
    let failure = world.run_here(watch::Sender::new(None)).await.unwrap_err();
    assert!(
        failure.to_string().contains("no heartbeat has reached it"),
        "{failure}"
    );
    assert_eq!(failure.exit_code(), 7);
}

#[tokio::test]
async fn single_heartbeats_may_be_lost() {
    let mut world = World::new(&format!("{DEPLOYED}\n[ $1 != apply ] || sleep 0.5")).await;
    world.settings.heartbeat_interval = Duration::from_millis(20);
    world
        .workflow
        .fail("SendTaskHeartbeat", 400, "ThrottlingException", 3);
    world.run_here(watch::Sender::new(None)).await.unwrap();
}

#[tokio::test]
async fn an_answer_is_tried_again_until_it_is_heard() {
    let world = World::new(DEPLOYED).await;
    world
        .workflow
        .fail("SendTaskSuccess", 400, "ThrottlingException", 5);
    world.run_here(watch::Sender::new(None)).await.unwrap();
    assert_eq!(world.workflow.calls("SendTaskSuccess").len(), 6);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_given_up() {
    let world = World::new(DEPLOYED).await;
    world
        .workflow
        .fail("SendTaskSuccess", 400, "TaskTimedOut", 1);
    let failure = world.run_here(watch::Sender::new(None)).await.unwrap_err();
    assert_eq!(failure.exit_code(), 7);
    assert_eq!(world.workflow.calls("SendTaskSuccess").len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_never_heard_is_said_in_the_exit_code() {
    let world = World::new(DEPLOYED).await;
    world
        .workflow
        .fail("SendTaskSuccess", 500, "InternalServerError", 100);
    let failure = world.run_here(watch::Sender::new(None)).await.unwrap_err();
    assert_eq!(failure.exit_code(), 8);
}
