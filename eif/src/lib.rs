//! The Enclave Image Format: read, write, measure.
