//! What the service counts, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::crowd::Eviction;
use crate::problem::Problem;
use crate::store::Use;

/// What requests are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Challenges,
    Verify,
    Policies,
    Jwks,
    OpenApi,
    Healthz,
    Readyz,
    Other,
}

impl Route {
    const ALL: [Self; 8] = [
        Self::Challenges,
        Self::Verify,
        Self::Policies,
        Self::Jwks,
        Self::OpenApi,
        Self::Healthz,
        Self::Readyz,
        Self::Other,
    ];

    pub(crate) fn of(path: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|route| route.path() == path)
            .unwrap_or(Self::Other)
    }

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Challenges => "/v1/challenges",
            Self::Verify => "/v1/verify",
            Self::Policies => "/v1/policies",
            Self::Jwks => "/.well-known/jwks.json",
            Self::OpenApi => "/openapi.json",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Other => "other",
        }
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Upper ends of the histograms' buckets, in microseconds.
const BUCKETS_US: [u64; 11] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
];

#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Histogram {
    buckets: [Counter; BUCKETS_US.len()],
    count: Counter,
    sum_us: AtomicU64,
}

impl Histogram {
    fn observe(&self, taken: Duration) {
        let taken = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        let fits = |(end, _): &(&u64, _)| taken <= **end;
        if let Some((_, bucket)) = BUCKETS_US.iter().zip(&self.buckets).find(fits) {
            bucket.add();
        }
        self.count.add();
        self.sum_us.fetch_add(taken, Ordering::Relaxed);
    }
}

/// All counters of a service.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: [[Counter; CLASSES.len()]; Route::ALL.len()],
    request_seconds: Histogram,
    problems: Mutex<BTreeMap<&'static str, u64>>,
    accepted: Counter,
    /// By the first rule that was broken: there are some seventy.
    rejected: Mutex<BTreeMap<String, u64>>,
    verification_seconds: Histogram,
    signed: Counter,
    challenges_issued: Counter,
    challenges_used: [Counter; 3],
    connections: Counter,
    connections_ended: Counter,
    connections_refused: Counter,
    connections_evicted: [Counter; 2],
    reloads: [Counter; 2],
    key_changes: Counter,
}

/// What is not counted but looked up when somebody asks.
pub(crate) struct Gauges {
    pub(crate) policies: usize,
    pub(crate) signing_keys: usize,
    pub(crate) ready: bool,
}

impl Metrics {
    /// A response to a request, and how long it took.
    pub(crate) fn request(&self, route: Route, status: u16, taken: Duration) {
        let class = usize::from(status / 100).saturating_sub(1);
        let row = self.requests.get(route as usize);
        if let Some(counter) = row.and_then(|row| row.get(class)) {
            counter.add();
        }
        if route == Route::Verify {
            self.request_seconds.observe(taken);
        }
    }

    pub(crate) fn problem(&self, name: &'static str) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        *problems.entry(name).or_default() += 1;
    }

    /// How long a verification took.
    pub(crate) fn verification(&self, taken: Duration) {
        self.verification_seconds.observe(taken);
    }

    /// What came of a document: it is accepted, or broke a rule.
    pub(crate) fn verified(&self, rejected_by: Option<&str>) {
        match rejected_by {
            None => self.accepted.add(),
            Some(rule) => {
                let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
                *rejected.entry(rule.to_owned()).or_default() += 1;
            }
        }
    }

    pub(crate) fn signed(&self) {
        self.signed.add();
    }

    pub(crate) fn challenge_issued(&self) {
        self.challenges_issued.add();
    }

    pub(crate) fn challenge_used(&self, used: Use) {
        let [first, again, forgotten] = &self.challenges_used;
        match used {
            Use::First => first.add(),
            Use::Again => again.add(),
            Use::Forgotten => forgotten.add(),
        }
    }

    pub(crate) fn connection_begins(&self) {
        self.connections.add();
    }

    pub(crate) fn connection_ends(&self) {
        self.connections_ended.add();
    }

    /// A connection had no place, not even in the reserve.
    pub(crate) fn connection_refused(&self) {
        self.connections_refused.add();
    }

    /// A connection had to make room for another.
    pub(crate) fn connection_evicted(&self, eviction: Eviction) {
        let [share, limit] = &self.connections_evicted;
        match eviction {
            Eviction::Share => share.add(),
            Eviction::Limit => limit.add(),
        }
    }

    pub(crate) fn reload(&self, succeeded: bool) {
        let [failed, loaded] = &self.reloads;
        if succeeded { loaded } else { failed }.add();
    }

    pub(crate) fn keys_changed(&self) {
        self.key_changes.add();
    }

