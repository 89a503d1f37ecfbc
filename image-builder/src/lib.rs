//! From an OCI image and enclave.toml to a reproducible EIF.
