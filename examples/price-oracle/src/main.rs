//! Example workload: prices signed inside an enclave.

fn main() {}
