//! The workloads of an enclave: each lives its life, in the order that the image says, and
//! the enclave ends with an essential one.

mod end;
mod life;
mod requests;
mod run;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use link::EndCode;
use link::control::{EndCause, ExitStatus};
use link::places::Places;
use manifest::{MAX_SECRETS, MeasuredConfig, OnChange, Reaction, Workloads};
use nix::libc::c_int;
use tokio::sync::{mpsc, watch};

pub(crate) use self::end::{End, Outputs};
use self::life::{Departure, DepartureKind, Life, Order, Orders};
use self::requests::Request;
pub(crate) use self::requests::Requests;
use crate::companion::Companions;
use crate::conditions::Conditions;
use crate::confinement::Confinements;
use crate::control::{Handle, Shutdown};
use crate::logs::Logs;
use crate::notifications::Notifications;
use crate::reaper::Reaper;
use crate::workload::{self, Given, StandingBy};

/// Orders that wait for one workload: a change of every secret, and signals beside these.
const MAX_ORDERS: usize = MAX_SECRETS * 2;

/// Runs the workloads.
pub(crate) struct Supervisor<'a> {
    pub(crate) config: &'a MeasuredConfig,
    pub(crate) confinements: &'a Confinements,
    pub(crate) logs: &'a Logs,
    pub(crate) handle: &'a Handle,
    pub(crate) given: Given<'a>,
    /// The connections into the enclave.
    pub(crate) ingress: &'a Places<()>,
    pub(crate) elapsed_us: &'a dyn Fn() -> u64,
}

/// Lives that are being lived, by the place of their workload.
struct Lives<'a>(Vec<Option<Pin<Box<dyn Future<Output = Departure> + 'a>>>>);

impl Lives<'_> {
    /// The next that ends; none if all have. Cancellation safe.
    async fn next(&mut self) -> Option<(usize, Departure)> {
        poll_fn(|context| {
            let mut is_any_left = false;
            for (index, place) in self.0.iter_mut().enumerate() {
                let Some(life) = place else { continue };
                if let Poll::Ready(departure) = life.as_mut().poll(context) {
                    *place = None;
                    return Poll::Ready(Some((index, departure)));
                }
                is_any_left = true;
            }
            if is_any_left {
                Poll::Pending
            } else {
                Poll::Ready(None)
            }
        })
        .await
    }
}

