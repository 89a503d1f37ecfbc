use link::Text;
use link::control::{EndCause, ExitStatus, HealthState};
use proptest::prelude::*;

use super::*;
use crate::exit::Exit;

pub(super) const BOOT: Duration = Duration::from_secs(30);
const STOP: Input<'static> = Input::Stop {
    grace: None,
    insists: true,
};

fn ready() -> FromInit {
    FromInit::Ready { at_us: 1 }
}

pub(super) fn ending(cause: EndCause) -> FromInit {
    ending_with(cause, "")
}

fn ending_with(cause: EndCause, code: &str) -> FromInit {
    FromInit::Ending {
        cause,
        detail: Text::new("because"),
        code: Text::new(code),
        losses: link::control::Losses::default(),
        numbered: Vec::new(),
        workload: None,
    }
}

pub(super) fn health() -> FromInit {
    FromInit::Health {
        state: HealthState::Healthy,
        detail: Text::default(),
    }
}

pub(super) fn booted(now: Instant) -> Enclave {
    let mut enclave = Enclave::new(BOOT);
    assert_eq!(enclave.on(Input::Started, now), None);
    assert_eq!(enclave.phase(), Phase::Booting);
    assert_eq!(enclave.on(Input::Heartbeat, now), None);
    assert_eq!(enclave.on(Input::Connected, now), None);
    assert_eq!(enclave.on(Input::Message(&ready()), now), None);
    assert_eq!(enclave.phase(), Phase::Ready);
    enclave
}

pub(super) fn end(enclave: &Enclave) -> (Cause, &str) {
    let end = enclave.end().unwrap();
    (end.cause, &end.detail)
}

#[test]
fn an_orderly_life() {
    let now = Instant::now();
    let mut enclave = booted(now);
    let grace = Some(Duration::from_secs(3));
    let stop = Input::Stop {
        grace,
        insists: false,
    };
    assert_eq!(enclave.on(stop, now), Some(Action::SendShutdown { grace }));
    assert_eq!(enclave.phase(), Phase::Ending);
    enclave.on(Input::Message(&ending(EndCause::Shutdown)), now);
    enclave.on(Input::Disconnected, now);
    enclave.on(Input::Exited("init ended with code 0".to_owned()), now);
    assert_eq!(end(&enclave), (Cause::Stopped, "as asked"));
    assert_eq!(enclave.deadline(), None);
}

#[test]
fn every_announced_cause_has_its_exit_code() {
    for (cause, exit) in [
        (EndCause::Shutdown, Exit::Success),
        (EndCause::WorkloadExited(ExitStatus::Code(0)), Exit::Success),
        (
            EndCause::WorkloadExited(ExitStatus::Code(3)),
            Exit::WorkloadFailed,
        ),
        (
            EndCause::WorkloadExited(ExitStatus::Signal(9)),
            Exit::WorkloadFailed,
        ),
        (EndCause::BootFailed, Exit::BootFailed),
        (EndCause::InitFailed, Exit::Died),
    ] {
        let now = Instant::now();
        let mut enclave = booted(now);
        enclave.on(Input::Message(&ending(cause)), now);
        enclave.on(Input::Exited("x".to_owned()), now);
        assert_eq!(end(&enclave).0.exit(), exit, "{cause:?}");
    }
}

#[test]
fn silence_while_booting_is_a_failed_boot() {
    let now = Instant::now();
    let mut enclave = Enclave::new(BOOT);
    enclave.on(Input::Started, now);
    assert_eq!(enclave.on(Input::Deadline, now), None, "not due yet");
    assert_eq!(enclave.on(Input::Deadline, now + BOOT), Some(Action::Kill));
    enclave.on(Input::Exited("killed".to_owned()), now + BOOT);
    let (cause, detail) = end(&enclave);
    assert_eq!(cause, Cause::BootFailed);
    assert!(
        detail.starts_with("it gave no heartbeat within 30 s"),
        "{detail}"
    );
}

#[test]
fn every_word_of_a_boot_gives_it_more_time() {
    let now = Instant::now();
    let mut enclave = Enclave::new(BOOT);
    enclave.on(Input::Started, now);
    enclave.on(Input::Connected, now + BOOT / 2);
    assert_eq!(enclave.on(Input::Deadline, now + BOOT), None);
    let step = FromInit::Step {
        name: Text::new("clock"),
        at_us: 1,
        took_us: 1,
    };
    enclave.on(Input::Message(&step), now + BOOT);
    assert_eq!(enclave.deadline(), Some(now + 2 * BOOT));
    assert_eq!(
        enclave.on(Input::Deadline, now + 2 * BOOT),
        Some(Action::Kill)
    );
    enclave.on(Input::Exited(String::new()), now);
    assert!(end(&enclave).1.contains("`clock`"));
}

