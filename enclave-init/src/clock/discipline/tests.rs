use proptest::prelude::*;

use super::*;

const DRIFT: i64 = 200_000;
const LIMITS: Limits = Limits {
    drift: DRIFT,
    rate: 500_000,
    confirmations: 3,
    is_ours: true,
};
/// How exactly the hypervisor says the time; two intervals that barely touch may
/// both be wrong by so much.
const EXACT: Nanos = 1_000;
const START: Nanos = 1_800_000_000 * SECOND;

/// A machine, its clock, and the world outside.
struct World {
    time: Nanos,
    raw: Nanos,
    wall: Nanos,
    /// How much faster time passes than the oscillator counts, in parts per billion.
    drift: i64,
    discipline: Discipline,
    /// Every step so far.
    steps: Vec<Nanos>,
    notices: Vec<Notice>,
}

impl World {
    fn new(offset: Nanos) -> Self {
        Self {
            time: START,
            raw: 0,
            wall: START - offset,
            drift: 0,
            discipline: Discipline::new(LIMITS),
            steps: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// One whose clock was set from the hypervisor.
    fn booted() -> Self {
        let mut world = World::new(0);
        world.hears(Source::Hypervisor, 0, EXACT);
        world.hears(Source::Module, 0, 2 * MILLISECOND);
        world.steps.clear();
        world
    }

    fn now(&self) -> Reading {
        Reading {
            raw: self.raw,
            width: 0,
            wall: self.wall,
        }
    }

    /// Lets the machine run.
    fn run(&mut self, raw: Nanos) {
        let part = |ppb: i64| raw * Nanos::from(ppb) / BILLION;
        self.raw += raw;
        self.time += raw + part(self.drift);
        self.wall += raw + part(self.discipline.rate());
    }

    /// Stops the machine, and its oscillator.
    fn stop(&mut self, time: Nanos) {
        self.time += time;
    }

    /// A source says the time, wrong by `lie`, and no more exactly than `width`.
    fn hears(&mut self, source: Source, lie: Nanos, width: Nanos) -> Decision {
        let early = width * (self.raw % 5) / 4;
        let sample = Belief {
            raw: self.raw,
            earliest: self.time + lie - early,
            latest: self.time + lie + width - early,
        };
        let decision = self.discipline.on_sample(source, sample, self.now());
        if let Some(step) = decision.step {
            self.wall += step;
            self.steps.push(step);
        }
        self.notices.extend(decision.notice);
        decision
    }

    /// The machine runs for so many seconds; both sources are heard, wrong by these.
    fn seconds(&mut self, seconds: u32, lies: [Nanos; 2]) {
        for _ in 0..seconds {
            self.run(SECOND);
            self.hears(Source::Hypervisor, lies[0], EXACT);
            self.hears(Source::Module, lies[1], 2 * MILLISECOND);
            self.discipline.on_tick(self.now());
        }
    }

    fn state(&self) -> ClockState {
        self.discipline.state(self.now())
    }

    fn is_within_bound(&self) -> bool {
        let error = self.discipline.error(self.now());
        error.is_some_and(|error| (self.wall - self.time).abs() <= error + EXACT)
    }
}

#[test]
fn the_boot_sets_the_clock_in_either_direction_once() {
    for offset in [-40 * SECOND, 40 * SECOND] {
        let mut world = World::new(offset);
        assert_eq!(world.state(), ClockState::NoSource);
        assert_eq!(world.discipline.error(world.now()), None);
        world.hears(Source::Hypervisor, 0, 0);
        assert_eq!(world.steps, [offset]);
        assert_eq!(world.wall, world.time);
        assert_eq!(world.state(), ClockState::Synchronised);
        world.seconds(100, [0, 0]);
        assert_eq!(world.steps.len(), 1);
    }
}

#[test]
fn a_clock_that_nobody_set_at_boot_is_slewed() {
    let mut world = World::new(SECOND);
    world.discipline.end_boot();
    world.hears(Source::Module, 0, 0);
    assert_eq!(world.state(), ClockState::Disagreement);
    world.seconds(1_000, [0, 0]);
    assert_eq!(world.steps, []);
    assert!(world.time - world.wall < SECOND - 400 * MILLISECOND);
    assert!(world.is_within_bound());
}

#[test]
fn drift_is_measured_and_made_up_for() {
    let mut world = World::booted();
    world.drift = 150_000;
    world.seconds(600, [0, 0]);
    assert!((world.discipline.frequency - 150_000).abs() < 1_000);
    assert!((world.wall - world.time).abs() < MILLISECOND / 10);
    assert!(world.discipline.error(world.now()).unwrap() < MILLISECOND);
}

#[test]
fn a_source_that_goes_away_leaves_a_bound_that_grows() {
    let mut world = World::booted();
    world.drift = -100_000;
    world.seconds(300, [0, 0]);
    let before = world.discipline.error(world.now()).unwrap();
    for _ in 0..3_600 {
        world.run(SECOND);
        for source in Source::ALL {
            world.discipline.on_failure(source, world.now());
        }
        world.discipline.on_tick(world.now());
    }
    assert_eq!(world.state(), ClockState::Holdover);
    assert_eq!(
        world.discipline.source(world.now()),
        Some(Source::Hypervisor)
    );
    let error = world.discipline.error(world.now()).unwrap();
    assert!(error > before + 700 * MILLISECOND, "{error}");
    assert!(world.is_within_bound());
    // The rate that was measured keeps the clock far better than that.
    assert!((world.wall - world.time).abs() < 10 * MILLISECOND);
    world.seconds(2, [0, 0]);
    assert_eq!(world.state(), ClockState::Synchronised);
}

#[test]
fn the_module_is_followed_where_the_hypervisor_has_no_clock() {
    let mut world = World::new(SECOND);
    world.drift = 80_000;
    for _ in 0..200 {
        world.hears(Source::Module, 0, 3 * MILLISECOND);
        world.run(16 * SECOND);
        assert!(world.is_within_bound());
    }
    assert_eq!(world.state(), ClockState::Synchronised);
    assert_eq!(world.discipline.source(world.now()), Some(Source::Module));
    assert!((world.wall - world.time).abs() < 5 * MILLISECOND);
}

#[test]
fn a_machine_that_was_stopped_is_stepped_forward_once_both_sources_say_so() {
    let mut world = World::booted();
    world.seconds(60, [0, 0]);
    world.stop(40 * SECOND);
    let decision = world.hears(Source::Hypervisor, 0, EXACT);
    assert_eq!(decision.step, None, "one source alone");
    assert_eq!(decision.confirm, Some(Source::Module));
    assert_eq!(world.state(), ClockState::Disagreement);
    assert!(world.is_within_bound());
    world.hears(Source::Module, 0, 2 * MILLISECOND);
    assert_eq!(world.discipline.pauses(), 1);
    assert_eq!(world.state(), ClockState::Synchronised);
    assert!((world.wall - world.time).abs() < MILLISECOND);
    assert!(matches!(world.notices[..], [
        Notice::Contradicted(Source::Hypervisor, _),
        Notice::Stopped(stopped),
    ] if (stopped - 40 * SECOND).abs() < 2 * MILLISECOND));
    world.seconds(60, [0, 0]);
    assert_eq!(world.steps.len(), 1);
}

#[test]
fn a_stopped_machine_with_one_source_is_stepped_once_that_insists() {
    let mut world = World::new(0);
    let hears = |world: &mut World| world.hears(Source::Module, 0, 2 * MILLISECOND);
    hears(&mut world);
    world.stop(40 * SECOND);
    for _ in 1..LIMITS.confirmations {
        assert_eq!(hears(&mut world).step, None);
        world.run(5 * SECOND);
    }
    assert!(hears(&mut world).step.is_some());
    assert_eq!(world.discipline.pauses(), 1);
    assert_eq!(world.state(), ClockState::Synchronised);
}

#[test]
fn an_emulated_oscillator_that_loses_time_is_made_up_for_at_once() {
    let mut world = World::new(0);
    world.discipline = Discipline::new(Limits {
        confirmations: 1,
        ..LIMITS
    });
    for pauses in 0..10 {
        world.hears(Source::Module, 0, 2 * MILLISECOND);
        assert_eq!(world.discipline.pauses(), pauses);
        assert_eq!(world.state(), ClockState::Synchronised);
        assert!(world.is_within_bound());
        world.run(4 * SECOND);
        world.stop(SECOND);
    }
}

#[test]
fn one_source_that_the_other_contradicts_moves_nothing() {
    for lie in [-1_000 * SECOND, -SECOND, SECOND, 1_000 * SECOND] {
        for lies in [[lie, 0], [0, lie]] {
            let mut world = World::booted();
            world.seconds(60, [0, 0]);
            world.seconds(600, lies);
            assert_eq!(world.state(), ClockState::Disagreement);
            assert_eq!(world.steps, []);
            assert_eq!(world.discipline.pauses(), 0);
            assert!((world.wall - world.time).abs() < 3 * MILLISECOND);
            // It cannot know which of them is right.
            assert!(world.discipline.error(world.now()).unwrap() > lie.abs() - SECOND / 100);
            world.seconds(1, [0, 0]);
            assert_eq!(world.state(), ClockState::Synchronised);
        }
    }
}

#[test]
fn sources_that_both_go_back_never_set_the_clock_back() {
    let mut world = World::booted();
    world.seconds(60, [0, 0]);
    let back = -10 * SECOND;
    let mut last = world.wall;
    for _ in 0..600 {
        world.seconds(1, [back, back]);
        assert!(world.wall > last);
        last = world.wall;
        assert_eq!(world.state(), ClockState::Disagreement);
    }
    assert_eq!(world.steps, []);
    assert!(matches!(world.notices.last(), Some(Notice::WentBack(by)) if *by > 9 * SECOND));
    // Slewed for 600 s at 500 ppm, and 20,000 s are needed in all.
    let ahead = world.wall - (world.time + back);
    assert!(ahead < 10 * SECOND - 250 * MILLISECOND, "{ahead}");
    world.seconds(20_000, [back, back]);
    assert_eq!(world.state(), ClockState::Synchronised);
}

#[test]
fn a_clock_that_is_not_ours_is_watched_and_left_alone() {
    let mut world = World::new(0);
    world.discipline = Discipline::new(Limits {
        is_ours: false,
        ..LIMITS
    });
    world.wall += SECOND;
    world.seconds(10, [0, 0]);
    assert_eq!(world.steps, []);
    assert_eq!(world.discipline.rate(), 0);
    assert_eq!(world.state(), ClockState::Disagreement);
}

#[test]
fn a_gap_counts_as_a_pause_and_moves_nothing() {
    let mut world = World::booted();
    world.discipline.on_gap();
    assert_eq!(world.discipline.pauses(), 1);
    assert_eq!(world.state(), ClockState::Synchronised);
}

/// What happens to a machine.
#[derive(Debug, Clone)]
enum Happening {
    /// It runs, its oscillator wrong by this rate.
    Runs { milliseconds: u32, drift: i64 },
    /// It is stopped.
    Stops { milliseconds: u32 },
    /// Whether each source answers from now on.
    Answers([bool; 2]),
    /// One source is wrong from now on; the other one answers, and is right.
    Lies { source: usize, by: i64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1..30_000u32, -DRIFT..=DRIFT)
            .prop_map(|(milliseconds, drift)| Happening::Runs { milliseconds, drift }),
        1 => (0..100_000u32).prop_map(|milliseconds| Happening::Stops { milliseconds }),
        1 => any::<[bool; 2]>().prop_map(Happening::Answers),
        1 => (0..2usize, prop_oneof![Just(0), 1_000..1_000_000i64, -1_000_000..-1_000i64])
            .prop_map(|(source, by)| Happening::Lies { source, by }),
    ]
}

proptest! {
    /// Whatever happens: the bound holds, the clock does not go back, no rate is
    /// above the limit, and no step without a pause.
    #[test]
    fn the_bound_always_holds(
        offset in -1_000_000..1_000_000i64,
        happenings in proptest::collection::vec(happening(), 0..120),
    ) {
        let mut world = World::new(Nanos::from(offset) * MILLISECOND);
        world.hears(Source::Hypervisor, 0, EXACT);
        let booted = world.steps.len();
        let mut answers = [true; 2];
        let mut lies = [0; 2];
        for happening in happenings {
            let before = world.wall;
            match happening {
                Happening::Runs { milliseconds, drift } => {
                    world.drift = drift;
                    world.run(Nanos::from(milliseconds) * MILLISECOND);
                    prop_assert!(world.is_within_bound());
                }
                Happening::Stops { milliseconds } => {
                    world.stop(Nanos::from(milliseconds) * MILLISECOND);
                    // A stop can be seen by those only who can be asked.
                    (answers, lies) = ([true; 2], [0; 2]);
                }
                Happening::Answers(next) if lies == [0; 2] => answers = next,
                Happening::Answers(_) => {}
                Happening::Lies { source, by } => {
                    (answers, lies) = ([true; 2], [0; 2]);
                    lies[source] = Nanos::from(by) * MILLISECOND;
                }
            }
            // Twice, as a contradiction has the other one asked at once.
            for source in [Source::Hypervisor, Source::Module, Source::Hypervisor] {
                let width = if source == Source::Module { 3 * MILLISECOND } else { EXACT };
                if answers[source as usize] {
                    world.hears(source, lies[source as usize], width);
                } else {
                    world.discipline.on_failure(source, world.now());
                }
            }
            prop_assert!(world.is_within_bound());
            prop_assert!(world.wall >= before);
            prop_assert!(world.discipline.rate().abs() <= LIMITS.rate);
        }
        let steps = world.steps.len() - booted;
        prop_assert!(booted <= 1);
        prop_assert!(world.steps[booted..].iter().all(|step| *step >= STEP));
        prop_assert!(u64::try_from(steps).unwrap() <= world.discipline.pauses());
    }

    /// Whatever a source says: nothing overflows, and the clock does not go back.
    #[test]
    fn nonsense_does_no_harm(
        samples in proptest::collection::vec(
            (any::<bool>(), any::<i64>(), any::<i64>(), 0..i64::MAX, any::<i64>()), 0..40),
    ) {
        let mut discipline = Discipline::new(LIMITS);
        let mut is_first = true;
        for (is_module, raw, earliest, width, wall) in samples {
            let source = if is_module { Source::Module } else { Source::Hypervisor };
            let sample = Belief {
                raw: raw.into(),
                earliest: earliest.into(),
                latest: Nanos::from(earliest) + Nanos::from(width) - 1,
            };
            let now = Reading { raw: raw.into(), width: 1, wall: wall.into() };
            let decision = discipline.on_sample(source, sample, now);
            prop_assert!(is_first || decision.step.is_none_or(|step| step >= STEP));
            prop_assert!(discipline.rate().abs() <= LIMITS.rate);
            is_first &= width == 0;
            discipline.on_tick(now);
            discipline.state(now);
            discipline.error(now);
        }
    }
}
