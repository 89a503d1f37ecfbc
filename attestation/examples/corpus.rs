//! Writes the corpus of documents, the folder `corpus`, from its generator.
//!
//! `cargo run -p attestation --example corpus`

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "the tests' own code, which they use more of"
)]

#[path = "../tests/hostile/cases/mod.rs"]
mod cases;
#[path = "../tests/hostile/corpus.rs"]
mod corpus;
#[path = "../tests/hostile/cose.rs"]
mod cose;
#[path = "../tests/hostile/der.rs"]
mod der;
#[path = "../tests/hostile/rules.rs"]
mod rules;
#[path = "../tests/hostile/world.rs"]
mod world;

fn main() -> std::io::Result<()> {
    let files = cases::generate();
    for path in corpus::paths() {
        if !files.contains_key(&path) {
            std::fs::remove_file(corpus::folder().join(path))?;
        }
    }
    for (path, content) in &files {
        let path = corpus::folder().join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, content)?;
    }
    Ok(())
}