#[test]
fn a_death_is_told_from_a_failed_boot() {
    let now = Instant::now();
    let mut enclave = booted(now);
    enclave.on(Input::Exited("qemu was killed by SIGKILL".to_owned()), now);
    assert_eq!(end(&enclave), (Cause::Died, "qemu was killed by SIGKILL"));
    let mut enclave = Enclave::new(BOOT);
    enclave.on(Input::Started, now);
    enclave.on(Input::Exited("qemu ended with code 1".to_owned()), now);
    assert_eq!(end(&enclave).0, Cause::BootFailed);
}

#[test]
fn a_machine_that_starts_again_has_ended() {
    let now = Instant::now();
    let mut enclave = booted(now);
    enclave.on(Input::Message(&ending(EndCause::Shutdown)), now);
    enclave.on(Input::Disconnected, now);
    assert_eq!(enclave.on(Input::Heartbeat, now), Some(Action::Kill));
    enclave.on(Input::Exited("killed".to_owned()), now);
    assert_eq!(end(&enclave), (Cause::Stopped, "as asked"));

    let mut enclave = booted(now);
    assert_eq!(enclave.on(Input::Heartbeat, now), None);
    assert_eq!(enclave.on(Input::ConnectedAgain, now), Some(Action::Kill));
    enclave.on(Input::Exited("killed".to_owned()), now);
    assert_eq!(end(&enclave), (Cause::Died, "its machine started again"));

    let mut enclave = Enclave::new(BOOT);
    enclave.on(Input::Started, now);
    for _ in 0..2 {
        // An answer may be lost, and the heartbeat given again.
        assert_eq!(enclave.on(Input::Heartbeat, now), None);
    }
    enclave.on(Input::Connected, now);
    enclave.on(Input::Heartbeat, now);
    assert_eq!(enclave.on(Input::ConnectedAgain, now), Some(Action::Kill));
    enclave.on(Input::Exited("killed".to_owned()), now);
    assert_eq!(end(&enclave).0, Cause::BootFailed);
}

#[test]
fn a_heartbeat_beside_a_control_connection_changes_nothing() {
    let now = Instant::now();
    let mut enclave = booted(now);
    let deadline = enclave.deadline();
    let later = now + Duration::from_secs(1);
    assert_eq!(enclave.on(Input::Heartbeat, later), None);
    assert_eq!(enclave.phase(), Phase::Ready);
    assert_eq!(enclave.deadline(), deadline);

    // So does the name of another boot alone.
    let mut enclave = booted(now);
    assert_eq!(enclave.on(Input::ConnectedAgain, later), None);
    assert_eq!(enclave.phase(), Phase::Ready);
    enclave.on(Input::Disconnected, later);
    assert_eq!(enclave.on(Input::ConnectedAgain, later), Some(Action::Kill));
}

#[test]
fn a_heartbeat_and_no_control_connection_is_a_machine_that_started_again() {
    let now = Instant::now();
    let late = now + MAX_DISCONNECTED;
    let mut enclave = booted(now);
    enclave.on(Input::Disconnected, now);
    assert_eq!(enclave.on(Input::Heartbeat, now), None);
    assert_eq!(enclave.on(Input::Deadline, late), Some(Action::Kill));
    enclave.on(Input::Exited("killed".to_owned()), late);
    assert_eq!(end(&enclave), (Cause::Died, "its machine started again"));

    // The same boot is back: the byte was not a boot's.
    let mut enclave = booted(now);
    enclave.on(Input::Disconnected, now);
    enclave.on(Input::Heartbeat, now);
    enclave.on(Input::Connected, now);
    enclave.on(Input::Disconnected, now);
    assert_eq!(enclave.on(Input::Deadline, late), Some(Action::Kill));
    enclave.on(Input::Exited("killed".to_owned()), late);
    assert!(end(&enclave).1.contains("control connection was lost"));
}

#[test]
fn a_stop_before_there_is_an_ear_kills() {
    let now = Instant::now();
    let mut enclave = Enclave::new(BOOT);
    assert_eq!(enclave.on(STOP, now), Some(Action::Kill));
    enclave.on(Input::Exited("killed".to_owned()), now);
    assert_eq!(end(&enclave), (Cause::Stopped, "stopped while starting"));
}

