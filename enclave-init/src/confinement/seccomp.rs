//! The filter of the workload's system calls.
//!
//! It refuses by number what only serves to leave the confinement or to attack the
//! kernel, and lets everything else through: capabilities, namespaces and limits
//! decide about that. Calls for which programs have another way answer ENOSYS, so
//! that they take it; the others answer EPERM, as they do without the privilege.
//!
//! Written by hand because answers differ from call to call, and because numbers
//! above the newest known call are refused as a range; `seccompiler` gives one
//! answer for each filter and knows single numbers only.

use std::io;

use manifest::{Allowance, Confinement};
use nix::libc::{
    self, BPF_ABS, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    SECCOMP_SET_MODE_FILTER, c_int, c_long, c_ushort, sock_filter, sock_fprog,
};

/// The architecture that the filter is for (`linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// `open_tree_attr`, the same on every architecture.
const OPEN_TREE_ATTR: c_long = 467;
/// The newest call that this filter was written for (`file_setattr`, Linux 6.17).
/// x32 has its calls above, with bit 30 set.
const NEWEST: c_long = 469;

/// Offsets in `struct seccomp_data`. An argument's low half is what the kernel looks
/// at where it takes an `int`, and where flags are.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const FIRST_ARGUMENT_AT: u32 = 16;
const THIRD_ARGUMENT_AT: u32 = 32;

