//! What keeps the workload from everything that is not its own: namespaces, limits,
//! capabilities and a filter of system calls.
//!
//! All of it is prepared once, at boot, and taken on by the workload's first process
//! between fork and exec, where nothing but system calls may be made. It can only be
//! taken on as a whole: a step that fails is the end of the start.

mod capabilities;
mod cgroup;
mod companion;
mod meter;
mod processes;
mod seccomp;
mod sizes;
mod standing;
mod view;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use manifest::{Confinement as Settings, MeasuredConfig, Workload, Workloads};
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, write};

use self::cgroup::Counts;
pub(crate) use self::cgroup::{Cgroup, Events, Side};
pub(crate) use self::companion::{Errand, accompany};
use self::meter::Bounds;
use self::processes::Processes;
pub(crate) use self::processes::reap;
pub(crate) use self::sizes::{Memory, Sizes};
use self::standing::{Standing, close_others};
use self::view::View;
use crate::args::Simulation;
use crate::control::Handle;
use crate::error::{Doing, InitError};
use crate::limits;
use crate::logs::Logs;
use crate::mounts;
use crate::network::Namespace;

/// What the workload's process takes on.
pub(crate) struct Confinement {
    processes: Processes,
    network: Arc<Namespace>,
    cgroup: Option<Cgroup>,
    bounds: Bounds,
    view: View,
    standing: Standing,
    /// Whether all users of the image are one, under `sim`.
    has_one_user: bool,
    /// Files of a user namespace and what is written there, under `sim`.
    mapping: Vec<(&'static CStr, String)>,
    /// The init's `/proc`, which those files are in.
    proc: OwnedFd,
}

/// A step of taking it on, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Session,
    Cgroup,
    Network,
    View,
    Proc,
    Sys,
    Dev,
    Run,
    Tmp,
    Enclave,
    Secrets,
    Root,
    WorkingDirectory,
    Descriptors,
    User,
    Capabilities,
    Filter,
}

impl Step {
    const ALL: [(Self, &'static str); 17] = [
        (Self::Session, "making its session"),
        (Self::Cgroup, "entering its control group"),
        (Self::Network, "entering its network"),
        (Self::View, "making its mounts"),
        (Self::Proc, "mounting its /proc"),
        (Self::Sys, "mounting its /sys"),
        (Self::Dev, "mounting its /dev"),
        (Self::Run, "mounting its /run"),
        (Self::Tmp, "mounting its /tmp"),
        (Self::Enclave, "mounting its /run/enclave"),
        (Self::Secrets, "mounting its /run/secrets"),
        (Self::Root, "entering its root"),
        (Self::WorkingDirectory, "entering its working directory"),
        (Self::Descriptors, "closing the init's descriptors"),
        (Self::User, "becoming its user"),
        (Self::Capabilities, "giving up capabilities"),
        (Self::Filter, "installing the filter of system calls"),
    ];

    /// What the step that has this number was doing.
    pub(crate) fn describe(number: u8) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(step, _)| *step as u8 == number)
            .map_or("an unknown step", |(_, text)| text)
    }
}

/// Where a workload is.
struct Place<'a> {
    /// Its `/run/enclave`, in the init's root.
    own_folder: &'a Path,
    /// That of all workloads.
    network: &'a Arc<Namespace>,
}

/// What the processes of each workload take on.
pub(crate) struct Confinements {
    each: Vec<Arc<Confinement>>,
    /// What is counted of several together.
    counts: Option<Arc<Counts>>,
    /// What bounds them.
    bounds: Bounds,
    /// What is to be said of limits that are lower than the image's.
    lowered: Option<String>,
    /// What is to be said of limits that are not there, because there are no control groups.
    unlimited: Option<String>,
}

impl Confinements {
    /// Prepares them, once the init's root has been entered. A simulation has no control
    /// group, whose hierarchy is its host's, and perhaps one user alone.
    pub(crate) fn prepare(
        config: &MeasuredConfig,
        sizes: &Sizes,
        network: &Arc<Namespace>,
        simulation: Option<&Simulation>,
    ) -> Result<Self, InitError> {
        if simulation.is_none() {
            limits::lift_shared()?;
            cgroup::mount(sizes)?;
        }
        let counts = match (&config.workloads, simulation) {
            (Workloads::Several(_), None) => Some(Arc::new(Counts::of_all()?)),
            _ => None,
        };
        let bounds = Bounds::new(&config.confinement, sizes);
        let each = config
            .workloads
            .iter()
            .enumerate()
            .map(|(index, workload)| {
                let place = Place {
                    own_folder: &mounts::own_folder(index),
                    network,
                };
                Confinement::prepare(config, workload, sizes, &place, simulation).map(Arc::new)
            });
        Ok(Self {
            each: each.collect::<Result<_, _>>()?,
            counts,
            bounds,
            lowered: meter::lowered(&config.confinement, sizes),
            unlimited: simulation.is_some().then(|| bounds.without_groups()),
        })
    }

    /// That of the workload of this place.
    pub(crate) fn of(&self, index: usize) -> Option<&Arc<Confinement>> {
        self.each.get(index)
    }

