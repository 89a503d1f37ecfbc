//! The verifier of attestation documents for Python: what
//! `python/nitro_attestation` is made of.

#![forbid(unsafe_code)]

mod claims;
mod client;
mod policy;
mod result;
mod verifier;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The module.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::claims::{Claims, inspect};
    #[pymodule_export]
    use super::client::{Client, Fetch, FetchError};
    #[pymodule_export]
    use super::policy::{Policy, read_measurements};
    #[pymodule_export]
    use super::result::{Expectations, KeySet};
    #[pymodule_export]
    use super::verifier::{Verification, Verifier};
}

/// An argument that cannot be used.
fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}
