//! Ways out of the confinement that lead through the kernel: the calls for what no
//! workload needs of it.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::libc;

use crate::raw::{Arg, Outcome, call, end, errno};

/// Makes an attempt by its name, if it is one of these.
pub(crate) fn attempt(name: &str) -> Option<Outcome> {
    code(name)
        .or_else(|| keys(name))
        .or_else(|| namespaces(name))
        .or_else(|| mounts(name))
        .or_else(|| machine(name))
        .or_else(|| watching(name))
}

/// The program's own code in the kernel, or in its place.
fn code(name: &str) -> Option<Outcome> {
    let zero = || Arg::from(0);
    Some(match name {
        // A map of one array element: the least that a program begins with.
        "bpf" => {
            let mut attributes = [0; 72];
            for (place, byte) in attributes
                .iter_mut()
                .zip([2_u32, 4, 4, 1].into_iter().flat_map(u32::to_le_bytes))
            {
                *place = byte;
            }
            call(libc::SYS_bpf, [zero(), Arg::Bytes(&attributes), 72.into()])
        }
        "module" => call(
            libc::SYS_init_module,
            [Arg::Bytes(&[0; 64]), 64.into(), c"".into()],
        ),
        "module-file" => call(libc::SYS_finit_module, [0.into(), c"".into(), zero()]),
        "module-delete" => call(libc::SYS_delete_module, [c"none".into(), zero()]),
        "kexec" => call(libc::SYS_kexec_load, [zero(), zero(), zero(), zero()]),
        "kexec-file" => call(
            libc::SYS_kexec_file_load,
            [0.into(), 0.into(), 1.into(), c"".into(), zero()],
        ),
        _ => return None,
    })
}

/// Keys, which the kernel keeps for a user and not for a process.
fn keys(name: &str) -> Option<Outcome> {
    let zero = || Arg::from(0);
    Some(match name {
        "key-add" => call(
            libc::SYS_add_key,
            [
                c"user".into(),
                c"name".into(),
                Arg::Bytes(&[1]),
                1.into(),
                (-2).into(),
            ],
        ),
        "key-request" => call(
            libc::SYS_request_key,
            [c"user".into(), c"name".into(), zero(), zero()],
        ),
        // KEYCTL_GET_KEYRING_ID of the process's keyring.
        "key-control" => call(libc::SYS_keyctl, [zero(), (-2).into(), 1.into()]),
        _ => return None,
    })
}

/// Namespaces: in a new one of users a program has every capability.
fn namespaces(name: &str) -> Option<Outcome> {
    let zero = || Arg::from(0);
    Some(match name {
        "unshare-user" => unshare(libc::CLONE_NEWUSER),
        "unshare-network" => unshare(libc::CLONE_NEWNET),
        "unshare-mounts" => unshare(libc::CLONE_NEWNS),
        "unshare-pids" => unshare(libc::CLONE_NEWPID),
        "unshare-cgroup" => unshare(libc::CLONE_NEWCGROUP),
        "clone-user" => in_child(call(
            libc::SYS_clone,
            [
                i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD).into(),
                zero(),
                zero(),
                zero(),
                zero(),
            ],
        )),
        "clone3-user" => {
            let mut arguments = [0; 64];
            let words = [
                libc::CLONE_NEWUSER.cast_unsigned(),
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                libc::SIGCHLD.cast_unsigned(),
            ];
            for (place, byte) in arguments
                .iter_mut()
                .zip(words.into_iter().flat_map(u32::to_le_bytes))
            {
                *place = byte;
            }
            in_child(call(libc::SYS_clone3, [Arg::Bytes(&arguments), 64.into()]))
        }
        "enter-namespace" => enter_namespace(),
        _ => return None,
    })
}

/// Another view of the file systems.
fn mounts(name: &str) -> Option<Outcome> {
    let zero = || Arg::from(0);
    Some(match name {
        "new-mount" => call(libc::SYS_fsopen, [c"tmpfs".into(), zero()]),
        "open-tree" => call(
            libc::SYS_open_tree,
            [libc::AT_FDCWD.into(), c"/".into(), 1.into()],
        ),
        "unmount" => call(
            libc::SYS_umount2,
            [c"/proc".into(), i64::from(libc::MNT_DETACH).into()],
        ),
        "pivot-root" => call(libc::SYS_pivot_root, [c"/tmp".into(), c"/tmp".into()]),
        "chroot" => call(libc::SYS_chroot, [c"/".into()]),
        _ => return None,
    })
}

