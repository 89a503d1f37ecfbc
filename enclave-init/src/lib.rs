//! PID 1 inside the enclave.