    /// A line about limits that the machine makes lower than the image does.
    pub(crate) fn lowered(&self) -> Option<&str> {
        self.lowered.as_deref()
    }

    /// A line about limits that are not there, because there are no control groups.
    pub(crate) fn unlimited(&self) -> Option<&str> {
        self.unlimited.as_deref()
    }

    /// Tells the agent and the log of limits that are met, for as long as the enclave runs.
    pub(crate) fn report(&self, workloads: &Workloads<Workload>, handle: &Handle, logs: &Logs) {
        for (confinement, workload) in self.each.iter().zip(workloads) {
            let of_agent = self.counts.is_none().then(|| handle.clone());
            let logs = logs.of(workload.name.as_ref());
            tokio::spawn(meter::report(Arc::clone(confinement), of_agent, logs));
        }
        if let Some(counts) = &self.counts {
            let counts = Arc::clone(counts);
            tokio::spawn(meter::count(
                counts,
                self.bounds,
                handle.clone(),
                logs.clone(),
            ));
        }
    }

    /// How often all workloads together met their limits; none where that cannot be counted.
    pub(crate) fn events(&self) -> Option<Events> {
        match &self.counts {
            Some(counts) => counts.events().ok(),
            None => self.each.first()?.cgroup()?.events().ok(),
        }
    }
}

impl Confinement {
    fn prepare(
        config: &MeasuredConfig,
        workload: &Workload,
        sizes: &Sizes,
        place: &Place<'_>,
        simulation: Option<&Simulation>,
    ) -> Result<Self, InitError> {
        let simulated = simulation.is_some();
        let has_one_user = simulation.is_some_and(Simulation::has_one_user);
        let settings: &Settings = &config.confinement;
        let bounds = Bounds::new(settings, sizes).within(workload.limits);
        let cgroup = match &workload.name {
            _ if simulated => None,
            None => Some(Cgroup::of_one(sizes)?),
            Some(name) => Some(Cgroup::of_several(name, &bounds.of_group(workload))?),
        };
        let user = workload.user;
        let mut mapping = Vec::new();
        if has_one_user && (user.uid, user.gid) != (0, 0) {
            // Only one user of the host is mapped, so a user of the image is
            // another name for it, in a user namespace of the workload's own.
            for (file, contents) in [
                (c"self/setgroups", "deny".to_owned()),
                (c"self/uid_map", format!("{} 0 1", user.uid)),
                (c"self/gid_map", format!("{} 0 1", user.gid)),
            ] {
                mapping.push((file, contents));
            }
        }
        Ok(Self {
            processes: Processes::open(workload.init)?,
            network: Arc::clone(place.network),
            view: View::new(
                settings,
                place.own_folder,
                config.has_secret_files(),
                simulated,
            )?,
            cgroup,
            bounds,
            standing: Standing::new(
                settings,
                workload.working_directory.as_str(),
                user,
                &workload.groups,
                has_one_user,
            )?,
            has_one_user,
            mapping,
            proc: open(
                "/proc",
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .doing(|| "opening /proc".to_owned())?,
        })
    }

    /// The workload's control group; none under `sim`.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// The workload's network.
    pub(crate) fn network(&self) -> &Arc<Namespace> {
        &self.network
    }

    fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The init's `/proc`, which no workload can mask.
    pub(crate) fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// Whether its processes are in a user namespace of their own, as under `sim`.
    fn has_user_namespace(&self) -> bool {
        !self.mapping.is_empty()
    }

    /// Starts the workload's first process, in namespaces that are new each time. Gives their
    /// PID 1 too, if that is another process.
    pub(crate) fn start<T>(
        &self,
        start: impl FnOnce() -> Result<T, InitError>,
    ) -> Result<(Option<Pid>, T), InitError> {
        let _hastened = self.cgroup.as_ref().map(Cgroup::hasten);
        self.processes.in_new_namespace(&self.network, start)
    }

    /// Confines this process. It is the workload's between fork and exec, so only
    /// system calls are made, on memory that was prepared before.
    pub(crate) fn take_on(&self, mut at: impl FnMut(Step)) -> io::Result<()> {
        at(Step::Session);
        nix::unistd::setsid()?;
        at(Step::Cgroup);
        if let Some(cgroup) = &self.cgroup {
            write(cgroup.procs(), b"0")?;
        }
        // Before its mounts: `/sys` shows the network that it is mounted in.
        at(Step::Network);
        self.network.enter()?;
        at(Step::View);
        self.view.enter(&mut at)?;
        at(Step::WorkingDirectory);
        self.standing.enter_working_directory()?;
        at(Step::Descriptors);
        close_others()?;
        at(Step::User);
        if !self.mapping.is_empty() {
            self.map_user()?;
        }
        self.standing.become_user()?;
        at(Step::Capabilities);
        self.standing.give_up_capabilities()?;
        at(Step::Filter);
        self.standing.install_filter()
    }

    fn map_user(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        for (file, contents) in &self.mapping {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = openat(&self.proc, *file, flags, Mode::empty())?;
            write(file.as_fd(), contents.as_bytes())?;
        }
        Ok(())
    }
}