/// What the whole machine shares.
fn machine(name: &str) -> Option<Outcome> {
    let zero = || Arg::from(0);
    Some(match name {
        // With a command that changes nothing for this machine.
        "reboot" => call(
            libc::SYS_reboot,
            [0xfee1_dead_i64.into(), 0x2812_1969.into(), zero(), zero()],
        ),
        "host-name" => call(libc::SYS_sethostname, [c"other".into(), 5.into()]),
        "domain-name" => call(libc::SYS_setdomainname, [c"other".into(), 5.into()]),
        "clock" => clock(libc::SYS_clock_settime),
        "time-of-day" => clock(libc::SYS_settimeofday),
        // ADJ_TICK to what it is.
        "adjust-clock" => {
            let mut timex = [0; 208];
            if let Some(mode) = timex.get_mut(..4) {
                mode.copy_from_slice(&0x4000_u32.to_le_bytes());
            }
            if let Some(tick) = timex.get_mut(88..96) {
                tick.copy_from_slice(&10_000_u64.to_le_bytes());
            }
            call(libc::SYS_adjtimex, [Arg::Buffer(&mut timex)])
        }
        "swap" => call(libc::SYS_swapon, [c"/tmp/none".into(), zero()]),
        "accounting" => call(libc::SYS_acct, [c"/tmp/none".into()]),
        "hang-up" => call(libc::SYS_vhangup, []),
        #[cfg(target_arch = "x86_64")]
        "ports" => call(libc::SYS_iopl, [3.into()]),
        #[cfg(target_arch = "x86_64")]
        "port" => call(libc::SYS_ioperm, [0x60.into(), 1.into(), 1.into()]),
        _ => return None,
    })
}

/// What shows more than the process may see.
fn watching(name: &str) -> Option<Outcome> {
    let zero = || Arg::from(0);
    Some(match name {
        "open-by-handle" => open_by_handle(),
        "page-faults" => call(libc::SYS_userfaultfd, [zero()]),
        "performance" => {
            // A count of the whole first processor.
            let mut attributes = [0; 64];
            if let Some(size) = attributes.get_mut(4..8) {
                size.copy_from_slice(&64_u32.to_le_bytes());
            }
            call(
                libc::SYS_perf_event_open,
                [
                    Arg::Buffer(&mut attributes),
                    (-1).into(),
                    0.into(),
                    (-1).into(),
                    zero(),
                ],
            )
        }
        // SYSLOG_ACTION_READ_ALL.
        "kernel-log" => call(
            libc::SYS_syslog,
            [3.into(), Arg::Buffer(&mut [0; 64]), 64.into()],
        ),
        "watch-files" => call(libc::SYS_fanotify_init, [zero(), zero()]),
        _ => return None,
    })
}

fn unshare(flags: i32) -> Outcome {
    call(libc::SYS_unshare, [flags.into()])
}

/// Ends the child, if this is one.
fn in_child(outcome: Outcome) -> Outcome {
    if outcome == Ok(0) {
        end();
    }
    outcome
}

/// Its own, as a privileged program could enter any.
fn enter_namespace() -> Outcome {
    let file = File::open("/proc/self/ns/net").map_err(errno)?;
    call(
        libc::SYS_setns,
        [file.as_raw_fd().into(), libc::CLONE_NEWNET.into()],
    )
}

/// To the present time, so that nothing moves.
fn clock(number: i64) -> Outcome {
    let mut now = [0; 16];
    call(
        libc::SYS_clock_gettime,
        [libc::CLOCK_REALTIME.into(), Arg::Buffer(&mut now)],
    )?;
    if number == libc::SYS_settimeofday {
        // Microseconds instead of nanoseconds.
        if let Some(fraction) = now.get_mut(8..) {
            fraction.fill(0);
        }
        return call(number, [Arg::Bytes(&now), 0.into()]);
    }
    call(number, [libc::CLOCK_REALTIME.into(), Arg::Bytes(&now)])
}

/// A file by its handle, which leads past the root of a process.
fn open_by_handle() -> Outcome {
    const ROOM: u8 = 128;
    let mut handle = [0; 8 + ROOM as usize];
    if let Some(room) = handle.first_mut() {
        *room = ROOM;
    }
    call(
        libc::SYS_name_to_handle_at,
        [
            libc::AT_FDCWD.into(),
            c"/tmp".into(),
            Arg::Buffer(&mut handle),
            Arg::Buffer(&mut [0; 8]),
            0.into(),
        ],
    )?;
    let folder = File::open("/tmp").map_err(errno)?;
    call(
        libc::SYS_open_by_handle_at,
        [
            folder.as_raw_fd().into(),
            Arg::Bytes(&handle),
            libc::O_RDONLY.into(),
        ],
    )
}