#[test]
fn one_who_does_not_stop_is_killed() {
    let now = Instant::now();
    let mut enclave = booted(now);
    let grace = Duration::from_secs(2);
    enclave.on(
        Input::Stop {
            grace: Some(grace),
            insists: false,
        },
        now,
    );
    let by = now + grace + STOP_MARGIN;
    enclave.on(Input::Message(&health()), by - Duration::from_secs(1));
    assert_eq!(enclave.on(Input::Deadline, by), Some(Action::Kill));
    assert_eq!(enclave.on(Input::Deadline, by), None);
    enclave.on(Input::Deadline, by + MAX_KILL);
    let (cause, detail) = end(&enclave);
    assert_eq!(cause, Cause::Killed);
    assert!(detail.contains("within 2 s"), "{detail}");
}

#[test]
fn a_second_signal_kills_but_a_second_request_does_not() {
    let now = Instant::now();
    let mut enclave = booted(now);
    enclave.on(STOP, now);
    let request = Input::Stop {
        grace: None,
        insists: false,
    };
    assert_eq!(enclave.on(request, now), None);
    assert_eq!(enclave.on(STOP, now), Some(Action::Kill));
    assert_eq!(enclave.on(STOP, now), None);
}

#[test]
fn a_lost_connection_may_come_back() {
    let now = Instant::now();
    let mut enclave = booted(now);
    enclave.on(Input::Disconnected, now);
    assert_eq!(enclave.deadline(), Some(now + MAX_DISCONNECTED));
    assert_eq!(enclave.on(Input::Connected, now), None);
    assert_eq!(enclave.phase(), Phase::Ready);
    assert_eq!(enclave.deadline(), Some(now + MAX_SILENCE));
    enclave.on(Input::Disconnected, now);
    assert_eq!(
        enclave.on(Input::Deadline, now + MAX_DISCONNECTED),
        Some(Action::Kill)
    );
    enclave.on(Input::Exited(String::new()), now);
    assert_eq!(end(&enclave).0, Cause::Died);
}

#[test]
fn a_request_to_stop_is_repeated_on_a_new_connection() {
    let now = Instant::now();
    let mut enclave = booted(now);
    let shutdown = Some(Action::SendShutdown { grace: None });
    assert_eq!(enclave.on(STOP, now), shutdown);
    enclave.on(Input::Disconnected, now);
    assert_eq!(enclave.on(Input::Connected, now), shutdown);
}

#[test]
fn a_stop_while_the_connection_is_lost_waits_for_it() {
    let now = Instant::now();
    let shutdown = Some(Action::SendShutdown { grace: None });
    let mut enclave = booted(now);
    enclave.on(Input::Disconnected, now);
    assert_eq!(enclave.on(STOP, now), None);
    assert_eq!(enclave.on(Input::Connected, now), shutdown);

    let mut enclave = booted(now);
    enclave.on(Input::Disconnected, now);
    assert_eq!(enclave.on(STOP, now), None);
    let late = now + MAX_DISCONNECTED;
    assert_eq!(enclave.on(Input::Deadline, late), Some(Action::Kill));
    enclave.on(Input::Exited(String::new()), late);
    assert_eq!(end(&enclave).0, Cause::Killed);
}

#[test]
fn one_that_was_taken_over_must_connect_in_time() {
    let now = Instant::now();
    let mut enclave = Enclave::attached(BOOT, true, true, now);
    assert_eq!(enclave.phase(), Phase::Ready);
    assert_eq!(enclave.deadline(), Some(now + MAX_DISCONNECTED));
    assert_eq!(enclave.on(Input::Connected, now), None);
    assert_eq!(enclave.deadline(), Some(now + MAX_SILENCE));
    assert_eq!(enclave.on(Input::Heartbeat, now), None);
    assert_eq!(enclave.on(Input::ConnectedAgain, now), Some(Action::Kill));

    let mut enclave = Enclave::attached(BOOT, true, true, now);
    let late = now + MAX_DISCONNECTED;
    assert_eq!(enclave.on(Input::Deadline, late), Some(Action::Kill));
    enclave.on(Input::Exited(String::new()), late);
    assert_eq!(end(&enclave).0, Cause::Died);

    // One that perhaps was never connected is about to be.
    let mut enclave = Enclave::attached(BOOT, false, false, now);
    assert_eq!(enclave.on(STOP, now), None);
    let shutdown = Some(Action::SendShutdown { grace: None });
    assert_eq!(enclave.on(Input::Connected, now), shutdown);

    // One that has not connected yet goes on booting.
    let mut enclave = Enclave::attached(BOOT, false, false, now);
    assert_eq!(enclave.phase(), Phase::Booting);
    assert_eq!(enclave.deadline(), Some(now + BOOT));
    assert_eq!(enclave.on(Input::Heartbeat, now), None);
    enclave.on(Input::Connected, now);
    enclave.on(Input::Message(&ready()), now);
    assert_eq!(enclave.phase(), Phase::Ready);
}