impl Supervisor<'_> {
    /// Runs the workloads until the enclave is to end. Calls `booted` when the first of them
    /// has been started for the first time, or cannot be.
    pub(crate) async fn run(
        &self,
        first: StandingBy,
        mut requests: Requests,
        booted: impl FnOnce(),
    ) -> End {
        let reaper = match Reaper::start() {
            Ok(reaper) => reaper,
            Err(error) => {
                let detail = format!("the ends of processes cannot be received: {error}");
                return End::failed(EndCause::InitFailed, EndCode::InitReaper, detail);
            }
        };
        let workloads = &self.config.workloads;
        let conditions = Conditions::new(workloads, self.handle);
        let booted = RefCell::new(Some(booted));
        let begun = || {
            let booted = booted.borrow_mut().take();
            if let Some(booted) = booted {
                booted();
            }
        };
        let stop = watch::Sender::new(None);
        let mut orders = Vec::new();
        let mut lives = Lives(Vec::new());
        let mut first = Some(first);
        for (index, workload) in workloads.iter().enumerate() {
            let readiness = self.handle.readiness().workload(index);
            let (Some(confinement), Some(readiness)) = (self.confinements.of(index), readiness)
            else {
                continue;
            };
            let said = match Notifications::of(index, readiness) {
                Ok(said) => said,
                Err(error) => {
                    let detail = end::in_boot(&error);
                    return End::failed(EndCause::BootFailed, EndCode::BootWorkload, detail);
                }
            };
            let life = Life {
                all: self,
                workload,
                confinement,
                logs: self.logs.of(workload.name.as_ref()),
                condition: conditions.of(index),
                before: workload
                    .after
                    .iter()
                    .filter_map(|name| Some((name, conditions.of(workloads.place(name)?))))
                    .collect(),
                reaper: &reaper,
                readiness,
                said,
                companions: Companions::new(
                    self.config,
                    workload,
                    self.given,
                    confinement,
                    &reaper,
                ),
            };
            let dependents = workloads.dependents(index).into_iter();
            let (sender, receiver) = mpsc::channel(MAX_ORDERS);
            orders.push(sender);
            let told = Orders {
                given: receiver,
                stop: stop.subscribe(),
                dependents: dependents.map(|other| conditions.of(other)).collect(),
            };
            let begun = &begun;
            let standing_by = first.take_if(|first| first.index() == index);
            lives.0.push(Some(Box::pin(async move {
                life.live(standing_by, told, begun).await
            })));
        }
        self.supervise(lives, &orders, &stop, &mut requests).await
    }

    /// Lets them live until all have ended.
    async fn supervise(
        &self,
        mut lives: Lives<'_>,
        orders: &[mpsc::Sender<Order>],
        stop: &watch::Sender<Option<Shutdown>>,
        requests: &mut Requests,
    ) -> End {
        let mut first_end: Option<End> = None;
        let mut others = Outputs::default();
        loop {
            tokio::select! {
                departed = lives.next() => {
                    let Some((index, departure)) = departed else { break };
                    match self.depart(index, departure) {
                        (true, end) if first_end.is_none() => {
                            first_end = Some(end);
                            stop.send_if_modified(|stop| {
                                let is_new = stop.is_none();
                                stop.get_or_insert(Shutdown { grace: None });
                                is_new
                            });
                        }
                        (_, end) => others.add(end.outputs),
                    }
                }
                request = requests.next() => match request {
                    Request::Shutdown(shutdown) => {
                        stop.send_replace(Some(shutdown));
                    }
                    Request::Forward(signal) => {
                        for order in orders {
                            self.give(order, Order::Signal(signal as c_int));
                        }
                    }
                    Request::Follow(change) => self.follow_change(&change, orders),
                },
            }
        }
        let mut end = first_end.unwrap_or_else(|| match *stop.borrow() {
            Some(_) => End::shutdown(Outputs::default()),
            None => End {
                cause: EndCause::WorkloadExited(ExitStatus::Code(0)),
                detail: "every workload has ended".to_owned(),
                code: None,
                workload: None,
                outputs: Outputs::default(),
            },
        });
        end.outputs.add(others);
        end
    }

    /// What a workload's departure makes of the enclave, and whether that is to end.
    fn depart(&self, index: usize, Departure { kind, end }: Departure) -> (bool, End) {
        let (Workloads::Several(_), Some(workload)) =
            (&self.config.workloads, self.config.workloads.get(index))
        else {
            // The enclave is what its only workload is.
            return (true, end);
        };
        let logs = self.logs.of(workload.name.as_ref());
        let ends = match kind {
            DepartureKind::Stopped => false,
            DepartureKind::Succeeded => {
                logs.system(&end.detail);
                false
            }
            DepartureKind::Ended if workload.essential => {
                logs.error(format!("{}; the enclave ends with it", end.detail));
                true
            }
            DepartureKind::Ended => {
                let sentence = format!("{}; the enclave goes on without it", end.detail);
                match end.code {
                    None => logs.system(sentence),
                    Some(_) => logs.error(sentence),
                }
                false
            }
        };
        (ends, end)
    }

    /// Hands on what follows the change of a secret: a signal to all, and a command to the
    /// first, unless the image names one.
    fn follow_change(&self, change: &OnChange, orders: &[mpsc::Sender<Order>]) {
        let workloads = &self.config.workloads;
        let named = change.workload.as_ref();
        let named = named.and_then(|name| workloads.place(name));
        match &change.reaction {
            Reaction::Signal(signal) => {
                for (index, order) in orders.iter().enumerate() {
                    if named.is_none_or(|named| named == index) {
                        let signal = workload::of_change(*signal) as c_int;
                        self.give(order, Order::Signal(signal));
                    }
                }
            }
            Reaction::Command(command) => {
                if let Some(order) = orders.get(named.unwrap_or_default()) {
                    self.give(order, Order::Command(command.clone()));
                }
            }
        }
    }

    fn give(&self, orders: &mpsc::Sender<Order>, order: Order) {
        if let Err(mpsc::error::TrySendError::Full(_)) = orders.try_send(order) {
            self.logs
                .error("a workload takes no orders at the moment; a signal for it was lost");
        }
    }

    /// Tells how often limits were met.
    fn tell_limits(&self) {
        if let Some(events) = self.confinements.events() {
            self.handle.set_limits(events.into());
        }
    }

    /// What of the time that all have together to stop is one's: as much as of their own.
    fn share_of(&self, own: Duration, given: Duration) -> Duration {
        let all = self.config.workloads.longest_stop();
        if all <= own {
            return given;
        }
        given.mul_f64(own.as_secs_f64() / all.as_secs_f64())
    }
}
