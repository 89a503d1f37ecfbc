//! How the clock follows its sources: readings and samples go in, decisions come
//! out. No clock, no input or output.
//!
//! What is believed of the true time is an interval, carried on by the raw
//! oscillator, which nothing adjusts, and widened by what that may drift. A
//! sample that meets the interval narrows it. One that does not is contradicted
//! by the oscillator, and is believed only if the other source says the same: then
//! it is the oscillator that stood still, with its machine.

use link::control::ClockState;

use super::belief::{Belief, Nanos, share};

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLISECOND;

/// A contradiction that both sources agree on, in the future and at least so
/// large, is a machine that was stopped, and the clock is stepped over it; a clock
/// that is further from its sources disagrees with them.
pub(crate) const STEP: Nanos = 100 * MILLISECOND;
/// How old what a source said may be at most for the clock to follow it.
pub(crate) const FRESH: Nanos = 64 * SECOND;
/// In what time the clock makes up for its offset, if its rate allows that.
const CATCH_UP: Nanos = 32 * SECOND;
/// The span that the oscillator's rate is measured over, and the least.
const WINDOW: Nanos = 128 * SECOND;
const LEAST_WINDOW: Nanos = 16 * SECOND;
const BILLION: Nanos = 1_000_000_000;

/// What says the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The hypervisor's clock, which is read at `/dev/ptp0`.
    Hypervisor,
    /// The security module, which puts a timestamp into each document.
    Module,
}

impl Source {
    /// Both, the one to follow first.
    pub(crate) const ALL: [Self; 2] = [Self::Hypervisor, Self::Module];

    /// The source's name, as people and programs are told it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hypervisor => "ptp-kvm",
            Self::Module => "nsm",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Hypervisor => Self::Module,
            Self::Module => Self::Hypervisor,
        }
    }
}

/// What the clock may do; rates are in parts per billion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How wrong the oscillator's rate can be.
    pub(crate) drift: i64,
    /// How much faster or slower than the oscillator the clock may be made to run.
    pub(crate) rate: i64,
    /// How often in a row a source must contradict the oscillator in the same way to
    /// be believed where no other one answers.
    pub(crate) confirmations: u32,
    /// Whether the clock can be set and slewed at all.
    pub(crate) is_ours: bool,
}

/// What the clock read when the oscillator read `raw` or up to `width` more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) raw: Nanos,
    pub(crate) width: Nanos,
    pub(crate) wall: Nanos,
}

/// What is to be done with the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Set it by so much, before anything else.
    pub(crate) step: Option<Nanos>,
    /// Something that somebody should know.
    pub(crate) notice: Option<Notice>,
    /// Ask this source at once: what the other one says needs it.
    pub(crate) confirm: Option<Source>,
}

/// What has happened to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The machine was stopped for so long, and its oscillator with it.
    Stopped(Nanos),
    /// The sources say that it is so much earlier than they said before.
    WentBack(Nanos),
    /// What a source says is contradicted, by so much.
    Contradicted(Source, Nanos),
}

/// What is known of a source.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// When it said last what is believed, and how exactly.
    heard: Option<(Nanos, Nanos)>,
    /// What it says against what is believed, and how often in a row.
    claim: Option<(Belief, u32)>,
    /// Whether it answered when it was asked last.
    answers: bool,
}

/// What a source is good for at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Nanoseconds since it said last what is believed.
    pub(crate) age: Option<Nanos>,
    /// How exactly it said so.
    pub(crate) width: Option<Nanos>,
    pub(crate) answers: bool,
    pub(crate) is_contradicted: bool,
}

/// The clock and what is known of its sources.
#[derive(Debug)]
pub(crate) struct Discipline {
    limits: Limits,
    belief: Option<Belief>,
    /// What was said against that and neither confirmed nor refuted since.
    doubt: Option<Belief>,
    /// The most likely time at a reading of the oscillator.
    estimate: (Nanos, Nanos),
    /// Where the measurement of the oscillator's rate begins.
    anchor: Option<Belief>,
    /// What makes the oscillator's rate the true one, in parts per billion.
    frequency: i64,
    /// What the clock's rate was told to be.
    rate: i64,
    hypervisor: Known,
    module: Known,
    /// Whether the clock may still be stepped in both directions.
    is_booting: bool,
    pauses: u64,
}

