//! Ways out of the workload's confinement: each is refused, and with what.

use enclave_tests::Hypervisor;

use crate::hostile::{Hostile, User};

/// Refused by the filter of system calls, or for lack of a capability.
const FORBIDDEN: &[&str] = &["refused EPERM"];
/// Refused by a file's owner or mode, or because it is another's process.
const DENIED: &[&str] = &["refused EACCES", "refused EPERM"];
/// Not there at all.
const ABSENT: &[&str] = &["refused ENOENT", "refused ENXIO"];
/// No such family of addresses, says the filter.
const NO_FAMILY: &[&str] = &["refused EAFNOSUPPORT"];
/// The kernel has no such call, or the filter says so.
const NO_SUCH_CALL: &[&str] = &["refused ENOSYS", "refused EPERM"];
/// The process was ended for its attempt: by SIGSYS, or by SIGSEGV where the
/// kernel has no such door.
const ENDED: &[&str] = &["killed 31", "killed 11", "refused ENOSYS", "refused EPERM"];
/// The same as for every process, and without effect on a PID 1 that has not
/// asked for the signal.
const WITHOUT_EFFECT: &[&str] = &["done 0", "refused EPERM"];

/// A command and the answers that are accepted.
type Way = (&'static str, &'static [&'static str]);

/// To the parent past the egress list.
const VSOCK: &[Way] = &[
    ("try vsock 1", NO_FAMILY),
    ("try vsock 2", NO_FAMILY),
    ("try vsock 5", NO_FAMILY),
    // With flags beside the type.
    ("try vsock 526337", NO_FAMILY),
    ("try vsock-pair", NO_FAMILY),
    ("try vsock-x32", ENDED),
    ("try vsock-i386", ENDED),
    ("try io-uring", NO_SUCH_CALL),
];

/// Connections, which only a machine of their own may attempt: to the parent of
/// QEMU and of Nitro, to the hypervisor, to this machine and to its own init.
const CONNECTIONS: &[Way] = &[
    ("try vsock-connect 2 7000", NO_FAMILY),
    ("try vsock-connect 2 9000", NO_FAMILY),
    ("try vsock-connect 3 7000", NO_FAMILY),
    ("try vsock-connect 0 7000", NO_FAMILY),
    ("try vsock-connect 1 7001", NO_FAMILY),
    ("try vsock-connect 4 7001", NO_FAMILY),
];

/// To the security module, and to memory and devices of the machine.
const DEVICES: &[Way] = &[
    ("try open /dev/nsm", ABSENT),
    ("try open /dev/mem", ABSENT),
    ("try open /dev/kmem", ABSENT),
    ("try open /dev/port", ABSENT),
    ("try open /dev/kmsg", ABSENT),
    ("try open /dev/hwrng", ABSENT),
    ("try open /dev/vsock", ABSENT),
    ("try open /dev/ptp0", ABSENT),
    ("try open /proc/kcore", DENIED_OR_ABSENT),
    ("try read /proc/kmsg", EMPTY),
    ("try mount devtmpfs /tmp", FORBIDDEN),
    ("try mount proc /tmp", FORBIDDEN),
    ("try mount tmpfs /tmp", FORBIDDEN),
    ("try mount cgroup2 /tmp", FORBIDDEN),
    ("try ports", FORBIDDEN),
    ("try port", FORBIDDEN),
];

const DENIED_OR_ABSENT: &[&str] = &["refused EPERM", "refused EACCES", "refused ENOENT"];

/// There, and nothing in it.
const EMPTY: &[&str] = &["done read 0", "refused EPERM", "refused EACCES"];

/// To the init. The PID 1 that the workload sees is the one of its own namespace,
/// which reaps orphans: it holds no descriptor but its input and output, and what a
/// workload does to its limits concerns the workload alone.
const INIT: &[Way] = &[
    ("try open /proc/1/mem", DENIED),
    ("try open-write /proc/1/mem", DENIED),
    (
        "try list /proc/1/fd",
        &["done 0 1 2", "refused EACCES", "refused EPERM"],
    ),
    ("try open /proc/1/fd/0", DENIED),
    ("try list /proc/1/root", DENIED),
    ("try list /proc/1/cwd", DENIED),
    ("try open /proc/1/exe", DENIED),
    ("try read /proc/1/environ", DENIED),
    ("try read /proc/1/maps", DENIED),
    ("try link /proc/1/ns/net", DENIED),
    ("try open /proc/1/ns/mnt", DENIED),
    ("try ptrace-attach", FORBIDDEN),
    ("try ptrace-seize", FORBIDDEN),
    ("try read-memory", FORBIDDEN),
    ("try write-memory", FORBIDDEN),
    ("try take-descriptor", FORBIDDEN),
    ("try compare", NO_SUCH_CALL),
    ("try priority", DENIED),
    ("try scheduler", FORBIDDEN),
    ("try affinity", FORBIDDEN),
    ("try io-priority", NO_SUCH_CALL),
    ("try move-pages", NO_SUCH_CALL),
    ("try signal 9", WITHOUT_EFFECT),
    ("try signal 19", WITHOUT_EFFECT),
    ("try signal 11", WITHOUT_EFFECT),
];

/// To the kernel.
const KERNEL: &[Way] = &[
    ("try bpf", NO_SUCH_CALL),
    ("try module", NO_SUCH_CALL),
    ("try module-file", NO_SUCH_CALL),
    ("try module-delete", NO_SUCH_CALL),
    ("try kexec", NO_SUCH_CALL),
    ("try kexec-file", NO_SUCH_CALL),
    ("try key-add", NO_SUCH_CALL),
    ("try key-request", NO_SUCH_CALL),
    ("try key-control", NO_SUCH_CALL),
    ("try unshare-user", FORBIDDEN),
    ("try unshare-network", FORBIDDEN),
    ("try unshare-mounts", FORBIDDEN),
    ("try unshare-pids", FORBIDDEN),
    ("try unshare-cgroup", FORBIDDEN),
    ("try clone-user", FORBIDDEN),
    ("try clone3-user", NO_SUCH_CALL),
    ("try enter-namespace", FORBIDDEN),
    ("try new-mount", FORBIDDEN),
    ("try open-tree", FORBIDDEN),
    ("try unmount", FORBIDDEN),
    ("try pivot-root", FORBIDDEN),
    ("try chroot", FORBIDDEN),
    ("try reboot", FORBIDDEN),
    ("try host-name", FORBIDDEN),
    ("try domain-name", FORBIDDEN),
    ("try clock", FORBIDDEN),
    ("try time-of-day", FORBIDDEN),
    ("try adjust-clock", FORBIDDEN),
    ("try open-by-handle", FORBIDDEN),
    ("try page-faults", NO_SUCH_CALL),
    ("try performance", NO_SUCH_CALL),
    ("try kernel-log", FORBIDDEN),
    ("try swap", NO_SUCH_CALL),
    ("try accounting", NO_SUCH_CALL),
    ("try watch-files", NO_SUCH_CALL),
    ("try hang-up", FORBIDDEN),
    ("try write /proc/sysrq-trigger h", OUT_OF_REACH),
    ("try write /proc/sys/kernel/core_pattern core", OUT_OF_REACH),
    ("try write /proc/sys/kernel/hostname other", OUT_OF_REACH),
    ("try write /proc/sys/vm/panic_on_oom 1", OUT_OF_REACH),
    ("try write /proc/sys/vm/overcommit_memory 2", OUT_OF_REACH),
    ("try write /proc/sys/kernel/pid_max 400", OUT_OF_REACH),
    ("try write /proc/sys/kernel/threads-max 40", OUT_OF_REACH),
    ("try write /proc/sys/fs/file-max 10", OUT_OF_REACH),
    ("try write /proc/sys/kernel/modprobe /tmp/x", OUT_OF_REACH),
    ("try write /proc/sys/net/ipv4/ip_forward 1", OUT_OF_REACH),
    (
        "try write /sys/kernel/mm/transparent_hugepage/enabled never",
        OUT_OF_REACH,
    ),
];

const OUT_OF_REACH: &[&str] = &[
    "refused EROFS",
    "refused EACCES",
    "refused EPERM",
    "refused ENOENT",
];

/// What the process has been given.
const STATE: &[Way] = &[
    ("try status NoNewPrivs", &["done 1"]),
    ("try status Seccomp", &["done 2"]),
    ("try status CapInh", NOTHING),
    ("try status CapPrm", NOTHING),
    ("try status CapEff", NOTHING),
    ("try status CapBnd", NOTHING),
    ("try status CapAmb", NOTHING),
    ("try status Groups", &["done ", "done 0", "done 1000"]),
];
const NOTHING: &[&str] = &["done 0000000000000000"];

/// All that a program may need below `/dev`.
const DEV: &[&str] = &[
    "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
    "stdout", "tty", "urandom", "zero",
];

/// The folders that the workload may be able to write to.
const FOLDERS: &[&str] = &["/", "/tmp", "/run", "/dev/shm", "/dev", "/app"];

/// Tries them all, and tells all those whose answer is not accepted.
async fn refused(enclave: &Hostile, ways: &[&[Way]]) -> Vec<String> {
    let mut open = Vec::new();
    for (command, accepted) in ways.iter().copied().flatten() {
        let answer = enclave.ask(command).await;
        println!("{command}: {answer}");
        if !accepted.contains(&answer.as_str()) {
            open.push(format!("{command}: {answer:?} is not among {accepted:?}"));
        }
    }
    open
}

/// What depends on the machine or on the user.
async fn others(enclave: &Hostile, user: User) -> Vec<String> {
    let mut open = Vec::new();
    let devices = enclave.ask("try list /dev").await;
    for name in devices.split(' ').skip(1) {
        if !DEV.contains(&name) {
            open.push(format!("there is a /dev/{name}"));
        }
    }
    // The module's device, or the memory's, by a node of one's own.
    let module = enclave.ask("try read /sys/class/misc/nsm/dev").await;
    println!("the module's number: {module}");
    for folder in FOLDERS {
        for (major, minor) in [(1, 1), (10, 144), (10, 183), (4, 64)] {
            let command = format!("try device {folder}/node {major} {minor}");
            let answer = enclave.ask(&command).await;
            println!("{command}: {answer}");
            let refusals = [
                "refused EPERM",
                "refused EACCES",
                "refused ENOENT",
                "refused EROFS",
            ];
            if !refusals.contains(&answer.as_str()) {
                open.push(format!("{command}: {answer}"));
            }
        }
    }
    let elevated = enclave.elevated();
    let answer = enclave
        .ask(&format!("try setuid {}", elevated.display()))
        .await;
    println!("set-user-ID: {answer}");
    let uid = match user {
        User::Root | User::Namespaces => "0",
        User::Ordinary => "1000",
    };
    // Real, effective, saved, of the file system: all are the workload's own.
    if answer != format!("done done {}", [uid; 4].join("\t")) {
        open.push(format!("a set-user-ID program runs as {answer}"));
    }
    open
}

async fn every_way_out_is_refused(hypervisor: Hypervisor, user: User) {
    let mut enclave = Hostile::start(hypervisor, user).await;
    let mut open = match hypervisor {
        Hypervisor::Sim => refused(&enclave, &[STATE, VSOCK, INIT, KERNEL]).await,
        Hypervisor::Qemu => {
            let mut open = refused(
                &enclave,
                &[STATE, VSOCK, CONNECTIONS, DEVICES, INIT, KERNEL],
            )
            .await;
            open.extend(others(&enclave, user).await);
            open
        }
    };
    // Every process that the workload sees is its own.
    for process in enclave.ask("try list /proc").await.split(' ') {
        if process.parse::<u32>().is_ok() {
            let command = enclave
                .ask(&format!("try text /proc/{process}/cmdline"))
                .await;
            println!("process {process}: {command}");
            let is_own = command.contains("hostile-workload")
                || command.contains("/proc/self/exe")
                || command.contains("reaper")
                || command == "refused ENOENT";
            if !is_own {
                open.push(format!("process {process} can be seen: {command}"));
            }
        }
    }
    let sent = enclave.ask("try signals").await;
    println!("signals that can be sent to PID 1: {sent}");
    enclave.answers("after every attempt").await;
    let ended = enclave.agent.stopped().await.unwrap();
    let handed: Vec<_> = ended
        .records("application")
        .filter_map(|record| record["text"].as_str()?.strip_prefix("inherited "))
        .collect();
    for descriptor in handed {
        let expected = descriptor == "0 /dev/null"
            || descriptor.starts_with("1 pipe:")
            || descriptor.starts_with("2 pipe:");
        if !expected {
            open.push(format!("the workload inherits descriptor {descriptor}"));
        }
    }
    assert_eq!(ended.code, Some(0), "{}", ended.end());
    assert!(
        open.is_empty(),
        "{} ways are open:\n{}",
        open.len(),
        open.join("\n")
    );
}

#[tokio::test]
async fn qemu_root() {
    every_way_out_is_refused(Hypervisor::Qemu, User::Root).await;
}

#[tokio::test]
async fn qemu_user() {
    every_way_out_is_refused(Hypervisor::Qemu, User::Ordinary).await;
}