#[test]
fn time_that_the_agent_lost_is_not_the_enclaves_silence() {
    let now = Instant::now();
    let lost = Duration::from_secs(75);
    let mut enclave = booted(now);
    assert_eq!(enclave.on(Input::Lost(lost), now + lost), None);
    assert_eq!(enclave.on(Input::Deadline, now + lost), None);
    assert_eq!(enclave.deadline(), Some(now + MAX_SILENCE + lost));
    // It is given no more than that.
    let late = now + MAX_SILENCE + lost;
    assert_eq!(enclave.on(Input::Deadline, late), Some(Action::Kill));
}

#[test]
fn time_that_the_agent_lost_moves_every_deadline() {
    let now = Instant::now();
    let lost = Duration::from_secs(400);
    let ending = ending(EndCause::Shutdown);
    let grace = Duration::from_secs(2);
    let stop = Input::Stop {
        grace: Some(grace),
        insists: false,
    };
    let booting = || {
        let mut enclave = Enclave::new(BOOT);
        enclave.on(Input::Started, now);
        enclave
    };
    for (mut enclave, input, limit) in [
        (booting(), Input::Heartbeat, BOOT),
        (booted(now), Input::Disconnected, MAX_DISCONNECTED),
        (booted(now), Input::Message(&ending), MAX_POWER_OFF),
        (booted(now), stop.clone(), grace + STOP_MARGIN),
        (
            Enclave::attached(BOOT, true, true, now),
            Input::Deadline,
            MAX_DISCONNECTED,
        ),
    ] {
        enclave.on(input, now);
        enclave.on(Input::Lost(lost), now + lost);
        let said = enclave.on(Input::Deadline, now + lost);
        assert_eq!(said, None, "{enclave:?}");
        let late = enclave.on(Input::Deadline, now + lost + limit);
        assert_eq!(late, Some(Action::Kill), "{enclave:?}");
    }
}

#[test]
fn a_machine_that_stays_on_is_killed_and_keeps_its_cause() {
    let now = Instant::now();
    let mut enclave = booted(now);
    let cause = EndCause::WorkloadExited(ExitStatus::Code(7));
    enclave.on(Input::Message(&ending(cause)), now);
    assert_eq!(
        enclave.on(Input::Deadline, now + MAX_POWER_OFF),
        Some(Action::Kill)
    );
    enclave.on(Input::Exited(String::new()), now);
    let (cause, detail) = end(&enclave);
    assert_eq!(cause, Cause::WorkloadFailed);
    assert!(
        detail.contains("code 7") && detail.contains("still on"),
        "{detail}"
    );
}

#[test]
fn a_stranger_is_refused_only_while_the_init_is_awaited() {
    let now = Instant::now();
    let mut enclave = Enclave::new(BOOT);
    enclave.on(Input::Started, now);
    let stranger = || Input::Incompatible("version 2".to_owned());
    assert_eq!(enclave.on(stranger(), now), Some(Action::Kill));
    enclave.on(Input::Exited(String::new()), now);
    assert_eq!(end(&enclave), (Cause::BootFailed, "version 2"));
    assert_eq!(booted(now).on(stranger(), now), None);
}

proptest! {
    /// Whatever is heard in whatever order: an exit ends it, the end stays,
    /// and until then a deadline is set once the machine runs.
    #[test]
    fn every_life_ends(choices in proptest::collection::vec((0..13u8, 0..90u64), 0..40)) {
        let mut now = Instant::now();
        let mut enclave = Enclave::new(BOOT);
        let mut started = false;
        for (choice, seconds) in choices {
            now += Duration::from_secs(seconds);
            let messages = [ready(), ending(EndCause::Shutdown), health()];
            let input = match choice {
                0 => { started = true; Input::Started }
                1 => Input::Heartbeat,
                2 => Input::Connected,
                3 => Input::Disconnected,
                4..=6 => Input::Message(&messages[usize::from(choice - 4)]),
                7 => Input::Incompatible("x".to_owned()),
                8 => STOP,
                9 => Input::Lost(Duration::from_secs(seconds)),
                10 => Input::ConnectedAgain,
                11 => panic::tests::panicked(),
                _ => Input::Deadline,
            };
            enclave.on(input, now);
            prop_assert!(!started || enclave.deadline().is_some() || enclave.end().is_some());
        }
        enclave.on(Input::Exited("gone".to_owned()), now);
        let end = enclave.end().cloned();
        prop_assert!(end.is_some());
        enclave.on(STOP, now);
        enclave.on(Input::Connected, now);
        prop_assert_eq!(enclave.end().cloned(), end);
        prop_assert_eq!(enclave.phase(), Phase::Ended);
    }
}

