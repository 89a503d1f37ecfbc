//! A workload that has a command beside it execute the init's program, and lays hands on that.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// Puts a bait in the place of a command, as a `link` or a `script`, and tries to change the
/// program of every process that appears here and has another one than this.
pub(crate) fn lure(how: &str, command: &str) -> ! {
    let _ = fs::remove_file(command);
    if how == "link" {
        symlink("/proc/self/exe", command).unwrap();
    } else {
        fs::write(command, "#!/proc/self/exe sim\n").unwrap();
        fs::set_permissions(command, Permissions::from_mode(0o755)).unwrap();
    }
    let own = fs::metadata("/proc/self/exe").unwrap();
    let mut said = BTreeSet::new();
    let mut say = |line: String| {
        if said.insert(line.clone()) {
            println!("{line}");
        }
    };
    println!("lured");
    loop {
        // Numbers are given one after the other, and a process that only fails is short-lived.
        let load = fs::read_to_string("/proc/loadavg").unwrap();
        let last: i32 = load.trim().rsplit(' ').next().unwrap().parse().unwrap();
        for pid in [last, last + 1] {
            let Ok(program) = File::open(format!("/proc/{pid}/exe")) else {
                continue;
            };
            let found = program.metadata().unwrap();
            if (found.dev(), found.ino()) == (own.dev(), own.ino()) {
                continue;
            }
            say("opened the program".to_owned());
            // As it is: a test that fails must not leave it otherwise.
            if let Err(error) = program.set_permissions(found.permissions()) {
                say(format!("mode: {:?}", error.kind()));
            } else {
                say("mode changed".to_owned());
            }
            let again = format!("/proc/self/fd/{}", program.as_raw_fd());
            if let Err(error) = File::options().append(true).open(again) {
                say(format!("append: {:?}", error.kind()));
            } else {
                say("opened to write".to_owned());
            }
        }
    }
}
