//! Writes the hostile corpus, `tests/hostile/cases.json`, under new keys.
//!
//! `cargo run -p attestation --example hostile_corpus`

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
#[path = "../tests/hostile/world.rs"]
mod world;

fn main() -> std::io::Result<()> {
    std::fs::write(corpus::path(), cases::generate().to_text())
}