impl Discipline {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            belief: None,
            doubt: None,
            estimate: (0, 0),
            anchor: None,
            frequency: 0,
            rate: 0,
            hypervisor: Known::default(),
            module: Known::default(),
            is_booting: true,
            pauses: 0,
        }
    }

    /// From now on the clock is not set back any more.
    pub(crate) fn end_boot(&mut self) {
        self.is_booting = false;
    }

    /// Takes in what a source says, with the clock's reading after that.
    pub(crate) fn on_sample(&mut self, source: Source, sample: Belief, now: Reading) -> Decision {
        if sample.latest < sample.earliest {
            return self.on_failure(source, now);
        }
        self.known(source).answers = true;
        let Some(belief) = self.belief else {
            self.agree(source, sample, sample);
            self.estimate = (sample.raw, sample.middle());
            return self.set(now);
        };
        match belief.at(sample.raw, self.limits.drift).and(sample) {
            Some(met) => {
                self.agree(source, sample, met);
                self.measure(sample);
                self.follow(met);
                self.steer(now);
                Decision::default()
            }
            None => self.on_contradiction(source, sample, now),
        }
    }

    /// Takes note that a source did not answer.
    pub(crate) fn on_failure(&mut self, source: Source, now: Reading) -> Decision {
        let known = self.known(source);
        known.answers = false;
        // Nobody stands for it any more.
        if let Some((claim, _)) = known.claim.take() {
            self.doubt(claim, now.raw);
        }
        self.steer(now);
        Decision::default()
    }

    /// Takes note that the machine was not run while the oscillator went on.
    pub(crate) fn on_gap(&mut self) {
        self.pauses = self.pauses.saturating_add(1);
    }

    /// Lets time pass.
    pub(crate) fn on_tick(&mut self, now: Reading) {
        self.steer(now);
    }

    /// The rate that the clock must have from now on, in parts per billion.
    pub(crate) fn rate(&self) -> i64 {
        self.rate
    }

    pub(crate) fn pauses(&self) -> u64 {
        self.pauses
    }

    pub(crate) fn state(&self, now: Reading) -> ClockState {
        let Some(belief) = self.belief else {
            return ClockState::NoSource;
        };
        let belief = belief.at(now.raw, self.limits.drift);
        if self.is_contradicted() || belief.distance(now.wall).abs() > STEP {
            ClockState::Disagreement
        } else if self.is_fresh(now) {
            ClockState::Synchronised
        } else {
            ClockState::Holdover
        }
    }

    /// How wrong the clock is at most. Whatever was said against what is believed
    /// may be right, until it is refuted.
    pub(crate) fn error(&self, now: Reading) -> Option<Nanos> {
        let drift = self.limits.drift;
        let claims = [self.hypervisor.claim, self.module.claim]
            .into_iter()
            .flatten();
        let others = claims.map(|(claim, _)| claim).chain(self.doubt);
        let certain = others.fold(self.belief?.at(now.raw, drift), |certain, other| {
            certain.or(other.at(now.raw, drift))
        });
        let ahead = now.wall.saturating_sub(certain.earliest);
        let behind = certain.latest.saturating_sub(now.wall);
        Some(ahead.max(behind).saturating_add(now.width))
    }

    /// What the clock follows, or followed last.
    pub(crate) fn source(&self, now: Reading) -> Option<Source> {
        let age = |source| self.standing(source, now).age;
        let fresh = |source: &Source| age(*source).is_some_and(|age| age <= FRESH);
        let youngest = || {
            let heard = Source::ALL
                .into_iter()
                .filter(|source| age(*source).is_some());
            heard.min_by_key(|source| age(*source))
        };
        Source::ALL.into_iter().find(fresh).or_else(youngest)
    }

    pub(crate) fn standing(&self, source: Source, now: Reading) -> Standing {
        let known = self.of(source);
        Standing {
            age: known
                .heard
                .map(|(raw, _)| now.raw.saturating_sub(raw).max(0)),
            width: known.heard.map(|(_, width)| width),
            answers: known.answers,
            is_contradicted: known.claim.is_some(),
        }
    }

    pub(crate) fn is_contradicted(&self) -> bool {
        self.hypervisor.claim.is_some() || self.module.claim.is_some()
    }

    fn is_fresh(&self, now: Reading) -> bool {
        let ages = Source::ALL.map(|source| self.standing(source, now).age);
        ages.into_iter().flatten().any(|age| age <= FRESH)
    }

    /// Keeps a claim that its source does not uphold: it may have been right.
    fn doubt(&mut self, claim: Belief, raw: Nanos) {
        let drift = self.limits.drift;
        let claim = claim.at(raw, drift);
        self.doubt = Some(
            self.doubt
                .map_or(claim, |doubt| doubt.at(raw, drift).or(claim)),
        );
    }

    /// The source, if it claims something that is not believed.
    fn claims(&self, source: Source) -> Option<Source> {
        let is_claimed = self.of(source).claim.is_some();
        is_claimed.then_some(source)
    }

    fn of(&self, source: Source) -> &Known {
        match source {
            Source::Hypervisor => &self.hypervisor,
            Source::Module => &self.module,
        }
    }

    fn known(&mut self, source: Source) -> &mut Known {
        match source {
            Source::Hypervisor => &mut self.hypervisor,
            Source::Module => &mut self.module,
        }
    }

    /// A source says what is believed, or will be.
    fn agree(&mut self, source: Source, sample: Belief, belief: Belief) {
        let known = self.known(source);
        known.heard = Some((sample.raw, sample.width()));
        known.claim = None;
        self.anchor = self.anchor.or(Some(sample));
        self.belief = Some(belief);
        let drift = self.limits.drift;
        self.doubt = self
            .doubt
            .and_then(|doubt| doubt.at(sample.raw, drift).and(sample));
    }

    /// Sets the clock for the first time, in either direction.
    fn set(&mut self, now: Reading) -> Decision {
        let step = self.offset(now);
        let may = self.limits.is_ours && self.is_booting && step != 0;
        self.is_booting = false;
        Decision {
            step: may.then_some(step),
            ..Decision::default()
        }
    }

    fn on_contradiction(&mut self, source: Source, sample: Belief, now: Reading) -> Decision {
        let drift = self.limits.drift;
        let other = self.of(source.other());
        let confirmed = |claim: Belief| claim.at(sample.raw, drift).and(sample);
        if let Some(agreed) = other.claim.and_then(|(claim, _)| confirmed(claim)) {
            return self.believe(source, agreed, now);
        }
        let before = self.of(source).claim;
        let repeated = before.and_then(|(claim, times)| Some((confirmed(claim)?, times + 1)));
        let (claim, times) = repeated.unwrap_or((sample, 1));
        if times >= self.limits.confirmations && !other.answers {
            return self.believe(source, claim, now);
        }
        self.known(source).claim = Some((claim, times));
        if let (Some((refuted, _)), 1) = (before, times) {
            self.doubt(refuted, sample.raw);
        }
        self.steer(now);
        let told = before.is_some();
        let by = self.belief.map_or(0, |belief| {
            let believed = belief.at(sample.raw, drift).middle();
            sample.middle().saturating_sub(believed)
        });
        Decision {
            notice: (!told).then_some(Notice::Contradicted(source, by)),
            confirm: (!told).then_some(source.other()),
            step: None,
        }
    }

    /// Believes what the oscillator contradicts. The clock is stepped forward over
    /// the time that it stood still, and never back.
    fn believe(&mut self, source: Source, agreed: Belief, now: Reading) -> Decision {
        let drift = self.limits.drift;
        let before = self.belief.unwrap_or(agreed).at(agreed.raw, drift);
        let jump = agreed.middle().saturating_sub(before.middle());
        for source in [Some(source), self.claims(source.other())]
            .into_iter()
            .flatten()
        {
            let known = self.known(source);
            known.claim = None;
            known.heard = Some((agreed.raw, agreed.width()));
        }
        self.belief = Some(agreed);
        self.doubt = None;
        self.anchor = Some(agreed);
        self.estimate = (agreed.raw, agreed.middle());
        let mut decision = Decision::default();
        if jump >= STEP {
            self.pauses = self.pauses.saturating_add(1);
            decision.notice = Some(Notice::Stopped(jump));
        } else if jump <= -STEP {
            decision.notice = Some(Notice::WentBack(-jump));
        }
        let behind = self.offset(now);
        if jump.min(behind) >= STEP && self.limits.is_ours {
            decision.step = Some(behind);
        } else {
            self.steer(now);
        }
        decision
    }

    /// Measures the oscillator's rate.
    fn measure(&mut self, sample: Belief) {
        let Some(anchor) = self.anchor else { return };
        let span = sample.raw.saturating_sub(anchor.raw);
        if span < LEAST_WINDOW {
            return;
        }
        let passed = sample.middle().saturating_sub(anchor.middle());
        let gained = passed.saturating_sub(span).saturating_mul(BILLION) / span;
        let limit = Nanos::from(self.limits.drift);
        let measured = i64::try_from(gained.clamp(-limit, limit)).expect("the limit is an i64");
        let is_first = self.frequency == 0;
        if is_first || span >= WINDOW {
            self.frequency = measured;
        }
        if span >= WINDOW {
            self.anchor = Some(sample);
        }
    }

    /// Moves the estimate as little as the belief demands.
    fn follow(&mut self, belief: Belief) {
        let likely = self.likely(belief.raw);
        self.estimate = (belief.raw, likely.clamp(belief.earliest, belief.latest));
    }

    /// The most likely time.
    fn likely(&self, raw: Nanos) -> Nanos {
        let (then, time) = self.estimate;
        let elapsed = raw.saturating_sub(then);
        time.saturating_add(elapsed)
            .saturating_add(share(elapsed, self.frequency))
    }

    /// How much the clock is behind.
    fn offset(&self, now: Reading) -> Nanos {
        self.likely(now.raw.saturating_add(now.width / 2))
            .saturating_sub(now.wall)
    }

    /// Chooses the rate at which the clock makes up for its offset.
    fn steer(&mut self, now: Reading) {
        if self.belief.is_none() || !self.limits.is_ours {
            return;
        }
        let limit = Nanos::from(self.limits.rate);
        let make_up = self.offset(now).saturating_mul(BILLION) / CATCH_UP;
        let wanted = make_up.saturating_add(self.frequency.into());
        self.rate = i64::try_from(wanted.clamp(-limit, limit)).expect("the limit is an i64");
    }
}

#[cfg(test)]
mod tests;