    /// The exposition format, version 0.0.4.
    pub(crate) fn render(&self, gauges: &Gauges) -> String {
        let mut text = Text(String::with_capacity(8 * 1024));
        text.family("attest_build_info", "gauge", "The version that runs.");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        text.sample("attest_build_info", &version, 1);

        text.family(
            "attest_requests_total",
            "counter",
            "Requests that were answered.",
        );
        for (route, row) in Route::ALL.iter().zip(&self.requests) {
            for (class, counter) in CLASSES.iter().zip(row) {
                if counter.get() > 0 {
                    let labels = [("path", route.path()), ("status", *class)];
                    text.sample("attest_requests_total", &labels, counter.get());
                }
            }
        }
        text.histogram(
            "attest_verify_request_seconds",
            "From the head of a POST /v1/verify to the head of its answer.",
            &self.request_seconds,
        );
        text.family(
            "attest_problems_total",
            "counter",
            "Requests that were not answered as asked.",
        );
        let problems = self
            .problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for problem in Problem::all() {
            let count = problems.get(problem.name()).copied().unwrap_or_default();
            text.sample(
                "attest_problems_total",
                &[("problem", problem.name())],
                count,
            );
        }
        text.family(
            "attest_accepted_total",
            "counter",
            "Documents that were accepted.",
        );
        text.sample("attest_accepted_total", &[], self.accepted.get());
        text.family(
            "attest_rejected_total",
            "counter",
            "Documents that were refused, by the first rule that they broke; challenge.used and challenge.expired are replays.",
        );
        let rejected = self
            .rejected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (rule, count) in rejected {
            text.sample("attest_rejected_total", &[("rule", &rule)], count);
        }
        text.histogram(
            "attest_verification_seconds",
            "A verification and its result, without the wait for a thread.",
            &self.verification_seconds,
        );
        self.render_state(&mut text, gauges);
        text.0
    }

    fn render_state(&self, text: &mut Text, gauges: &Gauges) {
        let [first, again, forgotten] = &self.challenges_used;
        let [reload_failed, reload_loaded] = &self.reloads;
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        for (name, kind, help, value) in [
            (
                "attest_signed_total",
                "counter",
                "Results that were signed.",
                self.signed.get(),
            ),
            (
                "attest_challenges_issued_total",
                "counter",
                "Challenges that were issued.",
                self.challenges_issued.get(),
            ),
            (
                "attest_connections_total",
                "counter",
                "Connections that were accepted.",
                self.connections.get(),
            ),
            (
                "attest_connections_open",
                "gauge",
                "Connections that are open.",
                // Read first: none ends before it begins.
                {
                    let ended = self.connections_ended.get();
                    self.connections.get().saturating_sub(ended)
                },
            ),
            (
                "attest_connections_refused_total",
                "counter",
                "Connections that were closed at once, while the service worked for all others.",
                self.connections_refused.get(),
            ),
            (
                "attest_policies",
                "gauge",
                "Policies in force.",
                number(gauges.policies),
            ),
            (
                "attest_signing_keys",
                "gauge",
                "Keys that are published.",
                number(gauges.signing_keys),
            ),
            (
                "attest_signing_key_changes_total",
                "counter",
                "Times that a key was made or removed since the start.",
                self.key_changes.get(),
            ),
            (
                "attest_ready",
                "gauge",
                "Whether GET /readyz answers 200.",
                u64::from(gauges.ready),
            ),
        ] {
            text.family(name, kind, help);
            text.sample(name, &[], value);
        }
        text.family(
            "attest_connections_evicted_total",
            "counter",
            "Connections that made room for another, of a client that had its share or of all.",
        );
        let [share, limit] = &self.connections_evicted;
        for (label, counter) in [("client", share), ("total", limit)] {
            let labels = [("limit", label)];
            text.sample("attest_connections_evicted_total", &labels, counter.get());
        }
        text.family(
            "attest_challenges_used_total",
            "counter",
            "Documents that were accepted for a challenge: for the first time, again, or when it was forgotten.",
        );
        for (label, counter) in [("first", first), ("again", again), ("forgotten", forgotten)] {
            let labels = [("use", label)];
            text.sample("attest_challenges_used_total", &labels, counter.get());
        }
        text.family(
            "attest_policy_reloads_total",
            "counter",
            "Reloads of the policies; after a failed one the old policies stay in force.",
        );
        for (label, counter) in [("loaded", reload_loaded), ("failed", reload_failed)] {
            let labels = [("result", label)];
            text.sample("attest_policy_reloads_total", &labels, counter.get());
        }
    }
}

/// Writes the format; label values are names of ours and need no escapes.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let mut below = 0;
        let bucket = format!("{name}_bucket");
        for (end, counter) in BUCKETS_US.iter().zip(&histogram.buckets) {
            below += counter.get();
            self.sample(&bucket, &[("le", &seconds(*end))], below);
        }
        // A reader may come between two additions: buckets never decrease.
        let count = histogram.count.get().max(below);
        self.sample(&bucket, &[("le", "+Inf")], count);
        let sum = seconds(histogram.sum_us.load(Ordering::Relaxed));
        let _ = writeln!(self.0, "{name}_sum {sum}");
        self.sample(&format!("{name}_count"), &[], count);
    }
}

/// Microseconds as a decimal number of seconds.
fn seconds(microseconds: u64) -> String {
    let text = format!(
        "{}.{:06}",
        microseconds / 1_000_000,
        microseconds % 1_000_000
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative() {
        let histogram = Histogram::default();
        for taken in [100, 250, 251, 3_000_000] {
            histogram.observe(Duration::from_micros(taken));
        }
        let mut text = Text(String::new());
        text.histogram("h", "Help.", &histogram);
        for line in [
            "# TYPE h histogram",
            "h_bucket{le=\"0.00025\"} 2",
            "h_bucket{le=\"0.0005\"} 3",
            "h_bucket{le=\"1\"} 3",
            "h_bucket{le=\"+Inf\"} 4",
            "h_sum 3.000601",
            "h_count 4",
        ] {
            assert!(
                text.0.lines().any(|other| other == line),
                "{line}\n{}",
                text.0
            );
        }
    }

    #[test]
    fn routes_are_found_by_their_path() {
        for route in Route::ALL {
            assert_eq!(Route::of(route.path()), route);
        }
        assert_eq!(Route::of("/v1/verify/"), Route::Other);
    }
}
