//! What makes two builds of PID 1 the same bytes, as far as one build shows it; `cargo
//! xtask reproducible` compares two.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::PROGRAMS;

#[test]
fn reproducible_init_names_no_folder_of_this_machine() {
    let init = PROGRAMS.path("enclave-init");
    let contents = fs::read(&init).unwrap();
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    let target = init.ancestors().nth(3).unwrap();
    let package = env::current_dir().unwrap();
    let workspace = package.parent().unwrap();
    for folder in [cargo.as_deref().unwrap(), target, workspace] {
        let text = folder.to_str().unwrap().as_bytes();
        assert!(
            !contents.windows(text.len()).any(|window| window == text),
            "{} stands in {}",
            folder.display(),
            init.display()
        );
    }
}
