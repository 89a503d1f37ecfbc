//! The workloads of an enclave: each lives its life, in the order that the image says, and
//! the enclave ends with an essential one.

mod end;
mod life;
mod orders;
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
use self::life::{Departure, Life};
use self::orders::{Order, Orders, Stop};
use self::requests::Request;
pub(crate) use self::requests::Requests;
use crate::companion::Companions;
use crate::conditions::{Conditions, Departed};
use crate::confinement::Confinements;
use crate::control::Handle;
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
    /// The places of those that have not ended.
    fn places(&self) -> impl Iterator<Item = usize> {
        let places = self.0.iter().enumerate();
        places.filter_map(|(index, life)| life.as_ref().map(|_| index))
    }

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
                index,
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
            let dependents = dependents.map(|other| conditions.of(other)).collect();
            let told = Orders::new(receiver, stop.subscribe(), dependents);
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
        stop: &watch::Sender<Option<Stop>>,
        requests: &mut Requests,
    ) -> End {
        let mut first_end: Option<End> = None;
        let mut others = Outputs::default();
        loop {
            tokio::select! {
                departed = lives.next() => {
                    let Some((index, departure)) = departed else { break };
                    let is_ending = stop.borrow().is_some();
                    let (ends, end) = self.depart(index, departure, is_ending);
                    let is_any_left = lives.places().any(|place| self.is_essential(place));
                    if ends || !is_any_left {
                        to_stop(stop, Stop::by_itself());
                    }
                    if ends && first_end.is_none() {
                        first_end = Some(end);
                    } else {
                        others.add(end.outputs);
                    }
                }
                request = requests.next() => match request {
                    Request::Shutdown(shutdown) => to_stop(stop, Stop::asked(shutdown.grace)),
                    Request::Forward(signal) => {
                        for (index, order) in orders.iter().enumerate() {
                            // Who has ended is sent no signals.
                            if !order.is_closed() {
                                self.give(index, order, Order::Signal(signal as c_int));
                            }
                        }
                    }
                    Request::Follow(change) => self.follow_change(&change, orders),
                },
            }
        }
        let mut end = first_end.unwrap_or_else(|| match *stop.borrow() {
            Some(stop) if stop.is_asked => End::shutdown(Outputs::default()),
            _ => End {
                cause: EndCause::WorkloadExited(ExitStatus::Code(0)),
                detail: "every essential workload has ended".to_owned(),
                code: None,
                workload: None,
                outputs: Outputs::default(),
            },
        });
        end.outputs.add(others);
        end
    }

    /// Whether the enclave ends once this one and all others of the kind have ended.
    fn is_essential(&self, index: usize) -> bool {
        let workload = self.config.workloads.get(index);
        workload.is_some_and(|workload| workload.essential)
    }

    /// What a workload's departure makes of the enclave, and whether that is to end with it.
    fn depart(
        &self,
        index: usize,
        Departure { kind, end }: Departure,
        is_ending: bool,
    ) -> (bool, End) {
        let (Workloads::Several(_), Some(workload)) =
            (&self.config.workloads, self.config.workloads.get(index))
        else {
            // The enclave is what its only workload is.
            return (true, end);
        };
        let logs = self.logs.of(workload.name.as_ref());
        let follows = match kind {
            Departed::Stopped => return (false, end),
            Departed::Succeeded => "",
            // It may be for want of those that have been stopped already.
            Departed::Ended if is_ending => ", while the enclave was ending",
            Departed::Ended if workload.essential => "; the enclave ends with it",
            Departed::Ended => "; the enclave goes on without it",
        };
        let ends = kind == Departed::Ended && !is_ending && workload.essential;
        let sentence = format!("{}{follows}", end.detail);
        if end.code.is_some() || ends {
            logs.error(sentence);
        } else {
            logs.system(sentence);
        }
        (ends, end)
    }

    /// Hands on what follows the change of a secret, to the workload that the image names.
    fn follow_change(&self, change: &OnChange, orders: &[mpsc::Sender<Order>]) {
        let named = change.workload.as_ref();
        let index = named.and_then(|name| self.config.workloads.place(name));
        let index = index.unwrap_or_default();
        let order = match &change.reaction {
            Reaction::Signal(signal) => Order::Signal(workload::of_change(*signal) as c_int),
            Reaction::Command(command) => Order::Command(command.clone()),
        };
        if let Some(orders) = orders.get(index) {
            self.give(index, orders, order);
        }
    }

    fn give(&self, index: usize, orders: &mpsc::Sender<Order>, order: Order) {
        use mpsc::error::TrySendError;

        let lost = match orders.try_send(order) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => "takes no more at the moment",
            Err(TrySendError::Closed(_)) => "has ended",
        };
        let workload = self.config.workloads.get(index);
        if let Some(workload) = workload {
            self.logs.of(workload.name.as_ref()).error(format!(
                "{} {lost}: a signal or command for it is lost",
                workload.subject()
            ));
        }
    }

    /// Tells how often limits were met.
    fn tell_limits(&self) {
        if let Some(events) = self.confinements.events() {
            self.handle.set_limits(events.into());
        }
    }

    /// How long those take to stop, one after the other, that are stopped after this one and
    /// have not ended yet.
    fn stop_below(&self, index: usize, conditions: &Conditions<'_>) -> Duration {
        let workloads = &self.config.workloads;
        workloads.stop_below(index, |other| !conditions.of(other).is_gone())
    }
}

/// Has all workloads stop, or sooner than they would.
fn to_stop(stop: &watch::Sender<Option<Stop>>, wanted: Stop) {
    stop.send_if_modified(|stop| {
        let both = stop.map_or(wanted, |stop| stop.and(wanted));
        stop.replace(both) != Some(both)
    });
}