/// The longest that an end takes which was asked for, with a grace of no time, or
/// announced: its last words may come at the last moment of the one before.
const LONGEST_END: Duration =
    Duration::from_secs(STOP_MARGIN.as_secs() + MAX_POWER_OFF.as_secs() + MAX_KILL.as_secs() + 1);

proptest! {
    /// Once an end was asked for or announced, nothing that an enclave says puts it off.
    #[test]
    fn every_end_comes_in_time_whatever_the_enclave_says(
        was_asked: bool,
        choices in proptest::collection::vec((0..10u8, 0..10u64), 1..20),
    ) {
        let begun = Instant::now();
        let mut now = begun;
        let mut enclave = booted(now);
        let messages = [ready(), ending(EndCause::Shutdown), health()];
        let first = if was_asked {
            Input::Stop { grace: Some(Duration::ZERO), insists: false }
        } else {
            Input::Message(&messages[1])
        };
        enclave.on(first, now);
        for (choice, seconds) in choices.into_iter().cycle() {
            let next = now + Duration::from_secs(seconds).max(Duration::from_millis(100));
            while let Some(deadline) = enclave.deadline().filter(|deadline| *deadline <= next) {
                enclave.on(Input::Deadline, deadline);
            }
            now = next;
            if enclave.end().is_some() {
                break;
            }
            prop_assert!(now <= begun + LONGEST_END, "{:?}", enclave);
            let input = match choice {
                0 => Input::Heartbeat,
                1 => Input::Connected,
                2 => Input::ConnectedAgain,
                3 => Input::Disconnected,
                4 => Input::Incompatible("x".to_owned()),
                5 => panic::tests::panicked(),
                6 => Input::Message(&messages[0]),
                7 => Input::Message(&messages[2]),
                _ => Input::Message(&messages[1]),
            };
            enclave.on(input, now);
        }
    }
}

#[test]
fn codes_of_the_enclave_are_kept_with_its_end() {
    let now = Instant::now();
    let killed = EndCause::WorkloadExited(ExitStatus::Signal(9));
    for (cause, code, kept, detail) in [
        (
            killed,
            "workload.out-of-memory",
            Some("workload.out-of-memory"),
            "the workload was killed because its memory had run out",
        ),
        (
            killed,
            "workload.signal",
            Some("workload.signal"),
            "the workload was killed by signal 9",
        ),
        (
            EndCause::InitFailed,
            "init.panic",
            Some("init.panic"),
            "the init failed: because",
        ),
        (
            EndCause::BootFailed,
            "BOOT\u{1b}[1m.x",
            Some("1m.x"),
            "because",
        ),
        (
            EndCause::WorkloadExited(ExitStatus::Code(0)),
            "workload.unhealthy",
            Some("workload.unhealthy"),
            "because",
        ),
        (EndCause::Shutdown, "", None, "as asked"),
    ] {
        let mut enclave = booted(now);
        enclave.on(Input::Message(&ending_with(cause, code)), now);
        enclave.on(Input::Exited("gone".to_owned()), now);
        let end = enclave.end().unwrap();
        assert_eq!(end.code.as_ref().map(Code::to_string).as_deref(), kept);
        assert_eq!(end.detail, detail);
    }
    // One whose machine stays on, or starts again, has said the same.
    for input in [Input::Heartbeat, Input::Deadline] {
        let mut enclave = booted(now);
        enclave.on(Input::Message(&ending_with(killed, "workload.signal")), now);
        enclave.on(input, now + MAX_POWER_OFF);
        enclave.on(Input::Exited("gone".to_owned()), now);
        let code = enclave.end().unwrap().code.as_ref().unwrap();
        assert!(code.is(link::EndCode::WorkloadSignal), "{code}");
    }
}
