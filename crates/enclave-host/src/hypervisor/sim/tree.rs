//! The process that makes a simulated enclave's file systems and becomes its init.
//!
//! They are unpacked into a file system in memory, as a kernel does it, and within a
//! user and a mount namespace: the owners of the files are the image's, none of them is
//! ever seen on the host, and nothing is left when the last process has ended.

use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use eif::{Section, SectionKind};
use manifest::MemoryMib;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::super::HypervisorError;
use super::super::report::Report;
use super::users::{self, Mappers};
use crate::image::FileId;
use crate::ramdisk::{Owners, UnpackError, Unpacker};

/// Inodes of the root file system, as on the kernel's command line in a machine
/// (`initramfs_options`).
const INODES: &str = "1m";

/// The arguments of the hidden command `sim-tree`.
#[derive(Debug, Args)]
pub struct SimTreeArgs {
    /// Where the file systems go: an empty folder.
    pub(super) tree: PathBuf,
    /// The file that says what came of it.
    pub(super) report: PathBuf,
    /// The image, which has been measured.
    pub(super) image: PathBuf,
    /// The file that was measured: the number of its device.
    #[arg(long)]
    pub(super) device: u64,
    /// The file that was measured: the number of its inode.
    #[arg(long)]
    pub(super) inode: u64,
    /// Where a ramdisk is in the image.
    #[arg(long = "ramdisk")]
    pub(super) ramdisks: Vec<Ramdisk>,
    /// Most that the image may unpack to.
    #[arg(long)]
    pub(super) memory_mib: MemoryMib,
    /// The program that maps users, where there is one.
    #[arg(long)]
    pub(super) newuidmap: Option<PathBuf>,
    /// The program that maps groups, where there is one.
    #[arg(long)]
    pub(super) newgidmap: Option<PathBuf>,
    /// The init's arguments.
    #[arg(last = true)]
    pub(super) init: Vec<String>,
}

/// A ramdisk's place in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ramdisk {
    offset: u64,
    size: u64,
}

impl From<Section> for Ramdisk {
    fn from(section: Section) -> Self {
        Self {
            offset: section.offset,
            size: section.size,
        }
    }
}

impl From<Ramdisk> for Section {
    fn from(ramdisk: Ramdisk) -> Self {
        Self {
            kind: SectionKind::Ramdisk,
            offset: ramdisk.offset,
            size: ramdisk.size,
        }
    }
}

impl fmt::Display for Ramdisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.size)
    }
}

impl FromStr for Ramdisk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('+')
            .and_then(|(offset, size)| {
                Some(Self {
                    offset: offset.parse().ok()?,
                    size: size.parse().ok()?,
                })
            })
            .ok_or_else(|| format!("{text:?} is not OFFSET+SIZE"))
    }
}

impl SimTreeArgs {
    /// The command line that starts it.
    pub(super) fn arguments(self) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments = vec!["sim-tree".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--device", self.device.to_string());
        option("--inode", self.inode.to_string());
        for ramdisk in self.ramdisks {
            option("--ramdisk", ramdisk.to_string());
        }
        option("--memory-mib", self.memory_mib.to_string());
        for (name, program) in [
            ("--newuidmap", self.newuidmap),
            ("--newgidmap", self.newgidmap),
        ] {
            if let Some(program) = program {
                option(name, text(program));
            }
        }
        arguments.extend([self.tree, self.report, self.image].map(text));
        arguments.push("--".to_owned());
        arguments.extend(self.init);
        arguments
    }
}

/// Makes the file systems, and becomes the init in them.
pub fn become_init(args: SimTreeArgs) -> anyhow::Result<Infallible> {
    let made = make(&args);
    let report = match &made {
        Ok((_, notice)) => Report::Done {
            notice: notice.clone(),
        },
        Err(error) => Report::Failed {
            reason: error.to_string(),
            is_about_the_image: error.is_about_the_image(),
        },
    };
    report
        .write(&args.report)
        .with_context(|| format!("cannot write {}", args.report.display()))?;
    let (owners, _) = made?;
    let init = args.tree.join("init");
    let users = match owners {
        Owners::Image => "image",
        Owners::Caller => "one",
    };
    let error = Command::new(&init)
        .args(args.init)
        .args(["--users", users])
        .exec();
    Err(error).with_context(|| format!("cannot execute {}", init.display()))
}

fn make(args: &SimTreeArgs) -> Result<(Owners, Option<String>), HypervisorError> {
    // What belongs to the caller alone may be out of reach later.
    let mut image = File::open(&args.image).map_err(HypervisorError::io(&args.image))?;
    let found = image
        .metadata()
        .map_err(HypervisorError::io(&args.image))
        .map(|metadata| FileId::of(&metadata))?;
    let measured = FileId {
        device: args.device,
        inode: args.inode,
    };
    if found != measured {
        return Err(HypervisorError::Replaced(args.image.clone()));
    }
    let mappers = Mappers {
        users: args.newuidmap.as_deref(),
        groups: args.newgidmap.as_deref(),
    };
    let (owners, notice) = users::enter(&mappers)?;
    mount_tree(&args.tree, args.memory_mib).map_err(|error| HypervisorError::Namespaces {
        what: "this user may not mount anything in namespaces",
        source: error.into(),
    })?;
    let mut unpacker = Unpacker::new(&args.tree, args.memory_mib, owners);
    for &ramdisk in &args.ramdisks {
        let contents = Section::from(ramdisk).contents(&mut image);
        unpacker.unpack(BufReader::new(contents.map_err(UnpackError::Read)?))?;
    }
    let is_init = fs::symlink_metadata(args.tree.join("init"))
        .is_ok_and(|init| init.is_file() && init.permissions().mode() & 0o100 != 0);
    if is_init {
        Ok((owners, notice))
    } else {
        Err(HypervisorError::NoInit)
    }
}

/// Mounts a file system that holds what the kernel leaves of so much memory, and which
/// nobody else sees.
fn mount_tree(tree: &Path, memory: MemoryMib) -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let options = format!("mode=0755,size={},nr_inodes={INODES}", memory.for_files());
    mount(
        Some("tree"),
        tree,
        Some("tmpfs"),
        MsFlags::MS_NODEV,
        Some(&*options),
    )
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: SimTreeArgs,
    }

    #[test]
    fn arguments_are_read_as_they_are_written() {
        let args = || SimTreeArgs {
            tree: "/state/a b/tree".into(),
            report: "/state/a b/tree.json".into(),
            image: "/--image.eif".into(),
            device: u64::MAX,
            inode: 7,
            ramdisks: vec![
                Ramdisk { offset: 1, size: 2 },
                Ramdisk { offset: 3, size: 4 },
            ],
            memory_mib: "64".parse().unwrap(),
            newuidmap: Some("/usr/bin/newuidmap".into()),
            newgidmap: None,
            init: vec!["sim".to_owned(), "--tree".to_owned()],
        };
        let matches = <Cli as clap::CommandFactory>::command().get_matches_from(args().arguments());
        let read = Cli::from_arg_matches(&matches).unwrap().args;
        assert_eq!(format!("{read:?}"), format!("{:?}", args()));
    }
}
