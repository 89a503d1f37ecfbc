//! Stand-ins for services, for the tests of several crates. They know nothing of what
//! is tested.

#![forbid(unsafe_code)]

pub mod cloudwatch;
pub mod readers;
