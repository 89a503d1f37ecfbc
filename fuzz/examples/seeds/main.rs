//! Writes the corpora with the encoders of the crates themselves: run it when a
//! format has changed, from this folder: `cargo run --example seeds`. The files
//! of `cpio_read` and `eif_read` that other programs made are left alone.

mod agent;
mod configuration;
mod documents;
mod images;
mod key_policies;
mod protocol;

use std::fs;
use std::path::PathBuf;

fn main() {
    protocol::write_all();
    configuration::write_all();
    documents::write_all();
    images::write_all();
    key_policies::write_all();
    agent::write_all();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = PathBuf::from("corpus").join(target);
    fs::create_dir_all(&folder).expect("the corpus");
    fs::write(folder.join(name), bytes).expect("a seed");
}
