//! Stand-ins for services, and means of looking, for the tests of several crates. They know
//! nothing of what is tested.

#![forbid(unsafe_code)]

pub mod cloudwatch;
pub mod memory;
pub mod readers;
