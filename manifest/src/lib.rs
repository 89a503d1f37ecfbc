//! enclave.toml and the configuration derived from it.
