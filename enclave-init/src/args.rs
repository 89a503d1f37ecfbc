//! The command line: none as PID 1 of a machine, `sim …` as a process.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// How the init was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// As PID 1 of an enclave or a virtual machine.
    Machine,
    /// As an ordinary process that is to make the namespaces.
    Launcher(Simulation),
    /// As PID 1 of those namespaces.
    Simulated(Simulation),
    /// As PID 1 of a workload's namespace, for the workload's program.
    Reaper,
    /// To run a command beside the workload.
    Companion,
}

/// Where a simulated enclave finds what hardware would give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// The unpacked ramdisks.
    pub tree: PathBuf,
    /// The folder of the sockets that stand for vsock.
    pub sockets: PathBuf,
    /// The software NSM's socket.
    pub nsm: PathBuf,
    /// The certificate of the software NSM's root, PEM.
    pub nsm_root: PathBuf,
    /// The users of the user namespace that this program was started in, if that was
    /// made for it: then the tree is a file system in memory, of the enclave's size.
    pub users: Option<Users>,
}

/// The users of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// Those of the image, each by its own number.
    Image,
    /// One, whom all names mean.
    One,
}

impl Users {
    const NAMES: [(Self, &'static str); 2] = [(Self::Image, "image"), (Self::One, "one")];

    fn parse(name: &OsStr) -> Option<Self> {
        let mut names = Self::NAMES.into_iter();
        names.find_map(|(users, known)| (name == known).then_some(users))
    }

    fn name(self) -> &'static str {
        let mut names = Self::NAMES.into_iter();
        names
            .find_map(|(users, name)| (users == self).then_some(name))
            .expect("each has a name")
    }
}

/// The argument that starts a simulation.
const SIM: &str = "sim";
/// The argument that the launcher starts PID 1 with.
const SIM_PID1: &str = "sim-pid1";
/// The argument that the init starts PID 1 of a workload's namespace with.
pub(crate) const REAPER: &str = "reaper";
/// The argument that the init starts a process with that runs a command beside the workload.
pub(crate) const COMPANION: &str = "companion";

impl Arguments {
    /// Reads the arguments after the program's name. A kernel passes the words
    /// of its command line that it does not know to PID 1: they are ignored.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        is_pid1: bool,
    ) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let command = arguments.next();
        let command = command.as_ref().and_then(|command| command.to_str());
        match command {
            Some(SIM) => Simulation::parse(arguments).map(Self::Launcher),
            Some(SIM_PID1) => Simulation::parse(arguments).map(Self::Simulated),
            Some(REAPER) => Ok(Self::Reaper),
            Some(COMPANION) => Ok(Self::Companion),
            _ if is_pid1 => Ok(Self::Machine),
            _ => Err(
                "usage: init sim --tree FOLDER --sockets FOLDER --nsm SOCKET --nsm-root FILE [--users image|one]"
                    .to_owned(),
            ),
        }
    }
}

impl Simulation {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let (mut tree, mut sockets, mut nsm, mut nsm_root) = (None, None, None, None);
        let mut users = None;
        while let Some(name) = arguments.next() {
            let place = match name.to_str() {
                Some("--tree") => &mut tree,
                Some("--sockets") => &mut sockets,
                Some("--nsm") => &mut nsm,
                Some("--nsm-root") => &mut nsm_root,
                Some("--users") => &mut users,
                _ => return Err(format!("unknown argument {}", name.display())),
            };
            let value = arguments.next();
            *place =
                Some(PathBuf::from(value.ok_or_else(|| {
                    format!("{} needs a value", name.display())
                })?));
        }
        let required =
            |value: Option<PathBuf>, name: &str| value.ok_or_else(|| format!("{name} is missing"));
        Ok(Self {
            tree: required(tree, "--tree")?,
            sockets: required(sockets, "--sockets")?,
            nsm: required(nsm, "--nsm")?,
            nsm_root: required(nsm_root, "--nsm-root")?,
            users: match users {
                None => None,
                Some(name) => match Users::parse(name.as_os_str()) {
                    None => return Err("--users is image or one".to_owned()),
                    known => known,
                },
            },
        })
    }

    /// Whether all users of the image are one.
    pub(crate) fn has_one_user(&self) -> bool {
        self.users != Some(Users::Image)
    }

    /// The arguments that start PID 1 of the namespaces.
    pub fn pid1_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![
            SIM_PID1.into(),
            "--tree".into(),
            self.tree.clone().into(),
            "--sockets".into(),
            self.sockets.clone().into(),
            "--nsm".into(),
            self.nsm.clone().into(),
            "--nsm-root".into(),
            self.nsm_root.clone().into(),
        ];
        if let Some(users) = self.users {
            arguments.extend(["--users".into(), users.name().into()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, is_pid1: bool) -> Result<Arguments, String> {
        Arguments::parse(text.split_whitespace().map(OsString::from), is_pid1)
    }

    #[test]
    fn machine_and_simulation() {
        assert_eq!(parse("", true), Ok(Arguments::Machine));
        assert_eq!(parse("splash unknown=1", true), Ok(Arguments::Machine));
        // A machine has no root but the measured one.
        let named = parse("splash --nsm-root r sim --nsm-root r", true);
        assert_eq!(named, Ok(Arguments::Machine));
        assert!(parse("", false).unwrap_err().starts_with("usage"));
        assert_eq!(parse(REAPER, true), Ok(Arguments::Reaper));
        assert_eq!(parse(COMPANION, false), Ok(Arguments::Companion));
        let Ok(Arguments::Launcher(simulation)) =
            parse("sim --nsm n --tree t --sockets s --nsm-root r", false)
        else {
            panic!()
        };
        assert!(simulation.has_one_user());
        for users in [None, Some(Users::Image), Some(Users::One)] {
            let simulation = Simulation {
                users,
                ..simulation.clone()
            };
            let again = Arguments::parse(simulation.pid1_arguments(), true);
            assert_eq!(again, Ok(Arguments::Simulated(simulation)));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            parse("sim --tree t --sockets s", false),
            Err("--nsm is missing".to_owned())
        );
        assert_eq!(
            parse("sim --tree t --sockets s --nsm n", false),
            Err("--nsm-root is missing".to_owned())
        );
        assert_eq!(
            parse("sim --tree", false),
            Err("--tree needs a value".to_owned())
        );
        assert_eq!(
            parse("sim --other x", false),
            Err("unknown argument --other".to_owned())
        );
        assert_eq!(
            parse(
                "sim --tree t --sockets s --nsm n --nsm-root r --users all",
                false
            ),
            Err("--users is image or one".to_owned())
        );
    }
}
