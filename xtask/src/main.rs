//! Developer commands: demo, test, kernel, qemu.

fn main() {}