/// The families of sockets that there are, beside netlink.
const FAMILIES: [c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
/// The protocol of netlink that there is: getifaddrs(3) needs it. By others a program
/// talks to parts of the kernel that nothing in an enclave uses, or keeps messages in
/// the kernel that nobody reads.
const NETLINK: c_int = libc::NETLINK_ROUTE;

/// Bits of `clone` and `unshare` that make namespaces.
const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
/// Bit of `unshare` alone: `clone` has the signal of the child's end there.
const NEW_TIME_NAMESPACE: c_int = 0x80;

/// Calls that are refused: unless what is allowed, how, which.
type Refusal = (Option<Allowance>, c_int, &'static [c_long]);

const REFUSED: &[Refusal] = &[
    (
        Some(Allowance::IoUring),
        ENOSYS,
        &[
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
    ),
    (
        None,
        ENOSYS,
        &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
    ),
    (
        Some(Allowance::Ptrace),
        EPERM,
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kcmp,
            libc::SYS_pidfd_getfd,
        ],
    ),
    (None, EPERM, &[libc::SYS_bpf, libc::SYS_perf_event_open]),
    // Its flags are in memory, where a filter cannot look; the C library falls
    // back to `clone`.
    (Some(Allowance::UserNamespaces), ENOSYS, &[libc::SYS_clone3]),
    (
        Some(Allowance::UserNamespaces),
        EPERM,
        &[
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            OPEN_TREE_ATTR,
        ],
    ),
    (
        None,
        EPERM,
        &[
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
            libc::SYS_adjtimex,
            libc::SYS_acct,
            libc::SYS_userfaultfd,
            libc::SYS_open_by_handle_at,
        ],
    ),
    #[cfg(target_arch = "x86_64")]
    (None, EPERM, &[libc::SYS_iopl, libc::SYS_ioperm]),
];

/// A filter that can be installed.
pub(crate) struct Filter(Vec<sock_filter>);

impl Filter {
    /// The filter of an image.
    pub(crate) fn new(confinement: &Confinement) -> Self {
        let mut program = vec![
            load(ARCHITECTURE_AT),
            jump(BPF_JEQ, ARCHITECTURE, 1, 0),
            refuse(ENOSYS),
            load(NUMBER_AT),
            jump(BPF_JGT, number(NEWEST), 0, 1),
            refuse(ENOSYS),
        ];
        for (unless, errno, calls) in REFUSED {
            if unless.is_some_and(|allowance| confinement.allows(allowance)) {
                continue;
            }
            for call in *calls {
                program.extend([jump(BPF_JEQ, number(*call), 0, 1), refuse(*errno)]);
            }
        }
        let mut families = vec![load(FIRST_ARGUMENT_AT)];
        for family in FAMILIES {
            families.extend([jump(BPF_JEQ, family.cast_unsigned(), 0, 1), allow()]);
        }
        families.extend([
            jump(BPF_JEQ, libc::AF_NETLINK.cast_unsigned(), 0, 4),
            load(THIRD_ARGUMENT_AT),
            jump(BPF_JEQ, NETLINK.cast_unsigned(), 0, 1),
            allow(),
            refuse(EPROTONOSUPPORT),
            refuse(EAFNOSUPPORT),
        ]);
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            program.extend(only_for(call, &families));
        }
        if !confinement.allows(Allowance::UserNamespaces) {
            for (call, bits) in [
                (libc::SYS_clone, NAMESPACES),
                (libc::SYS_unshare, NAMESPACES | NEW_TIME_NAMESPACE),
            ] {
                let flags = [
                    load(FIRST_ARGUMENT_AT),
                    jump(BPF_JSET, bits.cast_unsigned(), 0, 1),
                    refuse(EPERM),
                    allow(),
                ];
                program.extend(only_for(call, &flags));
            }
        }
        program.push(allow());
        Self(program)
    }

    /// Installs it for this process and all that it starts, for ever. Only a system
    /// call, so it may be made between fork and exec.
    pub(crate) fn install(&self) -> io::Result<()> {
        let program = sock_fprog {
            len: c_ushort::try_from(self.0.len()).unwrap_or(c_ushort::MAX),
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads `len` instructions from an array that has as
        // many, and copies them.
        let installed = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if installed == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// A part of the program that looks at one call and always ends in an answer.
fn only_for(call: c_long, part: &[sock_filter]) -> Vec<sock_filter> {
    let length = u8::try_from(part.len()).expect("a part has a few instructions");
    let mut program = vec![jump(BPF_JEQ, number(call), 0, length)];
    program.extend_from_slice(part);
    program
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("numbers of system calls are small")
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

fn jump(condition: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(BPF_JMP | condition | BPF_K, value, if_true, if_false)
}

fn allow() -> sock_filter {
    instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0)
}

fn refuse(errno: c_int) -> sock_filter {
    let answer = SECCOMP_RET_ERRNO | errno.cast_unsigned();
    instruction(BPF_RET | BPF_K, answer, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: c_ushort::try_from(code).expect("every code is below 2^8"),
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: 0, or the error.
    fn answer(filter: &Filter, architecture: u32, call: u32, argument: u64) -> c_int {
        answer_to(filter, architecture, call, [argument, 0])
    }

    /// The same for a call with these first and third arguments.
    fn answer_to(filter: &Filter, architecture: u32, call: u32, [first, third]: [u64; 2]) -> c_int {
        let low = |argument: u64| u32::try_from(argument & u64::from(u32::MAX)).unwrap();
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let step = filter.0[at];
            at += 1;
            let is = |condition: u32| u32::from(step.code) == BPF_JMP | condition | BPF_K;
            let met = if is(BPF_JEQ) {
                accumulator == step.k
            } else if is(BPF_JGT) {
                accumulator > step.k
            } else if is(BPF_JSET) {
                accumulator & step.k != 0
            } else if u32::from(step.code) == BPF_LD | BPF_W | BPF_ABS {
                accumulator = match step.k {
                    NUMBER_AT => call,
                    ARCHITECTURE_AT => architecture,
                    FIRST_ARGUMENT_AT => low(first),
                    THIRD_ARGUMENT_AT => low(third),
                    other => panic!("offset {other}"),
                };
                continue;
            } else {
                assert_eq!(u32::from(step.code), BPF_RET | BPF_K);
                return match step.k & 0xFFFF_0000 {
                    SECCOMP_RET_ALLOW => 0,
                    SECCOMP_RET_ERRNO => (step.k & 0xFFFF).cast_signed(),
                    other => panic!("action {other:x}"),
                };
            };
            at += usize::from(if met { step.jt } else { step.jf });
        }
    }

    fn filter(allow: &[&str]) -> Filter {
        Filter::new(&Confinement {
            allow: allow.iter().map(|name| name.parse().unwrap()).collect(),
            ..Confinement::default()
        })
    }

    fn ask(filter: &Filter, call: c_long, argument: c_int) -> c_int {
        let argument = u64::from(argument.cast_unsigned());
        answer(filter, ARCHITECTURE, number(call), argument)
    }

    #[test]
    fn seccomp_refuses_what_leaves_the_confinement() {
        let filter = filter(&[]);
        for (call, errno) in [
            (libc::SYS_io_uring_setup, ENOSYS),
            (libc::SYS_keyctl, ENOSYS),
            (libc::SYS_clone3, ENOSYS),
            (libc::SYS_ptrace, EPERM),
            (libc::SYS_process_vm_readv, EPERM),
            (libc::SYS_pidfd_getfd, EPERM),
            (libc::SYS_bpf, EPERM),
            (libc::SYS_perf_event_open, EPERM),
            (libc::SYS_finit_module, EPERM),
            (libc::SYS_kexec_file_load, EPERM),
            (libc::SYS_setns, EPERM),
            (libc::SYS_mount, EPERM),
            (libc::SYS_move_mount, EPERM),
            (OPEN_TREE_ATTR, EPERM),
            (libc::SYS_pivot_root, EPERM),
            (libc::SYS_reboot, EPERM),
            (libc::SYS_clock_settime, EPERM),
            (libc::SYS_userfaultfd, EPERM),
            (libc::SYS_open_by_handle_at, EPERM),
        ] {
            assert_eq!(ask(&filter, call, 0), errno, "{call}");
        }
    }

    #[test]
    fn seccomp_lets_ordinary_programs_work() {
        let filter = filter(&[]);
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_clone,
            libc::SYS_unshare,
            libc::SYS_chroot,
            libc::SYS_setuid,
            libc::SYS_mknodat,
            libc::SYS_fallocate,
            libc::SYS_memfd_create,
            libc::SYS_pidfd_open,
            libc::SYS_seccomp,
            libc::SYS_prctl,
            libc::SYS_kill,
            libc::SYS_clock_gettime,
            libc::SYS_inotify_init1,
            libc::SYS_openat2,
            libc::SYS_epoll_pwait2,
        ] {
            assert_eq!(ask(&filter, call, 0), 0, "{call}");
        }
    }

    #[test]
    fn seccomp_knows_four_families_of_sockets() {
        let filter = filter(&["io-uring", "user-namespaces", "ptrace"]);
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for family in -1..64 {
                let known = FAMILIES.contains(&family) || family == libc::AF_NETLINK;
                let expected = if known { 0 } else { EAFNOSUPPORT };
                assert_eq!(ask(&filter, call, family), expected, "{family}");
                // The kernel takes an `int`: what is above it makes no difference.
                let above = u64::from(family.cast_unsigned()) | 1 << 32;
                let answer = answer(&filter, ARCHITECTURE, number(call), above);
                assert_eq!(answer, expected, "{family}");
            }
        }
    }

    #[test]
    fn seccomp_knows_one_protocol_of_netlink() {
        let filter = filter(&["io-uring", "user-namespaces", "ptrace"]);
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for protocol in -1..64_i32 {
                let expected = if protocol == libc::NETLINK_ROUTE {
                    0
                } else {
                    EPROTONOSUPPORT
                };
                for above in [0, 1 << 32] {
                    let third = u64::from(protocol.cast_unsigned()) | above;
                    let family = u64::from(libc::AF_NETLINK.cast_unsigned()) | above;
                    let arguments = [family, third];
                    let answer = answer_to(&filter, ARCHITECTURE, number(call), arguments);
                    assert_eq!(answer, expected, "{protocol}");
                }
            }
            // The protocols of other families are theirs.
            let tcp = [libc::AF_INET.cast_unsigned().into(), 6];
            assert_eq!(answer_to(&filter, ARCHITECTURE, number(call), tcp), 0);
        }
    }

    #[test]
    fn seccomp_refuses_each_namespace_on_its_own() {
        let strict = filter(&[]);
        let open = filter(&["user-namespaces"]);
        for bit in 0..32 {
            let flag = (1u32 << bit).cast_signed();
            let (clone, unshare) = (libc::SYS_clone, libc::SYS_unshare);
            let refused = |bits: c_int| if flag & bits == 0 { 0 } else { EPERM };
            assert_eq!(ask(&strict, clone, flag), refused(NAMESPACES));
            let bits = NAMESPACES | NEW_TIME_NAMESPACE;
            assert_eq!(ask(&strict, unshare, flag), refused(bits));
            assert_eq!(ask(&open, clone, flag), 0);
            assert_eq!(ask(&open, unshare, flag), 0);
        }
        assert_eq!(ask(&open, libc::SYS_clone3, 0), 0);
        assert_eq!(ask(&open, libc::SYS_mount, 0), 0);
    }

    #[test]
    fn seccomp_makes_the_exceptions_that_the_image_names_and_no_other() {
        for (name, call) in [
            ("io-uring", libc::SYS_io_uring_enter),
            ("ptrace", libc::SYS_ptrace),
            ("user-namespaces", libc::SYS_setns),
        ] {
            assert_eq!(ask(&filter(&[name]), call, 0), 0, "{name}");
            let others: Vec<_> = ["io-uring", "user-namespaces", "ptrace"]
                .into_iter()
                .filter(|other| *other != name)
                .collect();
            assert_ne!(ask(&filter(&others), call, 0), 0, "{name}");
        }
        let all = filter(&["io-uring", "user-namespaces", "ptrace"]);
        for call in [
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_clock_settime,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
        ] {
            assert_eq!(ask(&all, call, 0), EPERM);
        }
    }

    #[test]
    fn seccomp_refuses_foreign_architectures_and_numbers_that_it_does_not_know() {
        let filter = filter(&[]);
        let read = number(libc::SYS_read);
        // i386, arm, and the other of the two that this program is built for.
        for architecture in [0x4000_0003, 0x4000_0028, ARCHITECTURE ^ 0x3E ^ 0xB7, 0] {
            assert_eq!(answer(&filter, architecture, read, 0), ENOSYS);
        }
        let x32 = 0x4000_0000;
        for call in [
            x32 | read,
            x32 | number(libc::SYS_socket),
            470,
            512,
            u32::MAX,
        ] {
            assert_eq!(answer(&filter, ARCHITECTURE, call, 1), ENOSYS, "{call}");
        }
        assert_eq!(ask(&filter, NEWEST, 0), 0);
    }

    #[test]
    fn seccomp_filter_is_taken_by_the_kernel() {
        // A thread of its own: a filter stays.
        let refused = std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            filter(&[]).install().unwrap();
            // SAFETY: neither call touches memory.
            let results = unsafe {
                [
                    libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
                    libc::unshare(libc::CLONE_NEWUSER),
                ]
            };
            (results, io::Error::last_os_error().raw_os_error())
        });
        assert_eq!(refused.join().unwrap(), ([-1, -1], Some(EPERM)));
    }
}
