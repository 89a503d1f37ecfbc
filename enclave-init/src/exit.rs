//! Exit codes of a simulated enclave; a machine powers off instead.

/// Exit code of a simulated enclave that was shut down, or whose batch workload succeeded.
pub const EXIT_ORDERLY: u8 = 0;
/// Exit code of a simulated enclave that failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code after wrong arguments.
pub const EXIT_USAGE: u8 = 2;
/// Exit code when the machine does not permit namespaces.
pub const EXIT_NAMESPACES: u8 = 3;
