//! Deploy, watch and destroy enclaves from a terminal.

#![forbid(unsafe_code)]

fn main() {}
